import assert from "node:assert/strict";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import type { DescService } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import { sql } from "kysely";
import { createConnection } from "mysql2/promise";
import { OpsService } from "#gen/marketplace/ops/v1/ops_pb.ts";
import { type ManualClock, manualClock } from "#runtime/clock.ts";
import type { Log } from "#runtime/log.ts";
import { startServer } from "#runtime/server.ts";
import { embeddedVerifiers, type Keys, serviceTokens, signAccountToken, temporaryKeys } from "#runtime/tokens.ts";
import { openMarketplace } from "../../services/marketplace.ts";
import { seed } from "../../tools/seed/seed.ts";
import { methodPath } from "../support/contract.ts";
import { quietLog, temporaryFolder, testStore } from "../support/database.ts";
import { demo, marketplaceStores } from "../support/marketplace.ts";
import { signedIn } from "../support/server.ts";
import { type Answer, type Body, type CallSettings, type Method, post, type Way, waysTo } from "./ways.ts";

/** Every row that is kept, as JSON, by database and table: "payment.payout". */
export type Kept = ReadonlyMap<string, readonly string[]>;

/** Whom a call is made as: a demo account by its name; undefined for nobody. */
export type Who = string | undefined;

/** The whole marketplace behind a real server with the demo accounts and listings, called as from far away, and a look at all it keeps. */
export interface Served {
  readonly url: string;
  readonly clock: ManualClock;
  readonly ways: readonly Way[];
  /** A token of a demo account; `ttlMs` may be negative. */
  token(who: string, ttlMs?: number): Promise<string>;
  /** A token of a service, for `x-souk-service-token`. */
  serviceToken(service: string): Promise<string>;
  /** Calls in the first of the ways, Connect JSON, unless another is given. */
  call(who: Who, method: Method, request: object, settings?: CallSettings & { way?: Way | undefined }): Promise<Answer>;
  /** As `call`, and expects it to succeed. */
  // biome-ignore lint/suspicious/noExplicitAny: the answer is JSON of whatever method was called.
  ok(who: Who, method: Method, request: object, settings?: CallSettings & { way?: Way | undefined }): Promise<any>;
  /** Sends a body as it is. */
  post(who: Who, method: Method, body: Body, headers?: Record<string, string>): Promise<Answer>;
  /** Waits until all events are applied and all due jobs are done. */
  settle(): Promise<void>;
  /** All that is kept, once all is settled. */
  kept(): Promise<Kept>;
  /** Runs something that must not leave a trace in any database, nor at the processor; fails with the rows that it left. */
  leavingNothing<T>(work: () => Promise<T>): Promise<T>;
  /** Expects that the books are right, as an operator would ask. */
  assertBalanced(): Promise<void>;
  /** Keeps others from writing to a service's database until the function it gives is called. */
  lock(service: string): Promise<() => Promise<void>>;
  stop(): Promise<void>;
  /** Stops it after a last look at the books; stops it also when they are wrong. */
  stopBalanced(): Promise<void>;
}

/** Opens, seeds and serves a marketplace of its own for a test, which stops it. */
export async function serveMarketplace({ log = quietLog }: { log?: Log } = {}): Promise<Served> {
  const folder = temporaryFolder();
  const undo: (() => Promise<void> | void)[] = [() => folder.remove()];
  const stop = async () => {
    for (let step = undo.pop(); step !== undefined; step = undo.pop()) await step();
  };
  try {
    return await serve(folder.path, log, undo, stop);
  } catch (error) {
    // Whatever stays open keeps the whole test run from ending.
    await stop();
    throw error;
  }
}

async function serve(dataDir: string, log: Log, undo: (() => Promise<void> | void)[], stop: () => Promise<void>): Promise<Served> {
  const keys = await temporaryKeys();
  const clock = manualClock();
  const stores = await marketplaceStores();
  undo.push(() => stores.remove());
  const verifiers = embeddedVerifiers(keys);
  const marketplace = await openMarketplace({
    dataDir,
    ...stores.named,
    keys,
    verifiers,
    clock,
    log,
    baseUrl: () => "http://localhost",
  });
  undo.push(() => marketplace.stop());
  const server = await startServer({ modules: marketplace.modules, port: 0, host: "127.0.0.1", verifiers, log });
  undo.push(() => server.stop(0));
  await marketplace.start();
  const as = <S extends DescService>(who: string, service: S) =>
    createClient(service, marketplace.directory.transport(service, undefined, [signedIn(keys, demo(who))]));
  await seed((account, service) => as(account.name, service));
  const { ways, close } = waysTo(server.url);
  undo.push(close);
  const settle = () => marketplace.settle();
  const kept = async () => {
    await settle();
    return read(marketplace.modules, join(dataDir, "processor.db"));
  };
  const assertBalanced = async () => {
    await settle();
    const { balanced, checks } = await as("olga", OpsService).checkBooks({});
    const findings = checks.flatMap((check) => check.findings);
    assert.deepEqual(findings, []);
    assert.ok(balanced);
  };
  return {
    url: server.url,
    clock,
    ways,
    ...callsTo(server.url, keys, ways),
    settle,
    kept,
    async leavingNothing(work) {
      const before = await kept();
      const result = await work();
      assert.deepEqual(difference(before, await kept()), []);
      return result;
    },
    assertBalanced,
    lock: (service) => {
      const url = stores.named.databaseUrl?.(service);
      return url === undefined ? lockFile(join(dataDir, `${service}.db`)) : lockTables(url);
    },
    stop,
    async stopBalanced() {
      try {
        await assertBalanced();
      } finally {
        await stop();
      }
    },
  };
}

function callsTo(url: string, keys: Keys, ways: readonly Way[]): Pick<Served, "token" | "serviceToken" | "call" | "ok" | "post"> {
  const token: Served["token"] = (who, ttlMs) => {
    const { account, operator } = demo(who);
    return signAccountToken(keys, { accountId: account, operator, ...(ttlMs === undefined ? {} : { ttlMs }) });
  };
  const call: Served["call"] = async (who, method, request, { way = ways[0] as Way, ...settings } = {}) =>
    way.call(method, request, { ...(who === undefined ? {} : { token: await token(who) }), ...settings });
  return {
    token,
    serviceToken: (service) => serviceTokens(keys, service)(),
    call,
    async ok(who, method, request, settings) {
      const answer = await call(who, method, request, settings);
      assert.equal(answer.code, undefined, `${method.name}: ${answer.reason} ${answer.message}`);
      return answer.json;
    },
    async post(who, method, body, headers = {}) {
      const authorization = who === undefined ? {} : { authorization: `Bearer ${await token(who)}` };
      return post(url, methodPath(method), body, { ...authorization, ...headers });
    },
  };
}

async function lockFile(file: string): Promise<() => Promise<void>> {
  const other = new DatabaseSync(file, { timeout: 1_000 });
  other.exec("begin immediate");
  return async () => {
    other.exec("rollback");
    other.close();
  };
}

async function lockTables(url: string): Promise<() => Promise<void>> {
  const other = await createConnection(url.replace(/^mariadb:/, "mysql:"));
  const [rows] = await other.query("show tables");
  const names = (rows as Record<string, string>[]).map((row) => Object.values(row)[0]);
  // Others may read, as beside SQLite's one writer.
  await other.query(`lock tables ${names.map((name) => `\`${name}\` read`).join(", ")}`);
  return () => other.end();
}

/** What came and what went between two looks: "+payment.payout {…}". */
export function difference(before: Kept, after: Kept): string[] {
  const changes: string[] = [];
  for (const table of new Set([...before.keys(), ...after.keys()])) {
    const was = new Set(before.get(table));
    const is = new Set(after.get(table));
    for (const row of is) if (!was.has(row)) changes.push(`+${table} ${row.slice(0, 300)}`);
    for (const row of was) if (!is.has(row)) changes.push(`-${table} ${row.slice(0, 300)}`);
  }
  return changes;
}

type Modules = Awaited<ReturnType<typeof openMarketplace>>["modules"];
type Row = Record<string, unknown>;

/** Leases and the runs of recurring jobs come and go by themselves; every other row is somebody's doing. */
async function read(modules: Modules, processorFile: string): Promise<Kept> {
  const kept = new Map<string, readonly string[]>();
  for (const { name, database } of modules) {
    if (database === undefined) continue;
    const names =
      testStore === "sqlite"
        ? sql<{ name: string }>`select name from sqlite_master where type = 'table' and name not like 'sqlite_%'`
        : sql<{ name: string }>`select table_name as name from information_schema.tables where table_schema = database()`;
    const tables = await names.execute(database.sql);
    for (const table of tables.rows) {
      if (table.name === "lease") continue;
      const { rows } = await sql<Row>`select * from ${sql.table(table.name)}`.execute(database.sql);
      kept.set(`${name}.${table.name}`, rows.filter((row) => row.job_key !== "recurring").map(written));
    }
  }
  const processor = new DatabaseSync(processorFile, { readOnly: true, readBigInts: true });
  for (const table of ["operation", "attempt"]) {
    kept.set(`processor.${table}`, (processor.prepare(`select * from ${table}`).all() as Row[]).map(written));
  }
  processor.close();
  return kept;
}

function written(row: Row): string {
  return JSON.stringify(row, (_, value) =>
    typeof value === "bigint" ? String(value) : value instanceof Uint8Array ? Buffer.from(value).toString("base64") : value,
  );
}
