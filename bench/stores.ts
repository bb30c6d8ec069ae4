// What the catalog's reads cost without RPC, on a private MariaDB, against bare mysql2.

import { create } from "@bufbuild/protobuf";
import type { HandlerContext } from "@connectrpc/connect";
import { createPool, type Pool } from "mysql2";
import {
  BatchGetListingsRequestSchema,
  CatalogService,
  type Listing,
  ListSellerListingsRequestSchema,
} from "#gen/marketplace/catalog/v1/catalog_pb.ts";
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
import { ensureDatabase } from "../tools/stores/stores.ts";

const LISTINGS = 5_000;
const SELLERS = 50;
const CONCURRENCY = 8;
const PAGE = 20;
const BATCH = 100;

/** One thing that is measured. */
interface Subject {
  readonly name: string;
  readonly calls: number;
  call(index: number): Promise<unknown>;
}

export async function stores({ rounds }: { rounds: number }): Promise<void> {
  const mariadb = await startMariadb();
  const url = await ensureDatabase(mariadb.url, { name: "souk_catalog", password: "bench" });
  const database = await openDatabase({ service: "catalog", url, entities, migrations, clock: systemClock, log: silentLog() });
  const address = new URL(url);
  const bare = createPool({
    host: address.hostname,
    port: Number(address.port),
    user: address.username,
    password: address.password,
    database: address.pathname.slice(1),
    connectionLimit: 10,
  });
  try {
    const listings = await fill(database);
    const subjects = [...ours(database, listings), ...peers(bare, listings)];
    const samples = new Map(subjects.map(({ name }) => [name, [] as { cpuUs: number; wallUs: number }[]]));
    for (const subject of subjects) await measure(subject);
    for (let round = 0; round < rounds; round++) {
      for (const subject of subjects) samples.get(subject.name)?.push(await measure(subject));
    }
    for (const [name, each] of samples) {
      console.log(
        name.padEnd(30),
        median(each.map((s) => s.cpuUs))
          .toFixed(1)
          .padStart(9),
        median(each.map((s) => s.wallUs))
          .toFixed(1)
          .padStart(9),
      );
    }
  } finally {
    bare.end();
    await database.close();
    await mariadb.stop();
  }
}

function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? 0;
}

async function measure({ calls, call }: Subject): Promise<{ cpuUs: number; wallUs: number }> {
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

function ours(database: CatalogDatabase, rows: ListingRow[]): Subject[] {
  const reads = catalogReads(database, pageTokens({ secret: new Uint8Array(32) }));
  const call = { caller: { kind: "anonymous" } } as Call;
  const context = {
    method: CatalogService.method.listSellerListings,
    values: { get: (key: unknown) => (key === callKey ? call : undefined) },
  } as unknown as HandlerContext;
  const at = (index: number) => rows[(index * 7) % rows.length] as ListingRow;
  return [
    { name: "get", calls: 3_000, call: (index) => reads.getListing(call, at(index).listing_id) },
    {
      name: "page",
      calls: 500,
      call: (index) =>
        reads.listSellerListings(
          create(ListSellerListingsRequestSchema, { sellerId: at(index).seller_id, pageSize: PAGE }),
          context,
        ),
    },
    {
      name: "batch",
      calls: 200,
      call: (index) => reads.batchGetListings(call, create(BatchGetListingsRequestSchema, { listingIds: batchAt(rows, index) })),
    },
  ];
}

function batchAt(rows: ListingRow[], index: number): string[] {
  return Array.from({ length: BATCH }, (_, i) => (rows[(index * 7 + i * 13) % rows.length] as ListingRow).listing_id);
}

function peers(pool: Pool, rows: ListingRow[]): Subject[] {
  const at = (index: number) => rows[(index * 7) % rows.length] as ListingRow;
  const query = (text: string, values: unknown[]) =>
    new Promise<Listing[]>((resolve, reject) =>
      pool.query(text, values, (error, found) => {
        if (error) reject(error);
        else resolve((found as ReadRow[]).map(byHand));
      }),
    );
  const columns = readColumns.join(", ");
  const one = `select ${columns} from listing where listing_id = ?`;
  const batch = `select ${columns} from listing where listing_id in (?)`;
  const run = (state: string) =>
    `(select ${columns} from listing where seller_id = ? and state = '${state}' order by create_time desc, listing_id desc limit ${PAGE + 1})`;
  const page = `${["ACTIVE", "RESERVED", "SOLD"].map(run).join(" union all ")} order by create_time desc, listing_id desc limit ${PAGE + 1}`;
  return [
    { name: "bare get", calls: 3_000, call: (index) => query(one, [at(index).listing_id]) },
    { name: "bare page", calls: 500, call: (index) => query(page, Array(3).fill(at(index).seller_id)) },
    { name: "bare batch", calls: 200, call: (index) => query(batch, [batchAt(rows, index)]) },
  ];
}

/** mysql2 gives a BIGINT as a number. */
function byHand(row: ReadRow): Listing {
  return toListing({ ...row, price_minor: BigInt(row.price_minor) });
}
