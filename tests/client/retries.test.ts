import assert from "node:assert/strict";
import { once } from "node:events";
import { constants, type IncomingHttpHeaders, type ServerHttp2Stream } from "node:http2";
import { type AddressInfo, createServer } from "node:net";
import { create, toBinary } from "@bufbuild/protobuf";
import { anyPack } from "@bufbuild/protobuf/wkt";
import { type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { RetryInfoSchema } from "#gen/google/rpc/error_details_pb.ts";
import { StatusSchema } from "#gen/google/rpc/status_pb.ts";
import { type GrpcClient, type GrpcClientOptions, openGrpcClient } from "#runtime/client/transport.ts";
import { FLAG, FRAME, frame, headerBlock, uint32 } from "../edges/frames.ts";
import { answer, Echo, rawServer, refuse } from "./echo.ts";

type OnStream = (stream: ServerHttp2Stream, number: number, headers: IncomingHttpHeaders) => unknown;

const PATIENT = 20_000;
/** What a connection begins with, before the first frame. */
const PREFACE_BYTES = 24;

function retryInfo(ms: number): string {
  const value = create(RetryInfoSchema, { retryDelay: { seconds: 0n, nanos: ms * 1_000_000 } });
  const status = create(StatusSchema, { code: Code.ResourceExhausted, details: [anyPack(RetryInfoSchema, value)] });
  return Buffer.from(toBinary(StatusSchema, status)).toString("base64");
}

describe("a call that failed", () => {
  const ends: (() => unknown)[] = [];
  afterEach(async () => {
    for (const end of ends.splice(0).reverse()) await end();
  });

  /** A client of a server that does so with its first, second … stream. */
  async function clientOf(
    onStream: OnStream,
    options: Partial<GrpcClientOptions> = {},
  ): Promise<{ client: Client<typeof Echo>; grpc: GrpcClient; arrivals: number[] }> {
    const arrivals: number[] = [];
    const server = await rawServer((http2) =>
      http2.on("stream", (stream: ServerHttp2Stream, headers) => {
        stream.resume();
        arrivals.push(performance.now());
        onStream(stream, arrivals.length, headers);
      }),
    );
    const grpc = openGrpcClient({ baseUrl: server.url, boundsOf: () => ({ timeoutMs: PATIENT, maxAttempts: 3 }), ...options });
    ends.push(
      () => server.stop(),
      () => grpc.close(),
    );
    return { client: createClient(Echo, grpc.transport()), grpc, arrivals };
  }

  async function failsWith(code: Code, call: Promise<unknown>): Promise<ConnectError> {
    const error = await call.then(
      () => assert.fail("it succeeded"),
      (thrown: unknown) => thrown,
    );
    assert.ok(error instanceof ConnectError, String(error));
    assert.equal(Code[error.code], Code[code], error.message);
    return error;
  }

  const unavailable = (times: number): OnStream => {
    return (stream, number) => (number <= times ? refuse(stream, Code.Unavailable) : answer(stream));
  };

  it("is tried again as often as its method may be", async () => {
    const { client, grpc } = await clientOf(unavailable(2));
    assert.equal((await client.ask({})).value, "well");
    assert.deepEqual(grpc.attempts, { calls: 1, sent: 3, retried: 2, resent: 0 });
  });

  it("is not tried more often than that", async () => {
    const { client, grpc } = await clientOf(unavailable(3));
    await failsWith(Code.Unavailable, client.set({}));
    assert.deepEqual(grpc.attempts, { calls: 1, sent: 3, retried: 2, resent: 0 });
  });

  it("is not tried again when it is a command that is not idempotent, whatever its policy says", async () => {
    const { client, grpc } = await clientOf(unavailable(1));
    await failsWith(Code.Unavailable, client.command({}));
    assert.equal(grpc.attempts.sent, 1);
  });

  it("is not tried again where nothing says so, or where another layer does it", async () => {
    for (const maxAttempts of [undefined, 1]) {
      const { client, grpc } = await clientOf(unavailable(1), { boundsOf: () => ({ maxAttempts }) });
      await failsWith(Code.Unavailable, client.ask({}));
      assert.equal(grpc.attempts.sent, 1);
    }
  });

  it("is not tried again after any other answer", async () => {
    for (let code = 1; code <= 16; code++) {
      if (code === Code.Unavailable || code === Code.DeadlineExceeded) continue;
      const { client, grpc } = await clientOf((stream) => refuse(stream, code), { outermost: true });
      await failsWith(code, client.ask({}));
      assert.equal(grpc.attempts.sent, 1, `code ${code}`);
    }
  });

  it("is tried again when an attempt ran out of its share of the time, and not when all of it is over", async () => {
    const { client, grpc } = await clientOf((stream, number) =>
      number === 1 ? refuse(stream, Code.DeadlineExceeded) : answer(stream),
    );
    assert.equal((await client.ask({})).value, "well");
    assert.equal(grpc.attempts.retried, 1);
    const late = await clientOf((stream) => setTimeout(() => refuse(stream, Code.DeadlineExceeded), 60));
    await failsWith(Code.DeadlineExceeded, late.client.ask({}, { timeoutMs: 90 }));
    assert.equal(late.grpc.attempts.sent, 1);
  });

  for (const rst of [constants.NGHTTP2_NO_ERROR, constants.NGHTTP2_INTERNAL_ERROR]) {
    it(`is tried again when its answer was cut off by a reset with code ${rst}`, async () => {
      const { client, grpc } = await clientOf((stream, number) => {
        if (number === 2) return answer(stream);
        stream.respond({ ":status": 200, "content-type": "application/grpc" });
        stream.write(Buffer.from([0, 0, 0, 0, 0]), () => stream.close(rst));
      });
      assert.equal((await client.set({})).value, "well");
      assert.deepEqual(grpc.attempts, { calls: 1, sent: 2, retried: 1, resent: 0 });
    });
  }

  it("is not tried again when a server says in words what a reset looks like", async () => {
    const { client, grpc } = await clientOf((stream) =>
      refuse(stream, Code.Internal, { "grpc-message": "Received RST_STREAM with code 2 (Internal server error)" }),
    );
    await failsWith(Code.Internal, client.ask({}));
    assert.equal(grpc.attempts.sent, 1);
  });

  it("is tried again after a service behind its server did not answer, only by who is called by nobody", async () => {
    const behind: OnStream = (stream, number) =>
      number === 1 ? refuse(stream, Code.Internal, { "grpc-retry-pushback-ms": "10" }) : answer(stream);
    const inside = await clientOf(behind);
    await failsWith(Code.Internal, inside.client.ask({}));
    assert.equal(inside.grpc.attempts.sent, 1);
    const outside = await clientOf(behind, { outermost: true });
    assert.equal((await outside.client.ask({})).value, "well");
    assert.equal(outside.grpc.attempts.retried, 1);
  });

  it("is not tried again when the answer came and is broken", async () => {
    const { client, grpc } = await clientOf((stream) => {
      stream.respond({ ":status": 200, "content-type": "application/grpc" }, { waitForTrailers: true });
      stream.on("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
      stream.end(Buffer.from([0, 0, 0, 0, 2, 255, 255]));
    });
    await failsWith(Code.Internal, client.ask({}));
    assert.equal(grpc.attempts.sent, 1);
  });

  for (const [how, headers] of [
    ["by the header", { "grpc-retry-pushback-ms": "150" }],
    ["by RetryInfo", { "grpc-status-details-bin": retryInfo(150) }],
  ] as const) {
    it(`waits as long as the server says ${how}, also when it has too much to do`, async () => {
      const { client, arrivals } = await clientOf((stream, number) =>
        number === 1 ? refuse(stream, Code.ResourceExhausted, headers) : answer(stream),
      );
      assert.equal((await client.ask({})).value, "well");
      const [first = 0, second = 0] = arrivals;
      assert.ok(second - first >= 149, `${second - first}`);
    });
  }

  it("is not tried again when the server says so, or says something that is no time", async () => {
    for (const pushback of ["-1", "soon", "99999999"]) {
      const { client, grpc } = await clientOf((stream) => refuse(stream, Code.Unavailable, { "grpc-retry-pushback-ms": pushback }));
      await failsWith(Code.Unavailable, client.ask({}));
      assert.equal(grpc.attempts.sent, 1);
    }
  });

  it("ends with the server's word at once when the wait is longer than the time that is left", async () => {
    const { client, grpc } = await clientOf((stream) => refuse(stream, Code.Unavailable, { "grpc-retry-pushback-ms": "15000" }));
    const error = await failsWith(Code.Unavailable, client.ask({}, { timeoutMs: 10_000 }));
    assert.equal(error.rawMessage, "");
    assert.deepEqual(grpc.attempts, { calls: 1, sent: 1, retried: 0, resent: 0 });
  });

  it("gives each attempt only the time that is left, and says which it is", async () => {
    const timeouts: number[] = [];
    const before: unknown[] = [];
    const { client } = await clientOf((stream, number, headers) => {
      timeouts.push(Number.parseInt(String(headers["grpc-timeout"]), 10));
      before.push(headers["grpc-previous-rpc-attempts"]);
      if (number < 3) refuse(stream, Code.Unavailable, { "grpc-retry-pushback-ms": "60" });
      else answer(stream);
    });
    await client.ask({}, { timeoutMs: 10_000 });
    const [first = 0, second = 0, third = 0] = timeouts;
    assert.ok(first <= 10_000 && second <= first - 59 && third <= second - 59, String(timeouts));
    assert.deepEqual(before, [undefined, "1", "2"]);
  });

  it("is over with its deadline, and is not sent after it", async () => {
    const { client, grpc } = await clientOf((stream, number) => number === 1 && answer(stream));
    await client.ask({});
    await failsWith(Code.DeadlineExceeded, client.ask({}, { timeoutMs: 50 }));
    assert.equal(grpc.attempts.sent, 2);
  });

  it("is not tried again once its caller gave up", async () => {
    const giveUp = new AbortController();
    const { client, grpc } = await clientOf((stream) => refuse(stream, Code.Unavailable, { "grpc-retry-pushback-ms": "50" }));
    const call = failsWith(Code.Canceled, client.ask({}, { signal: giveUp.signal }));
    while (grpc.attempts.retried === 0) await new Promise(setImmediate);
    giveUp.abort();
    await call;
    await new Promise((resolve) => setTimeout(resolve, 150));
    assert.equal(grpc.attempts.sent, 1);
  });

  it("leaves no stream open at the server when its caller gives up in the same breath", async () => {
    const open = new Set<ServerHttp2Stream>();
    const { client, grpc } = await clientOf((stream) => {
      if (grpc.attempts.calls === 1) {
        answer(stream);
        return;
      }
      open.add(stream);
      stream.on("close", () => open.delete(stream));
    });
    await client.ask({});
    const giveUp = new AbortController();
    const call = failsWith(Code.Canceled, client.ask({}, { signal: giveUp.signal }));
    giveUp.abort();
    await call;
    await new Promise((resolve) => setTimeout(resolve, 100));
    assert.equal(open.size, 0);
  });

  it("costs a server that is down a tenth more at most", async () => {
    const { client, grpc } = await clientOf((stream) => refuse(stream, Code.Unavailable), {
      boundsOf: () => ({ maxAttempts: 5 }),
    });
    const CALLS = 300;
    const outcomes = await Promise.allSettled(Array.from({ length: CALLS }, () => client.ask({})));
    assert.ok(outcomes.every(({ status }) => status === "rejected"));
    assert.equal(grpc.attempts.sent, CALLS + grpc.attempts.retried);
    assert.ok(grpc.attempts.retried >= CALLS / 20 && grpc.attempts.retried <= CALLS / 10, JSON.stringify(grpc.attempts));
  });
});

describe("a call that no server began", () => {
  const ends: (() => unknown)[] = [];
  afterEach(async () => {
    for (const end of ends.splice(0).reverse()) await end();
  });

  async function clientOf(onStream: (stream: ServerHttp2Stream, number: number) => void) {
    let streams = 0;
    const server = await rawServer((http2) =>
      http2.on("stream", (stream: ServerHttp2Stream) => {
        stream.resume();
        streams++;
        onStream(stream, streams);
      }),
    );
    const grpc = openGrpcClient({ baseUrl: server.url });
    ends.push(
      () => server.stop(),
      () => grpc.close(),
    );
    return { client: createClient(Echo, grpc.transport()), grpc };
  }

  const isUnavailable = (error: unknown) => error instanceof ConnectError && error.code === Code.Unavailable;

  it("is sent again, a command too", async () => {
    const { client, grpc } = await clientOf((stream, number) =>
      number <= 3 ? stream.close(constants.NGHTTP2_REFUSED_STREAM) : answer(stream),
    );
    assert.equal((await client.command({})).value, "well");
    assert.deepEqual(grpc.attempts, { calls: 1, sent: 4, retried: 0, resent: 3 });
  });

  it("is sent again when it is a stream whose request is one message", async () => {
    const { client, grpc } = await clientOf((stream, number) =>
      number === 1 ? stream.close(constants.NGHTTP2_REFUSED_STREAM) : answer(stream),
    );
    for await (const { value } of client.list({})) assert.equal(value, "well");
    assert.equal(grpc.attempts.resent, 1);
  });

  it("is not told by words: a server that began it may say the same of another one", async () => {
    const { client, grpc } = await clientOf((stream) =>
      refuse(stream, Code.Unavailable, { "grpc-message": "Stream refused by server" }),
    );
    await assert.rejects(client.command({}), isUnavailable);
    assert.equal(grpc.attempts.sent, 1);
  });

  it("is not one whose answer had begun when its stream was refused", async () => {
    // Node itself sends no such thing: these frames are written by hand.
    const head = headerBlock([
      [":status", "200"],
      ["content-type", "application/grpc"],
    ]);
    const server = createServer((socket) => {
      socket.on("error", () => {});
      socket.write(frame(FRAME.settings, 0, 0));
      let unread = Buffer.alloc(0);
      let at = PREFACE_BYTES;
      socket.on("data", (chunk: Buffer) => {
        unread = Buffer.concat([unread, chunk]);
        for (; unread.length >= at + 9; at += 9 + unread.readUIntBE(at, 3)) {
          if (unread[at + 3] !== FRAME.headers) continue;
          socket.write(frame(FRAME.headers, FLAG.endHeaders, 1, head));
          setTimeout(() => socket.write(frame(FRAME.reset, 0, 1, uint32(constants.NGHTTP2_REFUSED_STREAM))), 10);
        }
      });
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const grpc = openGrpcClient({ baseUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}` });
    ends.push(() => {
      server.close();
      grpc.close();
    });
    await assert.rejects(createClient(Echo, grpc.transport()).command({}, { timeoutMs: 10_000 }), isUnavailable);
    assert.equal(grpc.attempts.sent, 1);
  });

  it("is UNAVAILABLE when it is refused again and again", async () => {
    const { client, grpc } = await clientOf((stream) => stream.close(constants.NGHTTP2_REFUSED_STREAM));
    await assert.rejects(client.command({}, { timeoutMs: 10_000 }), isUnavailable);
    assert.ok(grpc.attempts.sent > 3 && grpc.attempts.sent <= 20);
  });
});
