// A server in a process of its own, for attacks: what they cost it is what this process uses. It tells its parent where it listens, and what it has used
// so far whenever it is asked.

import { setTimeout as sleep } from "node:timers/promises";
import { CatalogService } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { OrderService } from "#gen/marketplace/order/v1/order_pb.ts";
import { callOf } from "#runtime/call.ts";
import { silentLog } from "#runtime/log.ts";
import { type ServerLimits, startServer } from "#runtime/server.ts";
import { embeddedVerifiers, temporaryKeys } from "#runtime/tokens.ts";
import { rpcModule } from "../support/server.ts";

const limits = JSON.parse(process.argv[2] ?? "{}") as Partial<ServerLimits>;
let begun = 0;
let uncaught = 0;
process.on("uncaughtException", () => uncaught++);
process.on("unhandledRejection", () => uncaught++);

const catalog = rpcModule("catalog", (router) =>
  router.service(CatalogService, {
    // Answers at once; the title is as long as the first digits of the id say, in KiB; the last ones say how long it takes, in ms.
    async getListing({ listingId }, context) {
      begun++;
      const kib = Number.parseInt(listingId.slice(0, 8), 16) & 0xffff;
      const ms = Number.parseInt(listingId.slice(-8), 16);
      if (ms > 0) await sleep(ms, undefined, { signal: callOf(context).signal }).catch(() => {});
      return { listing: { listingId, title: "x".repeat(kib * 1024) } };
    },
    listCategories: () => ({}),
    batchCreateListings: () => ({}),
  }),
);
const order = rpcModule("order", (router) => router.service(OrderService, {}));

const server = await startServer({
  modules: [catalog, order],
  port: 0,
  host: "127.0.0.1",
  verifiers: embeddedVerifiers(await temporaryKeys()),
  log: silentLog(),
  limits,
});
process.on("message", (message) => {
  if (message === "use") {
    globalThis.gc?.();
    const { rss, heapUsed, external } = process.memoryUsage();
    const { user, system } = process.cpuUsage();
    process.send?.({ rss, heapUsed, external, cpuMs: (user + system) / 1000, begun, uncaught, open: server.load.calls });
  } else if (message === "stop") {
    void server.stop(1000).then(() => process.exit(0));
  }
});
process.on("disconnect", () => process.exit(0));
process.send?.({ port: server.port });
