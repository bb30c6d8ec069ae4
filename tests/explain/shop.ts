import type { DescMethod, DescService, Message } from "@bufbuild/protobuf";
import { type Client, createClient, type Interceptor } from "@connectrpc/connect";
import { createConnection } from "mysql2/promise";
import { ACCOUNT_HEADER } from "#runtime/access.ts";
import { type ManualClock, manualClock } from "#runtime/clock.ts";
import { type PageValue, pageTokens } from "#runtime/pages.ts";
import { embeddedVerifiers, temporaryKeys } from "#runtime/tokens.ts";
import { type Marketplace, openMarketplace } from "../../services/marketplace.ts";
import { startMariadb } from "../../tools/stores/mariadb.ts";
import { startRedis } from "../../tools/stores/redis.ts";
import { ensureDatabase } from "../../tools/stores/stores.ts";
import { methodPath } from "../support/contract.ts";
import { quietLog } from "../support/database.ts";
import { demo } from "../support/marketplace.ts";
import { signedIn } from "../support/server.ts";
import { load } from "./load.ts";
import { check, type Finding, openLog, type Seen } from "./plans.ts";

const SERVICES = ["account", "catalog", "inventory", "order", "payment", "search"] as const;

/** A marketplace over the loaded tables, on a MariaDB and a Redis of its own, and what the server does for its calls. */
export interface Shop {
  readonly marketplace: Marketplace;
  readonly clock: ManualClock;
  /** Every method that was called, from here or by a service. */
  readonly called: ReadonlySet<string>;
  /** Calls as a demo account. */
  as<S extends DescService>(who: string, service: S): Client<S>;
  /** Calls as a service, for a demo account where one is named. */
  of<S extends DescService>(service: string, contract: S, options?: { module?: string; for?: string }): Client<S>;
  /** The token of the page after this position. */
  pageAfter(method: DescMethod, request: Message, position: readonly PageValue[]): string;
  /** Runs something, and remembers the statements that it caused under this name. */
  step(name: string, work: () => Promise<unknown>): Promise<void>;
  /** Explains all statements of the steps so far, and forgets them. */
  findings(): Promise<{ statements: number; shapes: number; findings: Finding[] }>;
  /** Changes a table by hand, as the server's administrator. */
  sql(text: string): Promise<void>;
  stop(): Promise<void>;
}

/** Starts the servers, makes and fills the tables, and starts the marketplace on them. */
export async function openShop(): Promise<Shop> {
  const undo: (() => Promise<unknown>)[] = [];
  const stop = async () => {
    for (let step = undo.pop(); step !== undefined; step = undo.pop()) await step();
  };
  try {
    return await open(undo, stop);
  } catch (error) {
    await stop();
    throw error;
  }
}

async function open(undo: (() => Promise<unknown>)[], stop: () => Promise<void>): Promise<Shop> {
  const [mariadb, redis] = await Promise.all([startMariadb(), startRedis()]);
  undo.push(() => Promise.all([mariadb.stop(), redis.stop()]));
  const admin = await createConnection(mariadb.url.replace(/^mariadb:/, "mysql:"));
  undo.push(() => admin.end());
  // For the loader: nothing here has to outlive the test.
  await admin.query("set global innodb_flush_log_at_trx_commit = 0, global innodb_buffer_pool_size = 1 << 30");
  await admin.query("set global innodb_log_file_size = 1 << 30").catch(() => {});
  const log = await openLog(admin);
  const databaseOf = (service: string) => `souk_${service}`;
  const urls = new Map<string, string>();
  for (const service of SERVICES)
    urls.set(service, await ensureDatabase(mariadb.url, { name: databaseOf(service), password: "secret" }));
  const called = new Set<string>();
  const noting: Interceptor = (next) => (request) => {
    called.add(methodPath(request.method));
    return next(request);
  };
  const [keys, clock] = [await temporaryKeys(), manualClock()];
  const marketplace = await openMarketplace({
    dataDir: undefined,
    databaseUrl: (service) => urls.get(service) ?? "",
    redisUrl: redis.url,
    keys,
    verifiers: embeddedVerifiers(keys),
    clock,
    log: quietLog,
    baseUrl: () => "http://localhost",
    interceptors: () => [noting],
  });
  undo.push(() => marketplace.stop());
  await load(mariadb.url, databaseOf, clock.now());
  const pages = pageTokens({ secret: keys.pageTokens, clock });
  let seen: Seen[] = [];
  return {
    marketplace,
    clock,
    called,
    as: (who, service) =>
      createClient(service, marketplace.directory.transport(service, undefined, [noting, signedIn(keys, demo(who))])),
    of(service, contract, { module, for: who } = {}) {
      const actingFor: Interceptor = (next) => (request) => {
        if (who !== undefined) request.header.set(ACCOUNT_HEADER, demo(who).account);
        return next(request);
      };
      return createClient(
        contract,
        marketplace.directory.transport(contract, module, [noting, actingFor, signedIn(keys, { service })]),
      );
    },
    pageAfter: (method, request, position) => pages.encode(method, request, position),
    async step(name, work) {
      seen.push(
        ...(await log.during(name, SERVICES.map(databaseOf), async () => {
          await work();
        })),
      );
    },
    async findings() {
      const [statements, all] = [seen.length, seen];
      seen = [];
      return { statements, ...(await check(admin, all)) };
    },
    async sql(text) {
      await admin.query(text);
    },
    stop,
  };
}
