// The marketplace on MariaDB and Redis in a process of its own, for benchmarks, and beside it in the same process their floor: a bare node:http
// server whose only door runs one transaction of six statements through mysql2 on the same MariaDB.

import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { createClient } from "@connectrpc/connect";
import { createPool, type Pool } from "mysql2/promise";
import { systemClock } from "#runtime/clock.ts";
import { newId } from "#runtime/ids.ts";
import { createLog } from "#runtime/log.ts";
import { startServer } from "#runtime/server.ts";
import { embeddedVerifiers, signAccountToken, temporaryKeys } from "#runtime/tokens.ts";
import { openMarketplace } from "../services/marketplace.ts";
import { connectAs } from "../tools/identity.ts";
import { accounts } from "../tools/seed/listings.ts";
import { seed } from "../tools/seed/seed.ts";

/** What the server is started with, as JSON in its first argument. */
export interface ProductionServerOptions {
  readonly dataDir: string;
  /** The URL of each service's database. */
  readonly databaseUrls: Readonly<Record<string, string>>;
  readonly redisUrl: string;
  /** An empty database for the floor. */
  readonly floorUrl: string;
  /** False leaves relays, consumers and jobs out: what a call does itself. */
  readonly started: boolean;
}

/** What a benchmark asks. */
export type Question = "usage" | "stop";
/** At first where to call and as whom; then processor time in microseconds. */
export type Answer = { url: string; floorUrl: string; tokens: Record<string, string> } | { cpuUs: number; rssBytes: number };

const options = JSON.parse(process.argv[2] ?? "{}") as ProductionServerOptions;
const keys = await temporaryKeys();
const log = createLog({ level: "warn", format: "json" });
let url = "";
const marketplace = await openMarketplace({
  dataDir: options.dataDir,
  databaseUrl: (service) => options.databaseUrls[service] ?? "",
  redisUrl: options.redisUrl,
  // A real processor keeps its books elsewhere; here at least they cost no disk.
  simulatorFile: ":memory:",
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
if (options.started) await marketplace.start();
const floor = await startFloor(options.floorUrl);

const tokens = Object.fromEntries(
  await Promise.all(
    accounts.map(async (each) => [each.name, await signAccountToken({ ...keys }, { ...each, ttlMs: 3_600_000 })] as const),
  ),
);
await seed((account, service) =>
  createClient(
    service,
    connectAs(url, async () => tokens[account.name] ?? ""),
  ),
);

/** The least that a purchase could be: one request, one transaction of six statements, nothing checked and nobody told. */
async function startFloor(databaseUrl: string): Promise<{ pool: Pool; http: Server; url: string }> {
  const { hostname, port, username, password, pathname } = new URL(databaseUrl);
  const pool = createPool({ host: hostname, port: Number(port), user: username, password, database: pathname.slice(1) });
  await pool.query("create table stock (listing_id varchar(36) primary key, units int not null) engine=InnoDB");
  await pool.query(
    "create table purchase (order_id varchar(36) primary key, buyer_id varchar(36) not null, total bigint not null) engine=InnoDB",
  );
  await pool.query(
    "create table line (order_id varchar(36), position int, listing_id varchar(36), primary key (order_id, position)) engine=InnoDB",
  );
  await pool.query("create table payment (order_id varchar(36) primary key, amount bigint not null) engine=InnoDB");
  await pool.query("create table told (position bigint auto_increment primary key, event blob not null) engine=InnoDB");
  const listings = Array.from({ length: 1000 }, () => newId());
  await pool.query("insert into stock values ?", [listings.map((id) => [id, 1_000_000])]);
  let next = 0;
  const purchase = async () => {
    const listingId = listings[next++ % listings.length];
    const orderId = newId();
    const connection = await pool.getConnection();
    try {
      await connection.query("start transaction");
      await connection.query("select units from stock where listing_id = ?", [listingId]);
      await connection.query("update stock set units = units - 1 where listing_id = ? and units >= 1", [listingId]);
      await connection.query("insert into purchase values (?, ?, ?)", [orderId, listingId, 5000]);
      await connection.query("insert into line values (?, 0, ?)", [orderId, listingId]);
      await connection.query("insert into payment values (?, ?)", [orderId, 5000]);
      await connection.query("insert into told (event) values (?)", [`{"orderId":"${orderId}"}`]);
      await connection.query("commit");
    } finally {
      connection.release();
    }
  };
  const http = createServer((request, response) => {
    request.resume().on("end", () => {
      purchase().then(
        () => response.end('{"ok":true}'),
        (error: unknown) => response.writeHead(500).end(String(error)),
      );
    });
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => http.once("listening", resolve));
  return { pool, http, url: `http://127.0.0.1:${(http.address() as AddressInfo).port}` };
}

process.on("message", async (question: Question) => {
  if (question === "usage") {
    const { user, system } = process.cpuUsage();
    process.send?.({ cpuUs: user + system, rssBytes: process.memoryUsage.rss() } satisfies Answer);
    return;
  }
  floor.http.close();
  await floor.pool.end();
  await server.stop(1000);
  await marketplace.stop();
  process.disconnect?.();
});
process.send?.({ url, floorUrl: floor.url, tokens } satisfies Answer);
