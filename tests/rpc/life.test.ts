import assert from "node:assert/strict";
import { once } from "node:events";
import { connect as connectHttp2 } from "node:http2";
import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { CatalogService } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { callOf } from "#runtime/call.ts";
import { reasonOf } from "#runtime/errors.ts";
import type { CallObserver } from "#runtime/telemetry/observer.ts";
import { onServer, type Protocol, type Subject } from "../support/server.ts";
import { envelope, GET_LISTING, LISTING, raw, request, staged } from "./stage.ts";

/** Frames of HTTP/2, read without anybody's library: type, flags and stream. */
function framesOf(bytes: Buffer): { type: number; flags: number; stream: number }[] {
  const frames: { type: number; flags: number; stream: number }[] = [];
  for (let at = 0; at + 9 <= bytes.length; at += 9 + bytes.readUIntBE(at, 3)) {
    frames.push({ type: bytes[at + 3] as number, flags: bytes[at + 4] as number, stream: bytes.readUInt32BE(at + 5) });
  }
  return frames;
}

function frame(type: number, flags: number, stream: number, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** Headers in HPACK's plainest form: literals that nothing is remembered of. */
function literals(headers: Record<string, string>): Buffer {
  return Buffer.concat(
    Object.entries(headers).map(([name, value]) =>
      Buffer.concat([Buffer.from([0, name.length]), Buffer.from(name), Buffer.from([value.length]), Buffer.from(value)]),
    ),
  );
}

const DATA = 0;
const HEADERS = 1;
const END_STREAM = 1;
const END_HEADERS = 4;

describe("the life of a unary call", () => {
  const { stage, modules } = staged();
  const outcomes: string[] = [];
  let active = false;
  const observer: CallObserver = {
    serverCall: ({ method, carriage, header }) => {
      outcomes.push(`${carriage} ${method.name} for ${header("x-shelf")}`);
      return {
        run: (work) => {
          active = true;
          try {
            return work();
          } finally {
            active = false;
          }
        },
        end: (error) => {
          outcomes.push(error === undefined ? "ends" : `ends with ${reasonOf(error)}`);
        },
      };
    },
    clientCall: () => assert.fail("Nobody calls on."),
  };
  let subject: Subject & { server: { port: number } };
  before(async () => {
    subject = await onServer(modules, "gRPC", { observer, limits: { maxCalls: 1 } });
  });
  after(() => subject.stop());
  beforeEach(() => {
    Object.assign(stage, { handled: 0, title: "", handler() {} });
    outcomes.length = 0;
  });
  const grpc = { "content-type": "application/grpc", te: "trailers", "x-shelf": "7" };

  /** The frames of the answer to one gRPC call, in their order. */
  async function framesOfAnswer(message: Uint8Array): Promise<[type: number, ends: boolean][]> {
    const socket = connect(subject.server.port, "127.0.0.1");
    const chunks: Buffer[] = [];
    const answered = new Promise<[number, boolean][]>((resolve) => {
      socket.on("data", (chunk: Buffer) => {
        chunks.push(chunk);
        const frames = framesOf(Buffer.concat(chunks)).filter(({ stream }) => stream === 1);
        const seen = frames.map(({ type, flags }): [number, boolean] => [type, (flags & END_STREAM) !== 0]);
        if (seen.some(([type, ends]) => ends && type <= HEADERS)) resolve(seen);
      });
    });
    const headers = { ":method": "POST", ":scheme": "http", ":path": GET_LISTING, ":authority": "x", ...grpc };
    socket.write(
      Buffer.concat([
        Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        frame(4, 0, 0),
        frame(HEADERS, END_HEADERS, 1, literals(headers)),
        frame(DATA, END_STREAM, 1, envelope(message)),
      ]),
    );
    const frames = await answered;
    socket.destroy();
    return frames;
  }

  it("ends an error of gRPC with its first and only frame of headers", async () => {
    assert.deepEqual(await framesOfAnswer(request("x")), [[HEADERS, true]]);
  });
  it("ends an answer of gRPC with trailers behind its one frame of data", async () => {
    assert.deepEqual(await framesOfAnswer(request()), [
      [HEADERS, false],
      [DATA, false],
      [HEADERS, true],
    ]);
  });

  it("is over for its handler when the caller resets the stream or the connection breaks, and makes room for the next", async () => {
    const leave = {
      async "a reset stream"() {
        const session = connectHttp2(subject.url);
        const stream = session.request({ ":method": "POST", ":path": GET_LISTING, ...grpc });
        stream.on("error", () => {});
        stream.end(envelope(request()));
        while (stage.handled === 0) await sleep(5);
        stream.close(8);
        return () => session.destroy();
      },
      async "a broken connection of HTTP/2"() {
        const session = connectHttp2(subject.url);
        const stream = session.request({ ":method": "POST", ":path": GET_LISTING, ...grpc });
        stream.on("error", () => {});
        stream.end(envelope(request()));
        while (stage.handled === 0) await sleep(5);
        session.destroy();
        return () => {};
      },
      async "a broken connection of HTTP/1.1"() {
        const body = JSON.stringify({ listingId: LISTING });
        const socket = connect(subject.server.port, "127.0.0.1");
        socket.write(
          `POST ${GET_LISTING} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
        );
        while (stage.handled === 0) await sleep(5);
        socket.destroy();
        return () => {};
      },
    };
    for (const [how, go] of Object.entries(leave)) {
      stage.handled = 0;
      const told = Promise.withResolvers<unknown>();
      stage.handler = async (context) => {
        const { signal } = callOf(context);
        if (!signal.aborted) await once(signal, "abort");
        told.resolve(signal.reason);
      };
      const done = await go();
      assert.equal(reasonOf(await told.promise), "CANCELLED", how);
      done();
      stage.handler = () => {};
      let next = await raw(subject.url, grpc, envelope(request()));
      for (let tries = 0; tries < 100 && next.headers["grpc-status"] === "8"; tries++) {
        await sleep(5);
        next = await raw(subject.url, grpc, envelope(request()));
      }
      assert.equal(next.trailers?.["grpc-status"], "0", how);
    }
  });

  it("is answered once, although its handler goes on after the deadline", async () => {
    const late = Promise.withResolvers<void>();
    stage.handler = async () => {
      await late.promise;
      outcomes.push("the handler ends");
    };
    const answer = await raw(subject.url, { ...grpc, "grpc-timeout": "30m" }, envelope(request()));
    assert.equal(answer.headers["grpc-status"], "4");
    late.resolve();
    await sleep(20);
    assert.deepEqual(outcomes.slice(1), ["ends with DEADLINE_EXCEEDED", "the handler ends"]);
  });

  it("does not begin when its request takes longer to arrive than the server waits, which is less than the call's own time", async () => {
    const patient = await onServer(modules, "gRPC", { limits: { bodyTimeoutMs: 100 } });
    const session = connectHttp2(patient.url);
    try {
      const release = Promise.withResolvers<void>();
      stage.handler = () => release.promise;
      // Begun before and bound by the method's timeout alone: it is still under way when the other one is refused.
      const running = raw(patient.url, grpc, envelope(request()));
      while (stage.handled === 0) await sleep(5);
      const stream = session.request({ ":method": "POST", ":path": GET_LISTING, ...grpc });
      stream.write(envelope(request()).subarray(0, 10));
      const [headers] = await once(stream, "response");
      release.resolve();
      assert.deepEqual([headers["grpc-status"], (await running).trailers?.["grpc-status"]], ["4", "0"]);
      assert.equal(stage.handled, 1);
    } finally {
      session.destroy();
      await patient.stop();
    }
  });

  it("goes on when its caller waits to be told to send the body", async () => {
    const session = connectHttp2(subject.url);
    const stream = session.request({ ":method": "POST", ":path": GET_LISTING, ...grpc, expect: "100-continue" });
    await once(stream, "continue");
    stream.end(envelope(request()));
    const [headers] = await once(stream, "response");
    assert.equal(headers[":status"], 200);
    session.destroy();
  });

  it("is shown to who watches, from its arrival to its outcome", async () => {
    stage.handler = () => {
      outcomes.push(active ? "is handled within" : "is handled");
    };
    await raw(subject.url, grpc, envelope(request()));
    await raw(subject.url, grpc, envelope(request("x")));
    assert.deepEqual(outcomes, [
      "grpc GetListing for 7",
      "is handled within",
      "ends",
      "grpc GetListing for 7",
      "ends with INVALID_REQUEST",
    ]);
  });

  for (const protocol of ["gRPC", "gRPC-Web", "Connect JSON"] satisfies Protocol[]) {
    it(`is a call of its own each time, many at once, over ${protocol}`, async () => {
      const many = await onServer(modules, protocol);
      try {
        stage.handler = () => sleep(Math.random() * 5);
        const client = many.client(CatalogService);
        const ids = Array.from({ length: 200 }, (_, index) => `0198a0de-0000-7000-8000-${String(index).padStart(12, "0")}`);
        const answers = await Promise.all(ids.map((listingId) => client.getListing({ listingId })));
        assert.deepEqual(
          answers.map(({ listing }) => listing?.listingId),
          ids,
        );
      } finally {
        await many.stop();
      }
    });
  }
});
