// What the catalog's reads cost without RPC, against bare mysql2.

import { cpus } from "node:os";
import { create } from "@bufbuild/protobuf";
import type { HandlerContext } from "@connectrpc/connect";
import { createPool, type Pool } from "mysql2";
import {
  BatchGetListingsRequestSchema,
  CatalogService,
  type Listing,
  ListSellerListingsRequestSchema,
} from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { RedisStore } from "#runtime/cache/redis-store.ts";
import { cacheStores, type OpenCacheStore } from "#runtime/cache/stores.ts";
import { type Call, callKey } from "#runtime/call.ts";
import { systemClock } from "#runtime/clock.ts";
import { openDatabase } from "#runtime/database/database.ts";
import { newId } from "#runtime/ids.ts";
import { silentLog } from "#runtime/log.ts";
import { pageTokens } from "#runtime/pages.ts";
import { type CatalogDatabase, entities, type ListingRow } from "../services/catalog/entities.ts";
import { type ReadRow, readColumns, toListing } from "../services/catalog/listings.ts";
import { migrations } from "../services/catalog/migrations/index.ts";
import { catalogReads } from "../services/catalog/reads.ts";
import { startMariadb } from "../tools/stores/mariadb.ts";
import { startRedis } from "../tools/stores/redis.ts";
import { ensureDatabase } from "../tools/stores/stores.ts";
import { median } from "./figures.ts";

const LISTINGS = 5_000;
const SELLERS = 50;
const CONCURRENCY = 8;
const PAGE = 20;
const BATCH = 100;
/** Listings that are asked for again and again. */
const HOT = 500;

type CatalogReads = ReturnType<typeof catalogReads>;

/** One thing that is measured. */
interface Subject {
  readonly name: string;
  readonly calls: number;
  call(index: number): Promise<unknown>;
}

/** A ratio that is promised. */
interface Promised {
  readonly of: string;
  readonly to: string;
  readonly atMost: number;
}

const PROMISED: readonly Promised[] = [
  { of: "get", to: "get, bare mysql2", atMost: 1.5 },
  { of: "page of 20", to: "page of 20, bare mysql2", atMost: 1.5 },
  { of: "batch of 100", to: "batch of 100, bare mysql2", atMost: 1.5 },
  { of: "get, remembered", to: "get", atMost: 0.5 },
  { of: "get, only Redis has it", to: "get", atMost: 0.5 },
  { of: "100 counted, bare mysql2", to: "get", atMost: 3 },
  { of: "100 undecoded, bare mysql2", to: "get", atMost: 3 },
  { of: "batch of 100, remembered", to: "get", atMost: 3 },
  { of: "batch of 100", to: "get", atMost: 3 },
  { of: "batch of 100, only Redis has it", to: "get", atMost: 3 },
];

/**
 * Measures the catalog's reads as functions, without RPC, in this process, on a private MariaDB (`innodb_flush_log_at_trx_commit = 1`) and Redis: from
 * the tables against bare mysql2 (its own pool, the same statement, the same mapping into the same message), and from the cache. All are interleaved, round by
 * round; a ratio is the median of the ratios of the rounds. Only this process's processor time counts.
 */
export async function stores({ rounds }: { rounds: number }): Promise<void> {
  const [mariadb, redis] = await Promise.all([startMariadb(), startRedis()]);
  const log = silentLog();
  const url = await ensureDatabase(mariadb.url, { name: "souk_catalog", password: "bench" });
  const database = await openDatabase({ service: "catalog", url, entities, migrations, clock: systemClock, log });
  const address = new URL(url);
  const bare = createPool({
    host: address.hostname,
    port: Number(address.port),
    user: address.username,
    password: address.password,
    database: address.pathname.slice(1),
    connectionLimit: 10,
  });
  const opened: CatalogReads[] = [];
  const reading = (openCacheStore: OpenCacheStore) => {
    const reads = catalogReads(database, pageTokens({ secret: new Uint8Array(32) }), openCacheStore);
    opened.push(reads);
    return reads;
  };
  try {
    const listings = await fill(database);
    const near = reading(cacheStores({ redisUrl: redis.url, log }));
    const far = reading(({ codec }) => new RedisStore({ url: redis.url, log, codec, timeoutMs: 1_000 }));
    const subjects = [...fromTables(near, listings), ...peers(bare, listings), ...remembered(near, far, listings)];
    const samples = new Map<string, Sample[]>(subjects.map(({ name }) => [name, []]));
    for (const subject of subjects) await measure(subject);
    for (let round = 0; round < rounds; round++) {
      for (const subject of subjects) samples.get(subject.name)?.push(await measure(subject));
    }
    report(samples, rounds);
  } finally {
    bare.end();
    for (const reads of opened) reads.close();
    await database.close();
    await Promise.all([mariadb.stop(), redis.stop()]);
  }
}

interface Sample {
  readonly cpuUs: number;
  readonly wallUs: number;
}

function report(samples: ReadonlyMap<string, readonly Sample[]>, rounds: number): void {
  const [cpu] = cpus();
  console.log(
    `Node ${process.version}, ${cpus().length} × ${cpu?.model}, median of ${rounds} interleaved rounds, ${CONCURRENCY} at once\n`,
  );
  console.log(`${"".padEnd(34)}${"CPU".padStart(12)}${"wall".padStart(12)}`);
  for (const [name, each] of samples) {
    const cells = [median(each.map(({ cpuUs }) => cpuUs)), median(each.map(({ wallUs }) => wallUs))];
    console.log(name.padEnd(34) + cells.map((cell) => `${cell.toFixed(1)} µs`.padStart(12)).join(""));
  }
  console.log(`\n${"".padEnd(62)}${"CPU".padStart(8)}${"wall".padStart(8)}`);
  for (const { of, to, atMost } of PROMISED) {
    const one = samples.get(of) ?? [];
    const other = samples.get(to) ?? [];
    const ratio = (what: keyof Sample) => median(one.map((sample, round) => sample[what] / (other[round]?.[what] ?? 1)));
    const [byCpu, byWall] = [ratio("cpuUs"), ratio("wallUs")];
    const verdict = byCpu <= atMost ? "" : "  missed";
    console.log(
      `${`${of} / ${to}`.padEnd(62)}${byCpu.toFixed(2).padStart(8)}${byWall.toFixed(2).padStart(8)}  at most ${atMost}${verdict}`,
    );
  }
}

async function measure({ calls, call }: Subject): Promise<Sample> {
  const before = process.cpuUsage();
  const start = performance.now();
  let next = 0;
  await Promise.all(
    Array.from({ length: CONCURRENCY }, async () => {
      while (next < calls) await call(next++);
    }),
  );
  const wallUs = ((performance.now() - start) * 1_000) / calls;
  const { user, system } = process.cpuUsage(before);
  return { cpuUs: (user + system) / calls, wallUs };
}

async function fill(database: CatalogDatabase): Promise<ListingRow[]> {
  const sellers = Array.from({ length: SELLERS }, newId);
  const rows = Array.from(
    { length: LISTINGS },
    (_, index): ListingRow => ({
      listing_id: newId(),
      seller_id: sellers[index % SELLERS] as string,
      state: "ACTIVE",
      title: `Vintage camera with its lens, number ${index}`,
      description: "Bought new, used on three journeys, kept in its case. The shutter is exact at all speeds. ".repeat(4),
      category_id: "cameras",
      brand: "Olympus",
      condition_grade: "GOOD",
      currency_code: "USD",
      price_minor: 12_500n,
      offered_units: 1,
      available_units: 1,
      reserved_units: 0,
      stock_sequence: 1,
      handling_days: 3,
      ships_from: "US",
      external_id: `camera-${index}`,
      content_hash: "0".repeat(64),
      create_time: 1_700_000_000_000 + index,
      update_time: 1_700_000_000_000 + index,
      publish_time: 1_700_000_000_000 + index,
      withdraw_key: null,
      creation_id: null,
      version: 1,
    }),
  );
  for (let start = 0; start < rows.length; start += 500) {
    await database.sql
      .insertInto("listing")
      .values(rows.slice(start, start + 500))
      .execute();
  }
  return rows;
}

/** Services read the tables, others what is remembered. */
const service = { caller: { kind: "service", service: "search" } } as const;
const anybody = { caller: { kind: "anonymous" } } as const;

function fromTables(reads: CatalogReads, rows: ListingRow[]): Subject[] {
  const context = {
    method: CatalogService.method.listSellerListings,
    values: { get: (key: unknown) => (key === callKey ? anybody : undefined) },
  } as unknown as HandlerContext;
  const page = (index: number) => create(ListSellerListingsRequestSchema, { sellerId: at(rows, index).seller_id, pageSize: PAGE });
  const batch = (index: number) => create(BatchGetListingsRequestSchema, { listingIds: batchAt(rows, index) });
  return [
    { name: "get", calls: 2_000, call: (index) => reads.getListing(service as Call, at(rows, index).listing_id) },
    { name: "page of 20", calls: 400, call: (index) => reads.listSellerListings(page(index), context) },
    { name: "batch of 100", calls: 200, call: (index) => reads.batchGetListings(service as Call, batch(index)) },
  ];
}

/** `near` has a store in the process before Redis, `far` has not. */
function remembered(near: CatalogReads, far: CatalogReads, rows: ListingRow[]): Subject[] {
  const hot = rows.slice(0, HOT);
  const get = (reads: CatalogReads) => (index: number) => reads.getListing(anybody as Call, at(hot, index).listing_id);
  const batch = (reads: CatalogReads) => (index: number) =>
    reads.batchGetListings(anybody as Call, create(BatchGetListingsRequestSchema, { listingIds: batchAt(hot, index) }));
  return [
    { name: "get, remembered", calls: 20_000, call: get(near) },
    { name: "get, only Redis has it", calls: 2_000, call: get(far) },
    { name: "batch of 100, remembered", calls: 2_000, call: batch(near) },
    { name: "batch of 100, only Redis has it", calls: 200, call: batch(far) },
  ];
}

function at(rows: ListingRow[], index: number): ListingRow {
  return rows[(index * 7) % rows.length] as ListingRow;
}

function batchAt(rows: ListingRow[], index: number): string[] {
  return Array.from({ length: BATCH }, (_, i) => (rows[(index * 7 + i * 13) % rows.length] as ListingRow).listing_id);
}

function peers(pool: Pool, rows: ListingRow[]): Subject[] {
  const raw = (text: string, values: unknown[]) =>
    new Promise<unknown>((resolve, reject) => pool.query(text, values, (error, found) => (error ? reject(error) : resolve(found))));
  const query = async (text: string, values: unknown[]) => ((await raw(text, values)) as ReadRow[]).map(byHand);
  const columns = readColumns.join(", ");
  const one = `select ${columns} from listing where listing_id = ?`;
  const batch = `select ${columns} from listing where listing_id in (?)`;
  const count = "select count(*) from listing where listing_id in (?)";
  const bytes = "select listing_id, version, cast(description as binary) from listing where listing_id in (?)";
  const run = (state: string) =>
    `(select ${columns} from listing where seller_id = ? and state = '${state}' order by create_time desc, listing_id desc limit ${PAGE + 1})`;
  const page = `${["ACTIVE", "RESERVED", "SOLD"].map(run).join(" union all ")} order by create_time desc, listing_id desc limit ${PAGE + 1}`;
  return [
    { name: "get, bare mysql2", calls: 2_000, call: (index) => query(one, [at(rows, index).listing_id]) },
    { name: "page of 20, bare mysql2", calls: 400, call: (index) => query(page, Array(3).fill(at(rows, index).seller_id)) },
    { name: "batch of 100, bare mysql2", calls: 200, call: (index) => query(batch, [batchAt(rows, index)]) },
    // What no way of reading them can do without: the ids on their way there, and the bytes on their way back.
    { name: "100 counted, bare mysql2", calls: 200, call: (index) => raw(count, [batchAt(rows, index)]) },
    { name: "100 undecoded, bare mysql2", calls: 200, call: (index) => raw(bytes, [batchAt(rows, index)]) },
  ];
}

/** mysql2 gives a BIGINT as a number. */
function byHand(row: ReadRow): Listing {
  (row as { price_minor: bigint }).price_minor = BigInt(row.price_minor);
  return toListing(row);
}
