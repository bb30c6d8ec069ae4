import assert from "node:assert/strict";
import { createConnection } from "node:net";
import { text } from "node:stream/consumers";
import { onServer, type Subject } from "../support/server.ts";
import { envelope } from "./stage.ts";

const WATCH = "/grpc.health.v1.Health/Watch";
/** More than the method takes, and more than a client may send before somebody reads. */
const TOO_MUCH = envelope(Buffer.alloc(300_000));

describe("a stream that is refused before its request was read", function () {
  this.timeout(20_000);
  let subject: Subject;
  before(async () => {
    subject = await onServer([]);
  });
  after(() => subject.stop());

  it("leaves its connection over HTTP/1.1 to the next request", async () => {
    const { hostname, port } = new URL(subject.url);
    const socket = createConnection(Number(port), hostname);
    socket.write(`POST ${WATCH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/connect+proto\r\n`);
    socket.write(`content-length: ${TOO_MUCH.length}\r\n\r\n`);
    socket.write(TOO_MUCH);
    socket.write("GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    const answers = await text(socket);
    assert.match(answers, /resource_exhausted/);
    assert.match(answers, /\r\n\r\nok\n$/);
  });
});
