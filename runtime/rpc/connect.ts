import { hash } from "node:crypto";
import type { ConnectError } from "@connectrpc/connect";
import { codeToHttpStatus, errorToJsonBytes } from "@connectrpc/connect/protocol-connect";
import { failure, MALFORMED_REQUEST } from "#runtime/errors.ts";
import { type Codec, jsonCodec, protoCodec } from "#runtime/rpc/codec.ts";
import type { WrittenHeaders } from "#runtime/rpc/exchange.ts";
import { unknownCompression } from "#runtime/rpc/grpc.ts";
import { acceptsGzip, COMPRESS_MIN_BYTES, compress, decompress, tooLarge } from "#runtime/rpc/gzip.ts";
import type { HttpCall, Wire } from "#runtime/rpc/http-call.ts";

function timeoutMs(call: HttpCall): number | undefined {
  const text = call.headers["connect-timeout-ms"] as string | undefined;
  if (text === undefined) return undefined;
  if (!/^\d{1,10}$/.test(text)) {
    throw failure(MALFORMED_REQUEST, { message: `The timeout "${text.slice(0, 20)}" cannot be read.` });
  }
  return Number.parseInt(text, 10);
}

/** Decompresses what is said to be compressed. */
function plain(call: HttpCall, bytes: Uint8Array, encoding: string | undefined): Uint8Array | Promise<Uint8Array> {
  switch (encoding) {
    case undefined:
    case "":
    case "identity":
      return bytes;
    case "gzip":
      return decompress(bytes, call.rpc.maxRequestBytes);
    default:
      throw unknownCompression(call, encoding, "accept-encoding");
  }
}

/** In a unary call of Connect trailers are headers with a prefix. */
function addTrailers(call: HttpCall, headers: WrittenHeaders): WrittenHeaders {
  call.ownTrailer?.forEach((value, name) => {
    headers[`trailer-${name}`] = value;
  });
  return headers;
}

function refuse(call: HttpCall, error: ConnectError): void {
  const body = errorToJsonBytes(error, undefined);
  const headers: WrittenHeaders = { "content-type": "application/json", "content-length": body.length };
  addMetadata(error, headers);
  if (call.requestMethod === "GET") headers["cache-control"] = "no-store";
  call.exchange.respond(codeToHttpStatus(error.code), addTrailers(call, call.withOwn(headers)), body);
}

/** What the one who raised an error adds to its headers. An error of another service brings that answer's headers along, which are nobody's business. */
function addMetadata(error: ConnectError, headers: WrittenHeaders): void {
  if ((error as { isWireError?: boolean }).isWireError === true) return;
  error.metadata.forEach((value, name) => {
    if (!(name in headers)) headers[name] = value;
  });
}

/** Writes an answer; `headers` are this protocol's own. */
function respond(call: HttpCall, headers: WrittenHeaders, body: Uint8Array, encoding: string | undefined): void {
  headers["content-length"] = body.length;
  if (encoding !== undefined) headers["content-encoding"] = encoding;
  call.exchange.respond(200, addTrailers(call, call.withOwn(headers)), body);
}

function postWire(codec: Codec): Wire {
  const contentType = `application/${codec.name}`;
  const send = (call: HttpCall, body: Uint8Array, encoding?: string): void =>
    respond(call, { "content-type": contentType }, body, encoding);
  return {
    carriage: "connect",
    codec,
    overheadBytes: 0,
    timeoutMs,
    unwrap: (call, body) => plain(call, body, call.header("content-encoding")),
    answer(call, message) {
      if (!compresses(call, message, call.headers["content-encoding"] === "gzip")) return send(call, message);
      return compress(message).then((bytes) => send(call, bytes, "gzip"));
    },
    refuse,
  };
}

function compresses(call: HttpCall, message: Uint8Array, sentGzip: boolean): boolean {
  return message.length >= COMPRESS_MIN_BYTES && acceptsGzip(call.header("accept-encoding"), sentGzip);
}

/** Reads without side effects, with the message in the URL: what caches on the way can keep. */
function getWire(codec: Codec): Wire {
  const contentType = `application/${codec.name}`;
  const send = (call: HttpCall, message: Uint8Array, etag: string | undefined, body: Uint8Array, encoding?: string): void => {
    const headers: WrittenHeaders = {
      "content-type": contentType,
      "cache-control": call.rpc.cacheControl(call),
      vary: varyOf(message),
    };
    if (etag !== undefined) headers.etag = etag;
    respond(call, headers, body, encoding);
  };
  return {
    carriage: "connect",
    codec,
    overheadBytes: 0,
    timeoutMs,
    unwrap(call) {
      const query = queryOf(call.exchange.target);
      return plain(call, messageIn(query, call.rpc.maxRequestBytes), query.get("compression") ?? undefined);
    },
    answer(call, message) {
      const etag = etagOf(call, message);
      if (etag !== undefined && matches(call.header("if-none-match"), etag)) {
        const headers: WrittenHeaders = { etag, "cache-control": call.rpc.cacheControl(call), vary: varyOf(message) };
        call.exchange.respond(304, addTrailers(call, call.withOwn(headers)));
        return undefined;
      }
      if (!compresses(call, message, false)) return send(call, message, etag, message);
      return compress(message).then((bytes) => send(call, message, etag, bytes, "gzip"));
    },
    refuse,
  };
}

/** The parameters of a request's target. */
export function queryOf(target: string): URLSearchParams {
  const at = target.indexOf("?");
  return new URLSearchParams(at < 0 ? "" : target.slice(at + 1));
}

function messageIn(query: URLSearchParams, maxBytes: number): Uint8Array {
  const text = query.get("message") ?? "";
  const base64 = query.get("base64") === "1";
  if (base64 && !/^[A-Za-z0-9+/_-]*={0,2}$/.test(text)) {
    throw failure(MALFORMED_REQUEST, { message: "The message in the URL is not base64." });
  }
  const bytes = Buffer.from(text, base64 ? "base64url" : "utf8");
  if (bytes.length > maxBytes) throw tooLarge(maxBytes);
  return bytes;
}

/**
 * What an answer depends on beside the URL: who asks, so that a browser in which somebody else has signed in does not give what it kept for another;
 * and what encodings are accepted, as soon as there is something to compress.
 */
function varyOf(message: Uint8Array): string {
  return message.length >= COMPRESS_MIN_BYTES ? "authorization, accept-encoding" : "authorization";
}

/** Names an answer by its contents, whatever compresses it, hence weak. Only where it may be kept. */
function etagOf(call: HttpCall, message: Uint8Array): string | undefined {
  const own = call.ownHeader?.get("etag");
  if (own !== undefined && own !== null) return own;
  if (call.rpc.cacheControl(call) === "no-store") return undefined;
  return `W/"${hash("sha1", message, "base64url")}"`;
}

/** Weakly, as reads are compared (RFC 9110, 13.1.2). */
function matches(condition: string | undefined, etag: string): boolean {
  if (condition === undefined) return false;
  if (condition.trim() === "*") return true;
  const opaque = etag.replace(/^W\//, "");
  return condition.split(",").some((each) => each.trim().replace(/^W\//, "") === opaque);
}

/** Connect's unary calls with POST, by the content type. */
export const connectWires: ReadonlyMap<string, Wire> = new Map([
  ["application/proto", postWire(protoCodec)],
  ["application/json", postWire(jsonCodec)],
]);

/** Connect's unary calls with GET, by the parameter `encoding`. */
export const connectGetWires: ReadonlyMap<string, Wire> = new Map([
  ["proto", getWire(protoCodec)],
  ["json", getWire(jsonCodec)],
]);
