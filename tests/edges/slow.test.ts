import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { requestFor, Victim } from "./attacked.ts";
import { FLAG, FRAME, frame, headerBlock, RawPeer, requestHeaders, setting, uint32 } from "./frames.ts";
import { GET_LISTING } from "./load.ts";

const MIB = 1024 * 1024;
const PATIENCE_MS = 15_000;

/** A connection whose bytes are written by hand, and what came back. */
interface Line {
  readonly socket: Socket;
  text: string;
  closed: boolean;
}

async function dial(port: number): Promise<Line> {
  const socket = connect(port, "127.0.0.1");
  const line: Line = { socket, text: "", closed: false };
  socket.on("error", () => {});
  socket.on("data", (chunk: Buffer) => {
    line.text += chunk.toString("latin1");
  });
  socket.on("close", () => {
    line.closed = true;
  });
  await once(socket, "connect");
  return line;
}

async function until(what: () => boolean, why: string): Promise<void> {
  for (const endTime = Date.now() + PATIENCE_MS; !what(); await sleep(10)) assert.ok(Date.now() < endTime, why);
}

/** A request over HTTP/1.1 whose body has this length, as far as its head goes. */
function head(length: number | "chunked", path = GET_LISTING): string {
  const framing = length === "chunked" ? "transfer-encoding: chunked" : `content-length: ${length}`;
  return `POST ${path} HTTP/1.1\r\nhost: souk\r\ncontent-type: application/json\r\n${framing}\r\n\r\n`;
}

function ask(wanted: { kib?: number; ms?: number }): string {
  const body = requestFor(wanted);
  return head(body.length) + body;
}

describe("a peer that is slow or silent", function () {
  this.timeout(60_000);
  let victim: Victim;
  before(async () => {
    victim = await Victim.start({
      headersTimeoutMs: 500,
      bodyTimeoutMs: 300,
      requestTimeoutMs: 1000,
      idleTimeoutMs: 1000,
      answerTimeoutMs: 600,
      maxUntakenBytes: 8 * MIB,
    });
  });
  after(() => victim.stop());
  const lines: { close(): void }[] = [];
  afterEach(async () => {
    for (const each of lines.splice(0)) each.close();
    assert.equal((await victim.use()).uncaught, 0);
  });
  const peer = async (settings?: Buffer) => {
    const opened = await RawPeer.open(victim.port, settings);
    lines.push(opened);
    return opened;
  };
  const line = async () => {
    const opened = await dial(victim.port);
    lines.push({ close: () => opened.socket.destroy() });
    return opened;
  };

  it("holds no connection by saying nothing, however many do, while others are served", async () => {
    const first = await victim.use();
    const silent = await Promise.all(Array.from({ length: 300 }, line));
    const prefaced = await Promise.all(Array.from({ length: 300 }, () => peer()));
    const calls = await victim.callDuring(() =>
      until(() => [...silent, ...prefaced].every(({ closed }) => closed), "some are open"),
    );
    assert.ok(calls > 0);
    assert.ok((await victim.use()).rss - first.rss < 64 * MIB);
  });

  it("gets no further with headers that are larger than allowed", async () => {
    const first = await victim.use();
    const large = await peer();
    const block = headerBlock([...requestHeaders(GET_LISTING), ["x-large", "x".repeat(15_000)]]);
    large.write(frame(FRAME.headers, 0, 1, block));
    large.write(frame(FRAME.continuation, FLAG.endHeaders, 1, headerBlock([["x-more", "x".repeat(2000)]])));
    large.write(frame(FRAME.data, FLAG.endStream, 1, requestFor()));
    await until(() => large.of(FRAME.headers, 1).length + large.of(FRAME.reset, 1).length > 0, "there is no answer");
    const small = await peer();
    small.call(1, GET_LISTING, requestFor());
    await until(() => small.of(FRAME.data, 1).length > 0, "there is no answer");
    assert.equal((await victim.use()).begun - first.begun, 1);
  });

  it("holds no connection by PINGs", async () => {
    const pinging = await peer();
    const timer = setInterval(() => pinging.write(frame(FRAME.ping, 0, 0, Buffer.alloc(8))), 50);
    await until(() => pinging.closed, "it is open").finally(() => clearInterval(timer));
  });

  it("is told and ended when headers or a body come too slowly over HTTP/1.1", async () => {
    const headers = await line();
    const body = await line();
    const nowhere = await line();
    body.socket.write(head(1000));
    nowhere.socket.write(head("chunked", "/nowhere"));
    const drips = setInterval(() => {
      headers.socket.write(headers.text === "" ? "x" : "");
      body.socket.write("x");
      nowhere.socket.write("1\r\nx\r\n");
    }, 50);
    headers.socket.write("POST / HTTP/1.1\r\nx-");
    await until(() => headers.closed && body.closed && nowhere.closed, "some are open").finally(() => clearInterval(drips));
    assert.match(headers.text, /^HTTP\/1.1 408/);
    assert.match(body.text, /^HTTP\/1.1 504/);
    assert.match(nowhere.text, /^HTTP\/1.1 404/);
  });

  it("is answered, and its stream ended, when a body comes too slowly over HTTP/2", async () => {
    for (const type of ["application/json", "application/grpc"]) {
      const slow = await peer();
      slow.write(frame(FRAME.headers, FLAG.endHeaders, 1, headerBlock(requestHeaders(GET_LISTING, type))));
      const drips = setInterval(() => slow.write(frame(FRAME.data, 0, 1, Buffer.alloc(1))), 100);
      await until(() => slow.of(FRAME.reset, 1).length > 0, "the stream is open").finally(() => clearInterval(drips));
      assert.equal(slow.of(FRAME.headers, 1).length, 1);
      await until(() => slow.closed, "the connection is open");
    }
  });

  it("holds no answers that it does not take, neither by its windows nor by its connection", async () => {
    const first = await victim.use();
    const shut = await peer(setting(4, 0));
    shut.write(frame(FRAME.settings, FLAG.ack, 0));
    for (let call = 0; call < 50; call++) shut.call(2 * call + 1, GET_LISTING, requestFor({ kib: 300 }));
    // What its windows would take, its connection does not.
    const deaf = await peer(setting(4, 2 ** 31 - 1));
    deaf.write(frame(FRAME.windowUpdate, 0, 0, uint32(2 ** 30)));
    deaf.socket.pause();
    for (let call = 0; call < 50; call++) deaf.call(2 * call + 1, GET_LISTING, requestFor({ kib: 300 }));
    const old = await line();
    old.socket.pause();
    for (let call = 0; call < 10; call++) old.socket.write(ask({ kib: 300 }));
    const calls = await victim.callDuring(async () => {
      for (const endTime = Date.now() + PATIENCE_MS; ; await sleep(50)) {
        const { external, begun } = await victim.use();
        if (begun - first.begun > 60 && external - first.external < 4 * MIB) return;
        assert.ok(Date.now() < endTime, `${(external - first.external) / MIB} MiB are held`);
      }
    });
    assert.ok(calls > 0);
    deaf.socket.resume();
    old.socket.resume();
    await until(() => deaf.closed && old.closed, "some are open");
  });

  it("does not make others wait by asking again and again over HTTP/1.1 without taking answers", async () => {
    const first = await victim.use();
    const greedy = await line();
    greedy.socket.write(ask({ kib: 300, ms: 50 }).repeat(200));
    await until(() => greedy.closed, "it is open");
    assert.ok((await victim.use()).begun - first.begun <= 16);
    await victim.call();
  });

  it("loses one answer, not its connection, when it takes others", async () => {
    // The connection's window is wide, that of each stream is shut until it is opened.
    const partial = await peer(setting(4, 0));
    partial.write(frame(FRAME.settings, FLAG.ack, 0));
    partial.call(1, GET_LISTING, requestFor({ kib: 1 }));
    let stream = 3;
    const reads = setInterval(() => {
      partial.call(stream, GET_LISTING, requestFor());
      partial.write(frame(FRAME.windowUpdate, 0, stream, uint32(1000)));
      stream += 2;
    }, 50);
    await until(() => partial.of(FRAME.reset, 1).length > 0, "the answer is held").finally(() => clearInterval(reads));
    assert.equal(partial.closed, false);
    assert.ok(partial.of(FRAME.data).length > 3);
  });
});
