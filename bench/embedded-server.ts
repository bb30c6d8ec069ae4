// The marketplace in a process of its own, for benchmarks: it listens on a free port, puts the demo catalogue in, and tells over IPC what
// processor time it has used. The floor, a bare node:http server, is in it too, so that both are measured by the same clock.

import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { createClient } from "@connectrpc/connect";
import { systemClock } from "#runtime/clock.ts";
import { silentLog } from "#runtime/log.ts";
import { startServer } from "#runtime/server.ts";
import { embeddedVerifiers, signAccountToken, temporaryKeys } from "#runtime/tokens.ts";
import { openMarketplace } from "../services/marketplace.ts";
import { connectAs } from "../tools/identity.ts";
import { accounts } from "../tools/seed/listings.ts";
import { seed } from "../tools/seed/seed.ts";

/** What the benchmark asks. */
export type Question = "cpu" | "stop";
/** What it is told: at first where to call and as whom, then processor time in microseconds. */
export type Answer = { url: string; floorUrl: string; tokens: Record<string, string> } | { cpuUs: number; rssBytes: number };

const dataDir = process.argv[2];
const keys = await temporaryKeys();
const log = silentLog();
let url = "";
const marketplace = await openMarketplace({
  dataDir,
  keys,
  verifiers: embeddedVerifiers(keys),
  clock: systemClock,
  log,
  baseUrl: () => url,
});
const server = await startServer({
  modules: marketplace.modules,
  port: 0,
  host: "127.0.0.1",
  verifiers: embeddedVerifiers(keys),
  log,
});
url = server.url;
await marketplace.start();
const floor = createServer((request, response) => {
  request.resume().on("end", () => response.end('{"ok":true}'));
}).listen(0, "127.0.0.1");
await new Promise((resolve) => floor.once("listening", resolve));

const signed = await Promise.all(
  accounts.map(async (each) => [each.name, await signAccountToken({ ...keys }, { ...each, ttlMs: 3_600_000 })] as const),
);
const tokens = Object.fromEntries(signed);
await seed((account, service) =>
  createClient(
    service,
    connectAs(url, async () => tokens[account.name] ?? ""),
  ),
);
await marketplace.settle();

process.on("message", async (question: Question) => {
  if (question === "cpu") {
    const { user, system } = process.cpuUsage();
    process.send?.({ cpuUs: user + system, rssBytes: process.memoryUsage.rss() } satisfies Answer);
    return;
  }
  floor.close();
  await server.stop(1000);
  await marketplace.stop();
  process.disconnect?.();
});
process.send?.({ url, floorUrl: `http://127.0.0.1:${(floor.address() as AddressInfo).port}`, tokens } satisfies Answer);
