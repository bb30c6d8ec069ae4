import assert from "node:assert/strict";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { setTimeout as sleep } from "node:timers/promises";
import { CatalogService } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import type { Server } from "#runtime/server.ts";
import { onServer, rpcModule, type Subject } from "../support/server.ts";
import { FLAG, FRAME, frame, RawPeer, type Received } from "./frames.ts";
import { CALLERS, GET_LISTING, Load } from "./load.ts";

const LISTING = "0198a0de-0000-7000-8000-000000000001";
const MAX_STREAM_ID = 2 ** 31 - 1;

let handler: () => Promise<void> = async () => {};
const modules = [
  rpcModule("catalog", (router) =>
    router.service(CatalogService, {
      async getListing({ listingId }) {
        await handler();
        return { listing: { listingId } };
      },
    }),
  ),
];

describe("a connection that has become old", () => {
  let subject: Subject & { server: Server };
  const serve = async (limits: object) => {
    subject = await onServer(modules, "gRPC", { limits });
  };
  beforeEach(() => {
    handler = async () => {};
  });
  afterEach(() => subject.stop());
  const body = Buffer.from(JSON.stringify({ listingId: LISTING }));
  const lastStreams = (peer: RawPeer) => peer.of(FRAME.goaway).map(({ payload }) => payload.readUInt32BE(0));
  const answers = (peer: RawPeer) => [...new Set(peer.of(FRAME.data).map(({ stream }) => stream))];

  it("is given notice first, so that calls which cross it are served, and closed when they are", async () => {
    await serve({ maxConnectionAgeMs: 100 });
    const peer = await RawPeer.open(subject.server.port);
    let ping: Received | undefined;
    const noticed = new Promise<void>((resolve) => {
      peer.onFrame = (each) => {
        // SETTINGS are acknowledged at once, the PING after the notice is not: as if the way to this client were long.
        if (each.type === FRAME.settings && each.flags === 0) peer.write(frame(FRAME.settings, FLAG.ack, 0));
        if (each.type === FRAME.ping) ping = each;
        if (ping !== undefined && each.type !== FRAME.data) resolve();
      };
    });
    await noticed;
    assert.deepEqual(lastStreams(peer), [MAX_STREAM_ID]);
    const release = Promise.withResolvers<void>();
    handler = () => release.promise;
    peer.call(1, GET_LISTING, body);
    peer.call(3, GET_LISTING, body);
    await sleep(20);
    peer.write(frame(FRAME.ping, FLAG.ack, 0, (ping as unknown as Received).payload));
    while (peer.of(FRAME.goaway).length < 2) await sleep(5);
    assert.equal(lastStreams(peer)[1], 3);
    assert.equal(peer.closed, false);
    release.resolve();
    assert.ok(await peer.isClosed(5000));
    assert.deepEqual(answers(peer), [1, 3]);
  });

  it("is closed although its peer acknowledges nothing, and cut after the grace although calls are left", async () => {
    await serve({ maxConnectionAgeMs: 50, connectionGraceMs: 100 });
    handler = () => new Promise(() => {});
    const peer = await RawPeer.open(subject.server.port);
    peer.call(1, GET_LISTING, body);
    assert.ok(await peer.isClosed(10_000));
    assert.deepEqual(answers(peer), []);
  });

  for (const [name, open] of Object.entries(CALLERS)) {
    it(`costs no call of a client: ${name}`, async function () {
      this.timeout(60_000);
      await serve({ maxConnectionAgeMs: 100 });
      handler = () => sleep(Math.random() * 10);
      const uncaught: unknown[] = [];
      const note = (error: unknown) => uncaught.push(error);
      process.on("uncaughtException", note);
      let connections = 0;
      const count = () => connections++;
      subscribe("net.server.socket", count);
      try {
        const load = new Load(open(subject.url), 16, () => LISTING);
        while (load.answered < 2000 && load.failures.length === 0) await sleep(20);
        await load.stop();
        assert.deepEqual(load.failures, []);
        assert.deepEqual(uncaught, []);
        assert.ok(connections > 3, `${connections} connections`);
      } finally {
        unsubscribe("net.server.socket", count);
        process.off("uncaughtException", note);
      }
    });
  }
});
