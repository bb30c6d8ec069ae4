import assert from "node:assert/strict";
import { once } from "node:events";
import { request as httpRequest, type IncomingMessage } from "node:http";
import { connect as connectHttp2 } from "node:http2";
import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { onServer, type Subject } from "../support/server.ts";
import { connectReason, envelope, GET_LISTING, grpcReason, LISTING, raw, request, staged, webTrailers } from "./stage.ts";

describe("a server of unary calls", () => {
  const { stage, modules } = staged();
  const uncaught: unknown[] = [];
  const note = (error: unknown) => uncaught.push(error);
  let subject: Subject & { server: { port: number } };
  before(async () => {
    subject = await onServer(modules, "gRPC", { limits: { maxCalls: 2, bodyTimeoutMs: 2000 } });
    process.on("uncaughtException", note).on("unhandledRejection", note);
  });
  after(async () => {
    process.off("uncaughtException", note).off("unhandledRejection", note);
    await subject.stop();
  });
  beforeEach(() => {
    Object.assign(stage, { handled: 0, title: "", handler() {} });
    uncaught.length = 0;
  });
  afterEach(async () => {
    await sleep(20);
    assert.deepEqual(uncaught, []);
    stage.handler = () => {};
    const { trailers } = await raw(subject.url, grpc, envelope(request()));
    assert.equal(trailers?.["grpc-status"], "0", "It serves no more.");
  });
  const grpc = { "content-type": "application/grpc", te: "trailers" };

  it("ends a call whose handler sets a header that cannot be sent, in answers and in errors", async () => {
    for (const fails of [false, true]) {
      stage.handler = ({ responseHeader }) => {
        responseHeader.set("connection", "close");
        if (fails) throw new Error("It failed.");
      };
      await assert.rejects(raw(subject.url, grpc, envelope(request())), /NGHTTP2_INTERNAL_ERROR/);
    }
  });

  it("ends a call whose handler sets a trailer that cannot be sent, and not the process", async () => {
    stage.handler = ({ responseTrailer }) => responseTrailer.set("connection", "close");
    await assert.rejects(raw(subject.url, grpc, envelope(request())), /NGHTTP2_INTERNAL_ERROR/);
  });

  it("tells of half a character that a request made it repeat, over every protocol", async () => {
    const body = Buffer.from('{"\\ud800":1}');
    const json = await raw(subject.url, { "content-type": "application/json" }, body);
    assert.equal(connectReason(json.body), "UNKNOWN_FIELD");
    const web = await raw(subject.url, { "content-type": "application/grpc-web+json" }, envelope(body));
    assert.equal(grpcReason(webTrailers(web.body)["grpc-status-details-bin"]), "UNKNOWN_FIELD");
    for (const path of [GET_LISTING, "/grpc.health.v1.Health/Watch"]) {
      const { headers } = await raw(subject.url, { "content-type": "application/grpc+json", te: "trailers" }, envelope(body), path);
      assert.equal(grpcReason(headers["grpc-status-details-bin"]), "UNKNOWN_FIELD");
    }
  });

  it("tells who gave a stream no time that it is over, in every protocol: not that a part is out of reach, which invites another attempt", async () => {
    const path = "/grpc.health.v1.Health/Watch";
    const body = envelope(Buffer.alloc(0));
    const { headers } = await raw(subject.url, { ...grpc, "grpc-timeout": "0n" }, body, path);
    assert.equal(grpcReason(headers["grpc-status-details-bin"]), "DEADLINE_EXCEEDED");
    const web = await raw(subject.url, { "content-type": "application/grpc-web", "grpc-timeout": "0S" }, body, path);
    assert.equal(webTrailers(web.body)["grpc-status"], "4");
    const late = await raw(subject.url, { "content-type": "application/connect+proto", "connect-timeout-ms": "0" }, body, path);
    assert.equal(
      connectReason(Buffer.from(JSON.stringify(JSON.parse(late.body.subarray(5).toString()).error))),
      "DEADLINE_EXCEEDED",
    );
  });

  it("reads a body that comes in single bytes, and its pieces hold no more than its size", async () => {
    const session = connectHttp2(subject.url);
    try {
      const stream = session.request({ ":method": "POST", ":path": GET_LISTING, "content-type": "application/json" });
      const body = Buffer.from(JSON.stringify({ listingId: LISTING }));
      for (const byte of body) {
        stream.write(Buffer.from([byte]));
        await new Promise(setImmediate);
      }
      stream.end();
      let text = "";
      for await (const chunk of stream) text += chunk;
      assert.equal(JSON.parse(text).listing.listingId, LISTING);
    } finally {
      session.destroy();
    }
  });

  it("forgets calls that are given up as soon as they are begun", async () => {
    const session = connectHttp2(subject.url);
    await once(session, "connect");
    for (let call = 0; call < 50; call++) {
      const stream = session.request({ ":method": "POST", ":path": GET_LISTING, ...grpc });
      stream.on("error", () => {});
      if (call % 2 === 0) stream.end(envelope(request()));
      stream.close(8);
    }
    await sleep(50);
    session.destroy();
  });

  it("answers what is no call: CONNECT, a path that is none, a method of HTTP that is none", async () => {
    const session = connectHttp2(subject.url);
    try {
      const tunnel = session.request({ ":method": "CONNECT", ":authority": "elsewhere:443" });
      tunnel.on("error", () => {});
      const [answer] = await once(tunnel, "response");
      assert.equal(answer[":status"], 405);
      const nowhere = session.request({ ":method": "POST", ":path": `${GET_LISTING}?x=1`, "content-type": "text/plain" });
      nowhere.end();
      const [refused] = await once(nowhere, "response");
      assert.equal(refused[":status"], 415);
    } finally {
      session.destroy();
    }
  });

  it("turns calls beyond its bound away in their own form, and takes them again when there is room", async () => {
    const release = Promise.withResolvers<void>();
    stage.handler = () => release.promise;
    const busy = [raw(subject.url, grpc, envelope(request())), raw(subject.url, grpc, envelope(request()))];
    while (stage.handled < 2) await sleep(5);
    const turned = await raw(subject.url, grpc, envelope(request()));
    assert.equal(turned.headers["grpc-status"], "8");
    const inJson = await raw(subject.url, { "content-type": "application/json" }, Buffer.from("{}"));
    assert.deepEqual([inJson.headers[":status"], connectReason(inJson.body)], [429, "OVERLOADED"]);
    release.resolve();
    await Promise.all(busy);
  });

  it("speaks gRPC over HTTP/1.1, too, with trailers behind the body", async () => {
    const ask = async (message: Uint8Array) => {
      const call = httpRequest(subject.url + GET_LISTING, { method: "POST", headers: { "content-type": "application/grpc" } });
      call.end(envelope(message));
      const [response] = (await once(call, "response")) as [IncomingMessage];
      response.resume();
      await once(response, "end");
      return [response.headers["grpc-status"], response.trailers["grpc-status"]];
    };
    assert.deepEqual(await ask(request()), [undefined, "0"]);
    assert.deepEqual(await ask(request("x")), ["3", undefined]);
  });

  it("keeps a connection of HTTP/1.1 whose request was too large for the next one", async () => {
    const socket = connect(subject.server.port, "127.0.0.1");
    const head = (length: number) =>
      `POST ${GET_LISTING} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ${length}\r\n\r\n`;
    const good = JSON.stringify({ listingId: LISTING });
    let text = "";
    const refusals = () => text.split("REQUEST_TOO_LARGE").length - 1;
    socket.on("data", (chunk) => {
      text += chunk;
    });
    socket.write(head(100_000) + "x".repeat(100_000));
    while (refusals() < 1) await sleep(5);
    socket.write(head(0).replace("content-length: 0", "transfer-encoding: chunked"));
    for (let piece = 0; piece < 20; piece++) {
      socket.write(`2710\r\n${"x".repeat(10_000)}\r\n`);
      await sleep(1);
    }
    socket.write("0\r\n\r\n");
    while (refusals() < 2) await sleep(5);
    socket.write(head(good.length) + good);
    while (!text.includes(`"listingId":"${LISTING}"`)) await sleep(5);
    socket.destroy();
    assert.match(text, /^HTTP\/1.1 429 /);
  });
});
