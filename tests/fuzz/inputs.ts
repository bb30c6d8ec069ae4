import { gzipSync } from "node:zlib";
import { create, toBinary, toJsonString } from "@bufbuild/protobuf";
import fc from "fast-check";
import { CreateListingRequestSchema } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { FLAG, FRAME, frame, headerBlock } from "../edges/frames.ts";
import { CREATE_LISTING, envelope, GET_LISTING, LISTING, request } from "../rpc/stage.ts";

/** How a request is spoken: over which version of HTTP, in which protocol, for which method. */
interface Way {
  readonly version: 1 | 2;
  readonly path: string;
  readonly type: string;
  readonly json: boolean;
  /** Whether the message stands in an envelope of five bytes. */
  readonly enveloped: boolean;
  /** The header that names the compression. */
  readonly encoding: string;
  readonly get?: boolean;
}

const WATCH = "/grpc.health.v1.Health/Watch";
const REFLECT = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";

const PROTOCOLS = [
  { type: "application/proto", json: false, enveloped: false, encoding: "content-encoding" },
  { type: "application/json", json: true, enveloped: false, encoding: "content-encoding" },
  { type: "application/json", json: true, enveloped: false, encoding: "content-encoding", get: true },
  { type: "application/proto", json: false, enveloped: false, encoding: "content-encoding", get: true },
  { type: "application/connect+proto", json: false, enveloped: true, encoding: "connect-content-encoding" },
  { type: "application/connect+json", json: true, enveloped: true, encoding: "connect-content-encoding" },
  { type: "application/grpc", json: false, enveloped: true, encoding: "grpc-encoding" },
  { type: "application/grpc+json", json: true, enveloped: true, encoding: "grpc-encoding" },
  { type: "application/grpc-web+proto", json: false, enveloped: true, encoding: "grpc-encoding" },
] as const;

const ways: fc.Arbitrary<Way> = fc
  .tuple(
    fc.constantFrom(1 as const, 2 as const),
    fc.constantFrom(...PROTOCOLS),
    fc.constantFrom(GET_LISTING, CREATE_LISTING, WATCH, REFLECT),
  )
  .map(([version, protocol, path]) => ({ version, path, ...protocol }));

const LISTING_TO_CREATE = create(CreateListingRequestSchema, {
  requestId: "fuzz/1",
  listing: { title: "Old chair", description: "It creaks. ".repeat(50), quantity: 3, photos: [] as never },
} as never);

/** A message that is right, as far as its kind goes. */
function validMessage({ path, json }: Way): Buffer {
  if (path === CREATE_LISTING) {
    return Buffer.from(
      json ? toJsonString(CreateListingRequestSchema, LISTING_TO_CREATE) : toBinary(CreateListingRequestSchema, LISTING_TO_CREATE),
    );
  }
  if (path === GET_LISTING) return Buffer.from(json ? JSON.stringify({ listingId: LISTING }) : request());
  return Buffer.from(json ? "{}" : "");
}

/** What else may stand in the place of a message. */
const strangeMessage: fc.Arbitrary<Buffer> = fc.oneof(
  fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
  fc.json({ maxDepth: 6 }).map((text) => Buffer.from(text)),
  fc
    .constantFrom("[", '{"listing":', '{"a":[', '"\\u')
    .chain((piece) => fc.integer({ min: 1, max: 12_000 }).map((n) => Buffer.from(piece.repeat(n).slice(0, 60_000)))),
  // Messages in messages, and groups in groups.
  fc
    .constantFrom([0x12, 0x7f], [0x0b], [0x0a, 0xff, 0xff, 0x03], [0x08, 0x80], [0xff])
    .chain((piece) => fc.integer({ min: 1, max: 20_000 }).map((n) => Buffer.alloc(n * piece.length, Buffer.from(piece)))),
  fc.integer({ min: 1, max: 400_000 }).map((size) => Buffer.alloc(size, 0x20)),
);

/** Headers that the protocols of RPC read. */
const STRANGE_HEADERS: Readonly<Record<string, readonly string[]>> = {
  "grpc-timeout": ["0n", "1n", "99999999H", "-1S", "1e9S", "999999999999S", "", "S"],
  "connect-timeout-ms": ["0", "1", "-1", "9999999999", "1.5", "0x10", " "],
  "content-encoding": ["gzip", "br", "identity, gzip", ""],
  "grpc-encoding": ["gzip", "br", "identity", ""],
  "connect-content-encoding": ["gzip", "zstd"],
  "content-type": [
    ...PROTOCOLS.map(({ type }) => type),
    "application/grpc+",
    "a/b;charset=",
    "application/json; charset=utf-16",
    ";",
  ],
  "accept-encoding": ["gzip;q=0", "*", "gzip,".repeat(500), "gzip;q=0.0000000000000000000001"],
  "grpc-accept-encoding": ["gzip", "gzip;".repeat(300)],
  authorization: ["Bearer x", `Bearer ${"a.".repeat(2000)}`, `Bearer ${Buffer.from('{"alg":"none"}').toString("base64url")}.e30.`],
  "x-souk-service-token": ["x", "e30.e30.e30"],
  "x-souk-account": ["me", ";"],
  "if-none-match": ["*", '"a",'.repeat(1000), `W/${'"'.repeat(500)}`],
  "connect-protocol-version": ["1", "2"],
  origin: ["http://localhost:1", "null", "https://evil.example"],
  "x-forwarded-client-cert": ["By=a;URI=spiffe://x/ns/y/sa/order", ",".repeat(2000)],
  traceparent: ["00-0-0-0", "00-".repeat(300)],
  "x-many": ["y".repeat(9000)],
};

/** Headers that HTTP itself reads, which refuses most of them. */
const STRANGE_TO_HTTP: typeof STRANGE_HEADERS = {
  "content-length": ["0", "5", "-1", "999999999", "1e3"],
  "transfer-encoding": ["chunked", "gzip", "chunked, chunked"],
  expect: ["100-continue", "200-ok"],
  connection: ["close", "upgrade", "keep-alive, close"],
  upgrade: ["h2c", "websocket"],
  te: ["trailers", "gzip"],
  host: ["", "a b", "[::1", "x:99999", "%"],
  origin: ["http://localhost:1\u0000"],
};

const headersOf = (all: typeof STRANGE_HEADERS, maxLength: number): fc.Arbitrary<Record<string, string>> =>
  fc
    .array(
      fc
        .constantFrom(...Object.keys(all))
        .chain((name) => fc.constantFrom(...(all[name] as string[])).map((value) => [name, value] as const)),
      { maxLength },
    )
    .map((pairs) => Object.fromEntries(pairs));

const strangeHeaders = fc.oneof(
  { weight: 4, arbitrary: headersOf(STRANGE_HEADERS, 2) },
  { weight: 1, arbitrary: headersOf({ ...STRANGE_HEADERS, ...STRANGE_TO_HTTP }, 3) },
);

/** What is done to a message before it is sent. */
const dressings = fc.record({
  gzip: fc.boolean(),
  flags: fc.option(fc.integer({ min: 0, max: 255 }), { freq: 4 }),
  length: fc.option(fc.constantFrom(0, 1, 0x7fffffff, 0xffffffff), { freq: 6 }),
  times: fc.constantFrom(1, 1, 1, 2, 3),
});

interface Parts {
  readonly way: Way;
  readonly message: Buffer | undefined;
  readonly dressing: { gzip: boolean; flags: number | null; length: number | null; times: number };
  readonly headers: Record<string, string>;
  /** Of an account that may create listings. */
  readonly token: string;
}

function bodyOf({ way, message, dressing }: Parts): Buffer {
  const plain = message ?? validMessage(way);
  const data = dressing.gzip ? gzipSync(plain) : plain;
  if (!way.enveloped) return data;
  const one = envelope(data, dressing.flags ?? (dressing.gzip ? 1 : 0));
  if (dressing.length !== null) one.writeUInt32BE(dressing.length, 1);
  return Buffer.concat(Array.from({ length: dressing.times }, () => one));
}

/** A request as bytes of its version of HTTP. */
function requestOf(parts: Parts): Buffer {
  const { way, dressing } = parts;
  const body = bodyOf(parts);
  const encoding = dressing.gzip ? { [way.encoding]: "gzip" } : {};
  if (way.get === true) {
    const query = `?connect=v1&encoding=${way.json ? "json" : "proto"}&base64=1${dressing.gzip ? "&compression=gzip" : ""}&message=${body.toString("base64url").slice(0, 12_000)}`;
    return way.version === 1 ? http1("GET", way.path + query, parts.headers) : http2("GET", way.path + query, parts.headers);
  }
  const signedIn = way.path === CREATE_LISTING ? { authorization: `Bearer ${parts.token}` } : {};
  const headers = { "content-type": way.type, ...encoding, ...signedIn, ...parts.headers };
  if (way.version === 2) return http2("POST", way.path, { te: "trailers", ...headers }, body);
  return Buffer.concat([http1("POST", way.path, { "content-length": String(body.length), ...headers }), body]);
}

function http1(method: string, target: string, headers: Record<string, string>): Buffer {
  const lines = Object.entries({ host: "localhost", ...headers }).map(([name, value]) => `${name}: ${value}\r\n`);
  return Buffer.from(`${method} ${target} HTTP/1.1\r\n${lines.join("")}\r\n`, "latin1");
}

/** What a connection of HTTP/2 begins with. */
const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
const FRAME_BYTES = 16_384;

function http2(method: string, path: string, headers: Record<string, string>, body?: Buffer): Buffer {
  const all = { ":method": method, ":scheme": "http", ":path": path, ":authority": "localhost", ...headers };
  const block = headerBlock(Object.entries(all));
  const ends = body === undefined || body.length === 0;
  const frames = [frame(FRAME.headers, FLAG.endHeaders | (ends ? FLAG.endStream : 0), 1, block)];
  for (let at = 0; !ends && at < body.length; at += FRAME_BYTES) {
    const last = at + FRAME_BYTES >= body.length;
    frames.push(frame(FRAME.data, last ? FLAG.endStream : 0, 1, body.subarray(at, at + FRAME_BYTES)));
  }
  return Buffer.concat([PREFACE, frame(FRAME.settings, 0, 0), ...frames]);
}

const requests = (token: string): fc.Arbitrary<Buffer> =>
  fc
    .record({
      way: ways,
      message: fc.option(strangeMessage, { nil: undefined }),
      dressing: dressings,
      headers: strangeHeaders,
      token: fc.constant(token),
    })
    .map(requestOf);

/** A change of some bytes; places are parts of the whole. */
type Change = (bytes: Buffer) => Buffer;
const place = fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true });
const changes: fc.Arbitrary<Change> = fc.oneof(
  fc.tuple(place, fc.integer({ min: 0, max: 255 })).map(
    ([at, value]): Change =>
      (bytes) => {
        const copy = Buffer.from(bytes);
        if (copy.length > 0) copy[Math.floor(at * copy.length)] = value;
        return copy;
      },
  ),
  fc.tuple(place, fc.uint8Array({ maxLength: 40 })).map(
    ([at, added]): Change =>
      (bytes) => {
        const index = Math.floor(at * bytes.length);
        return Buffer.concat([bytes.subarray(0, index), added, bytes.subarray(index)]);
      },
  ),
  fc.tuple(place, fc.integer({ min: 1, max: 60 })).map(
    ([at, length]): Change =>
      (bytes) => {
        const index = Math.floor(at * bytes.length);
        return Buffer.concat([bytes.subarray(0, index), bytes.subarray(index + length)]);
      },
  ),
  fc.tuple(place, fc.integer({ min: 1, max: 80 }), fc.integer({ min: 2, max: 4 })).map(
    ([at, length, times]): Change =>
      (bytes) => {
        const index = Math.floor(at * bytes.length);
        const piece = bytes.subarray(index, index + length);
        return Buffer.concat([
          bytes.subarray(0, index),
          ...Array.from({ length: times }, () => piece),
          bytes.subarray(index + length),
        ]);
      },
  ),
  place.map(
    (at): Change =>
      (bytes) =>
        bytes.subarray(0, Math.floor(at * bytes.length)),
  ),
);

/** A frame of HTTP/2 that may be of any kind. */
const anyFrame = fc
  .tuple(
    fc.integer({ min: 0, max: 12 }),
    fc.integer({ min: 0, max: 255 }),
    fc.constantFrom(0, 1, 2, 3, 0x7fffffff),
    fc.uint8Array({ maxLength: 64 }),
  )
  .map(([type, flags, streamId, payload]) => frame(type, flags, streamId, payload));

/** Anything a port may be sent: requests, some of them signed in, requests that were changed, frames in any order, and noise. */
export function inputs(token: string): fc.Arbitrary<Buffer> {
  const whole = requests(token);
  const changed = fc
    .tuple(whole, fc.array(changes, { minLength: 1, maxLength: 3 }))
    .map(([bytes, all]) => all.reduce((now, change) => change(now), bytes));
  const followed = fc
    .tuple(whole, fc.array(anyFrame, { minLength: 1, maxLength: 8 }))
    .map(([bytes, frames]) => Buffer.concat([bytes, ...frames]));
  return fc.oneof(
    { weight: 8, arbitrary: whole },
    { weight: 4, arbitrary: changed },
    { weight: 2, arbitrary: followed },
    {
      weight: 1,
      arbitrary: fc.array(anyFrame, { minLength: 1, maxLength: 12 }).map((frames) => Buffer.concat([PREFACE, ...frames])),
    },
    { weight: 1, arbitrary: fc.uint8Array({ minLength: 1, maxLength: 400 }).map((bytes) => Buffer.from(bytes)) },
  );
}

/** A valid call over one version of HTTP that takes about so many bytes: a field that the message does not know carries the rest. */
export function validCall(version: 1 | 2, size: number): Buffer {
  const message = request();
  const padding = Math.max(0, Math.min(size - 400, 60_000));
  const field = Buffer.concat([
    Buffer.from([0xa2, 0x06, 0x80 | (padding & 127), 0x80 | ((padding >> 7) & 127), padding >> 14]),
    Buffer.alloc(padding),
  ]);
  const way: Way = {
    version,
    path: GET_LISTING,
    type: "application/proto",
    json: false,
    enveloped: false,
    encoding: "content-encoding",
  };
  const dressing = { gzip: false, flags: null, length: null, times: 1 };
  return requestOf({ way, message: Buffer.concat([message, field]), dressing, headers: {}, token: "" });
}
