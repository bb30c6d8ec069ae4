import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { onServer, type Subject } from "../support/server.ts";
import { FLAG, FRAME, frame, headerBlock, RawPeer, requestHeaders, uint32 } from "./frames.ts";

const CANCEL = uint32(8);

describe("a stream over HTTP/2 that is reset in the same breath as it begins", function () {
  this.timeout(20_000);
  let subject: Subject & { readonly server: { readonly port: number } };
  before(async () => {
    subject = await onServer([]);
  });
  after(() => subject.stop());

  it("does no harm, also if it waited to be told to go on", async () => {
    const peer = await RawPeer.open(subject.server.port);
    const paths = ["/healthz", "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"];
    const frames = paths.flatMap((path, index) => [
      frame(FRAME.headers, FLAG.endHeaders, 2 * index + 1, headerBlock([...requestHeaders(path), ["expect", "100-continue"]])),
      frame(FRAME.reset, 0, 2 * index + 1, CANCEL),
    ]);
    peer.write(...frames, frame(FRAME.ping, 0, 0, Buffer.alloc(8)));
    while (peer.of(FRAME.ping).length === 0) await sleep(5);
    peer.close();
    assert.equal(await (await fetch(`${subject.url}/healthz`)).text(), "ok\n");
  });
});
