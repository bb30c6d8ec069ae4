import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:http2";
import { setTimeout as sleep } from "node:timers/promises";
import { onServer, type Subject } from "../support/server.ts";
import { envelope } from "./stage.ts";

describe("a stream whose caller gives it more time than a timer takes", function () {
  this.timeout(20_000);
  let subject: Subject;
  before(async () => {
    subject = await onServer([]);
  });
  after(() => subject.stop());

  const ways = [
    { "content-type": "application/grpc", te: "trailers", "grpc-timeout": "99999999H" },
    { "content-type": "application/connect+proto", "connect-timeout-ms": "9999999999" },
  ];
  for (const headers of ways) {
    it(`does not end by itself (${headers["content-type"]})`, async () => {
      const session = connect(subject.url);
      const stream = session.request({ ":method": "POST", ":path": "/grpc.health.v1.Health/Watch", ...headers });
      stream.end(envelope(new Uint8Array()));
      await once(stream, "data");
      let ended = false;
      stream.on("end", () => {
        ended = true;
      });
      stream.resume();
      await sleep(100);
      assert.equal(ended, false);
      session.destroy();
    });
  }
});
