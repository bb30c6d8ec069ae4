import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { CatalogService } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { createHealth } from "#runtime/health.ts";
import { silentLog } from "#runtime/log.ts";
import { type Server, startServer } from "#runtime/server.ts";
import { embeddedVerifiers, temporaryKeys } from "#runtime/tokens.ts";
import { openDoor } from "../support/processes.ts";
import { rpcModule } from "../support/server.ts";
import { FRAME, frame, headerBlock, RawPeer, requestHeaders } from "./frames.ts";
import { CALLERS, GET_LISTING, Load } from "./load.ts";

const LISTING = "0198a0de-0000-7000-8000-000000000001";
const RESTARTS = 10;

let begun = 0;
const catalog = rpcModule("catalog", (router) =>
  router.service(CatalogService, {
    async getListing({ listingId }) {
      begun++;
      await sleep(Math.random() * 20);
      return { listing: { listingId } };
    },
  }),
);

async function start(): Promise<Server> {
  const health = createHealth();
  const verifiers = embeddedVerifiers(await temporaryKeys());
  return startServer({ modules: [catalog], port: 0, host: "127.0.0.1", verifiers, log: silentLog(), health });
}

async function isReady(server: Server): Promise<boolean> {
  return (await fetch(`${server.url}/readyz`, { headers: { connection: "close" } })).ok;
}

describe("a server that is restarted under load", function () {
  this.timeout(120_000);

  for (const [name, open] of Object.entries(CALLERS)) {
    it(`answers every call it has begun, and loses none of a client that comes back: ${name}`, async () => {
      let server = await start();
      // New connections go to where it is ready, as a balancer sends them.
      let ports = [server.port];
      const door = await openDoor(() => ports);
      const uncaught: unknown[] = [];
      const note = (error: unknown) => uncaught.push(error);
      process.on("uncaughtException", note);
      begun = 0;
      const caller = open(`http://127.0.0.1:${door.port}`);
      const load = new Load(caller, 16, () => LISTING);
      try {
        for (let restart = 0; restart < RESTARTS; restart++) {
          const answered = load.answered;
          while (load.answered < answered + 50 && load.failures.length === 0) await sleep(10);
          const next = await start();
          const stopping = server.stop(10_000, 200);
          assert.equal(await isReady(server), false);
          ports = [next.port];
          await stopping;
          server = next;
        }
        await load.stop();
      } finally {
        process.off("uncaughtException", note);
        await server.stop(0);
        await door.close();
      }
      assert.deepEqual(load.failures, []);
      assert.deepEqual(uncaught, []);
      assert.equal(begun, load.answered);
      assert.ok(load.answered >= RESTARTS * 50);
    });
  }

  it("serves who has just connected, and does not wait for who says nothing", async () => {
    const server = await start();
    const connected = await RawPeer.open(server.port);
    const stopping = server.stop(10_000);
    // It is told to go before it has said anything but its preface.
    connected.call(1, GET_LISTING, Buffer.from(JSON.stringify({ listingId: LISTING })));
    while (connected.of(FRAME.data, 1).length === 0) await sleep(5);
    assert.equal(connected.received[0]?.type, FRAME.settings);
    connected.close();
    await stopping;

    const other = await start();
    const silent = await RawPeer.open(other.port);
    silent.write(frame(FRAME.headers, 4, 1, headerBlock(requestHeaders(GET_LISTING))));
    await sleep(50);
    await other.stop(200);
    assert.ok(await silent.isClosed(5000));
  });
});
