import type { ConnectError } from "@connectrpc/connect";
import { COMPRESSION_UNNAMED, failure, MALFORMED_REQUEST, PROTOCOL_UNSUPPORTED } from "#runtime/errors.ts";
import { type Codec, jsonCodec, protoCodec } from "#runtime/rpc/codec.ts";
import type { WrittenHeaders } from "#runtime/rpc/exchange.ts";
import { grpcStatus } from "#runtime/rpc/grpc-status.ts";
import { acceptsGzip, COMPRESS_MIN_BYTES, compress, decompress, tooLarge } from "#runtime/rpc/gzip.ts";
import type { HttpCall, Wire } from "#runtime/rpc/http-call.ts";

/** The bytes in front of a message: flags and its length. */
const HEAD_BYTES = 5;
const COMPRESSED = 0b1;
const TRAILER = 0b1000_0000;

const UNIT_MS: Readonly<Record<string, number>> = { H: 3_600_000, M: 60_000, S: 1000, m: 1, u: 1e-3, n: 1e-6 };

function timeoutMs(call: HttpCall): number | undefined {
  const text = call.headers["grpc-timeout"] as string | undefined;
  if (text === undefined) return undefined;
  const unit = UNIT_MS[text.charAt(text.length - 1)];
  if (unit === undefined || !/^\d{1,8}.$/.test(text)) {
    throw failure(MALFORMED_REQUEST, { message: `The timeout "${text.slice(0, 20)}" cannot be read.` });
  }
  return Number.parseInt(text, 10) * unit;
}

/** Takes the one message out of its envelope. */
function unwrap(call: HttpCall, body: Buffer): Uint8Array | Promise<Uint8Array> {
  const { maxRequestBytes } = call.rpc;
  const encoding = call.headers["grpc-encoding"];
  if (encoding !== undefined && encoding !== "gzip" && encoding !== "identity") {
    throw unknownCompression(call, String(encoding), "grpc-accept-encoding");
  }
  if (body.length === 0) throw notOne("has none");
  if (body.length < HEAD_BYTES) throw tooShort();
  const flags = body[0] as number;
  const length = body.readUInt32BE(1);
  if (length > maxRequestBytes) throw tooLarge(maxRequestBytes);
  if (body.length < HEAD_BYTES + length) throw tooShort();
  if (body.length > HEAD_BYTES + length) throw notOne("has more");
  const message = body.subarray(HEAD_BYTES);
  if (flags === 0) return message;
  if (flags !== COMPRESSED) throw failure(MALFORMED_REQUEST, { message: "The message has flags that do not exist." });
  if (encoding !== "gzip") throw failure(COMPRESSION_UNNAMED);
  return decompress(message, maxRequestBytes);
}

function notOne(what: string): ConnectError {
  return failure(PROTOCOL_UNSUPPORTED, { message: `A unary call has one message; this one ${what}.` });
}

function tooShort(): ConnectError {
  return failure(MALFORMED_REQUEST, { message: "The request ends before its message does." });
}

/** The refusal of a compression that is not spoken here; the answer names the one that is. */
export function unknownCompression(call: HttpCall, encoding: string, acceptHeader: string): ConnectError {
  call.responseHeader.set(acceptHeader, "gzip");
  return failure(PROTOCOL_UNSUPPORTED, { message: `The compression "${encoding.slice(0, 50)}" is unknown; gzip is known.` });
}

function envelope(message: Uint8Array, flags: number, tail?: Uint8Array): Buffer {
  const length = HEAD_BYTES + message.length;
  const bytes = Buffer.allocUnsafe(tail === undefined ? length : length + tail.length);
  bytes[0] = flags;
  bytes.writeUInt32BE(message.length, 1);
  bytes.set(message, HEAD_BYTES);
  if (tail !== undefined) bytes.set(tail, length);
  return bytes;
}

/** The compressed message, where compressing is wanted and worth it. */
function compressed(call: HttpCall, message: Uint8Array): Promise<Buffer> | undefined {
  if (message.length < COMPRESS_MIN_BYTES) return undefined;
  return acceptsGzip(call.header("grpc-accept-encoding"), call.headers["grpc-encoding"] === "gzip") ? compress(message) : undefined;
}

/** What an answer's trailers are: the status, and what the handler set. */
function addTrailers(call: HttpCall, trailers: WrittenHeaders): WrittenHeaders {
  call.ownTrailer?.forEach((value, name) => {
    trailers[name] = value;
  });
  return trailers;
}

/** gRPC, whose status stands in trailers, and that of an error in the only headers: a proxy that retries looks for it there and nowhere else. */
function grpcWire(codec: Codec): Wire {
  const contentType = `application/grpc+${codec.name}`;
  const send = (call: HttpCall, frame: Buffer, encoding?: string): void => {
    const headers: WrittenHeaders = { "content-type": contentType };
    if (encoding !== undefined) headers["grpc-encoding"] = encoding;
    call.exchange.respond(200, call.withOwn(headers), frame, addTrailers(call, { "grpc-status": "0" }));
  };
  return {
    carriage: "grpc",
    codec,
    overheadBytes: HEAD_BYTES,
    timeoutMs,
    unwrap,
    answer(call, message) {
      const smaller = compressed(call, message);
      if (smaller === undefined) return send(call, envelope(message, 0));
      return smaller.then((bytes) => send(call, envelope(bytes, COMPRESSED), "gzip"));
    },
    refuse(call, error) {
      const headers = addTrailers(call, call.withOwn({ "content-type": contentType }));
      grpcStatus(error).forEach((value, name) => {
        headers[name] = value;
      });
      call.exchange.respond(200, headers);
    },
  };
}

function trailerLines(trailers: WrittenHeaders): Buffer {
  return Buffer.from(
    Object.keys(trailers)
      .map((name) => `${name}: ${trailers[name]}\r\n`)
      .join(""),
  );
}

const TRAILERS_OK = envelope(trailerLines({ "grpc-status": "0" }), TRAILER);

/** gRPC-Web, whose trailers are a last message of the body: pages see no others. */
function grpcWebWire(codec: Codec): Wire {
  const contentType = `application/grpc-web+${codec.name}`;
  const tail = (call: HttpCall): Buffer =>
    call.ownTrailer === undefined ? TRAILERS_OK : envelope(trailerLines(addTrailers(call, { "grpc-status": "0" })), TRAILER);
  const send = (call: HttpCall, body: Buffer, encoding?: string): void => {
    const headers: WrittenHeaders = { "content-type": contentType, "content-length": body.length };
    if (encoding !== undefined) headers["grpc-encoding"] = encoding;
    call.exchange.respond(200, call.withOwn(headers), body);
  };
  return {
    carriage: "grpc-web",
    codec,
    overheadBytes: HEAD_BYTES,
    timeoutMs,
    unwrap,
    answer(call, message) {
      const smaller = compressed(call, message);
      if (smaller === undefined) return send(call, envelope(message, 0, tail(call)));
      return smaller.then((bytes) => send(call, envelope(bytes, COMPRESSED, tail(call)), "gzip"));
    },
    refuse(call, error) {
      const trailers = addTrailers(call, {});
      grpcStatus(error).forEach((value, name) => {
        trailers[name] = value;
      });
      send(call, envelope(trailerLines(trailers), TRAILER));
    },
  };
}

/** gRPC and gRPC-Web by the content types they are asked with. */
export const grpcWires: ReadonlyMap<string, Wire> = new Map([
  ...wiresOf("application/grpc", grpcWire),
  ...wiresOf("application/grpc-web", grpcWebWire),
]);

function wiresOf(type: string, make: (codec: Codec) => Wire): [string, Wire][] {
  const proto = make(protoCodec);
  return [
    [type, proto],
    [`${type}+proto`, proto],
    [`${type}+json`, make(jsonCodec)],
  ];
}
