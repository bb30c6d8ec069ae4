import assert from "node:assert/strict";
import type { IncomingHttpHeaders, ServerHttp2Stream } from "node:http2";
import { gzipSync } from "node:zlib";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { type GrpcClientOptions, openGrpcClient } from "#runtime/client/transport.ts";
import { answer, Echo, framed, rawServer, refuse, texts } from "./echo.ts";

interface Seen {
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

describe("a message", () => {
  const ends: (() => unknown)[] = [];
  afterEach(async () => {
    for (const end of ends.splice(0).reverse()) await end();
  });

  async function clientOf(onCall: (stream: ServerHttp2Stream, seen: Seen) => void, options: Partial<GrpcClientOptions> = {}) {
    const server = await rawServer((http2) =>
      http2.on("stream", (stream: ServerHttp2Stream, headers) => {
        const chunks: Buffer[] = [];
        stream.on("data", (chunk: Buffer) => chunks.push(chunk));
        stream.on("end", () => onCall(stream, { headers, body: Buffer.concat(chunks) }));
      }),
    );
    const grpc = openGrpcClient({ baseUrl: server.url, ...options });
    ends.push(
      () => server.stop(),
      () => grpc.close(),
    );
    return createClient(Echo, grpc.transport());
  }

  function send(stream: ServerHttp2Stream, body: Buffer, headers: Record<string, string> = {}): void {
    if (stream.destroyed) return;
    stream.respond({ ":status": 200, "content-type": "application/grpc", ...headers }, { waitForTrailers: true });
    stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
    stream.end(body);
  }

  /** A compressed message. */
  function packed(value: string): Buffer {
    const bytes = gzipSync(framed(value).subarray(5));
    const head = Buffer.alloc(5);
    head[0] = 1;
    head.writeUInt32BE(bytes.length, 1);
    return Buffer.concat([head, bytes]);
  }

  const fails = (call: Promise<unknown>, code: Code) =>
    assert.rejects(call, (error) => error instanceof ConnectError && error.code === code);

  it("is sent compressed when that is asked for and worth it", async () => {
    const seen: Seen[] = [];
    const client = await clientOf(
      (stream, call) => {
        seen.push(call);
        answer(stream);
      },
      { sendCompression: "gzip", compressMinBytes: 100 },
    );
    await client.command({ value: "x".repeat(10_000) });
    await client.command({ value: "short" });
    const [long, short] = seen;
    assert.equal(long?.headers["grpc-encoding"], "gzip");
    assert.equal(long?.body[0], 1);
    assert.ok((long?.body.length ?? 0) < 1_000);
    assert.equal(short?.body[0], 0);
    assert.deepEqual(short?.body, framed("short"));
  });

  it("is sent as it is otherwise, and may always come compressed", async () => {
    const seen: Seen[] = [];
    const client = await clientOf((stream, call) => {
      seen.push(call);
      send(stream, packed("squeezed"), { "grpc-encoding": "gzip" });
    });
    assert.equal((await client.command({ value: "x".repeat(10_000) })).value, "squeezed");
    assert.match(String(seen[0]?.headers["grpc-accept-encoding"]), /gzip/);
    assert.equal(seen[0]?.headers["grpc-encoding"], undefined);
    assert.equal(seen[0]?.body[0], 0);
  });

  it("is not read when it is larger than allowed, before or after decompression", async () => {
    for (const [body, headers] of [
      [framed("x".repeat(2_000)), {}],
      [packed("x".repeat(2_000)), { "grpc-encoding": "gzip" }],
    ] as const) {
      const client = await clientOf((stream) => send(stream, body, headers), { readMaxBytes: 1_000 });
      await fails(client.command({}), Code.ResourceExhausted);
      await fails(texts(client.list({})), Code.ResourceExhausted);
    }
    const client = await clientOf((stream) => send(stream, framed("x".repeat(2_000))), { readMaxBytes: 2_100 });
    await client.command({});
  });

  it("is not sent when it is larger than allowed", async () => {
    let calls = 0;
    const client = await clientOf(
      (stream) => {
        calls++;
        answer(stream);
      },
      { writeMaxBytes: 1_000 },
    );
    await fails(client.command({ value: "x".repeat(2_000) }), Code.ResourceExhausted);
    assert.equal(calls, 0);
    await client.command({ value: "x".repeat(900) });
  });

  it("is refused when it is not the one answer of a call", async () => {
    const two = await clientOf((stream) => send(stream, Buffer.concat([framed("one"), framed("two")])));
    await fails(two.command({}, { timeoutMs: 10_000 }), Code.Unimplemented);
    const none = await clientOf((stream) => send(stream, Buffer.alloc(0)));
    await fails(none.command({}, { timeoutMs: 10_000 }), Code.Unimplemented);
  });

  it("is refused when it is not gRPC, or no protobuf", async () => {
    const other = await clientOf((stream) => send(stream, framed("well"), { "content-type": "text/plain" }));
    await fails(other.command({}), Code.Unknown);
    const broken = await clientOf((stream) => send(stream, Buffer.from([0, 0, 0, 0, 2, 255, 255])));
    await fails(broken.command({}), Code.Internal);
    await fails(texts(broken.list({})), Code.Internal);
  });

  it("is not sent with headers that cannot be, and those of the connection are left out", async () => {
    const seen: Seen[] = [];
    const client = await clientOf((stream, call) => {
      seen.push(call);
      answer(stream);
    });
    await fails(client.command({}, { headers: { "x-name": "Zoë" } }), Code.InvalidArgument);
    await client.command({}, { headers: { connection: "close", "transfer-encoding": "chunked", "x-name": "Zoe", te: "gzip" } });
    assert.equal(seen.length, 1);
    assert.equal(seen[0]?.headers["x-name"], "Zoe");
    assert.equal(seen[0]?.headers.te, "trailers");
  });

  it("is told of to an observer, once whatever its attempts, with what the observer sends along", async () => {
    const told: string[] = [];
    const seen: unknown[] = [];
    let calls = 0;
    const client = await clientOf(
      (stream, { headers }) => {
        seen.push(headers.traceparent);
        if (calls++ === 0) refuse(stream, Code.Unavailable);
        else if (headers[":path"] === "/souk.test.Echo/Ask") answer(stream);
        else refuse(stream, Code.NotFound);
      },
      {
        boundsOf: () => ({ maxAttempts: 2 }),
        observer: {
          clientCall({ method, carriage, target, setHeader }) {
            assert.match(target, /^127\.0\.0\.1:\d+$/);
            setHeader("traceparent", `of-${method.name}`);
            return {
              run: (work) => work(),
              end: (error) => told.push(`${carriage} ${method.name} ${error?.code ?? 0}`),
            };
          },
        },
      },
    );
    await client.ask({});
    await fails(client.command({}), Code.NotFound);
    await fails(texts(client.list({})), Code.NotFound);
    assert.deepEqual(told, ["grpc Ask 0", `grpc Command ${Code.NotFound}`, `grpc List ${Code.NotFound}`]);
    assert.deepEqual(seen, ["of-Ask", "of-Ask", "of-Command", "of-List"]);
  });
});
