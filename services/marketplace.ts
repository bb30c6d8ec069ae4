import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Interceptor } from "@connectrpc/connect";
import { MaintenanceService } from "#gen/marketplace/ops/v1/ops_pb.ts";
import { createDirectory, type Directory } from "#runtime/clients.ts";
import type { Clock } from "#runtime/clock.ts";
import { type Database, openDatabase } from "#runtime/database/database.ts";
import { type Bus, inProcessBus } from "#runtime/events/bus.ts";
import { redisBus } from "#runtime/events/redis-bus.ts";
import { type Relay, startRelay } from "#runtime/events/relay.ts";
import type { HealthState } from "#runtime/health.ts";
import { type Jobs, startJobs } from "#runtime/jobs/jobs.ts";
import type { Log } from "#runtime/log.ts";
import { maintenance } from "#runtime/maintenance.ts";
import { type PageTokens, pageTokens } from "#runtime/pages.ts";
import type { ServiceModule } from "#runtime/service.ts";
import { embeddedVerifiers, type Keys, serviceTokens } from "#runtime/tokens.ts";
import * as accountTables from "./account/entities.ts";
import { migrations as accountMigrations } from "./account/migrations/index.ts";
import { account } from "./account/service.ts";
import * as catalogTables from "./catalog/entities.ts";
import { migrations as catalogMigrations } from "./catalog/migrations/index.ts";
import { catalog } from "./catalog/service.ts";
import * as inventoryTables from "./inventory/entities.ts";
import { migrations as inventoryMigrations } from "./inventory/migrations/index.ts";
import { inventory } from "./inventory/service.ts";
import { ops } from "./ops/service.ts";
import * as orderTables from "./order/entities.ts";
import { migrations as orderMigrations } from "./order/migrations/index.ts";
import { order } from "./order/service.ts";
import * as paymentTables from "./payment/entities.ts";
import { migrations as paymentMigrations } from "./payment/migrations/index.ts";
import { payment } from "./payment/service.ts";
import { openSimulator } from "./payment/simulator.ts";
import { simulatorDoors } from "./payment/simulator-doors.ts";
import * as searchTables from "./search/entities.ts";
import { migrations as searchMigrations } from "./search/migrations/index.ts";
import { search } from "./search/service.ts";
import { sqliteIndex } from "./search/sqlite/sqlite-index.ts";

/** What a marketplace is opened with. */
export interface MarketplaceOptions {
  /** Where its files stand; undefined keeps them in temporary files that go when it stops. */
  readonly dataDir: string | undefined;
  /** Names the database of each service; SQLite files in `dataDir` unless given. */
  readonly databaseUrl?: ((service: string) => string) | undefined;
  /** Names the Redis that carries events; they stay in the process unless given. */
  readonly redisUrl?: string | undefined;
  readonly keys: Keys;
  readonly clock: Clock;
  readonly log: Log;
  /** Where people reach the server: the beginning of the pages they are sent to. Asked for when a page is needed. */
  readonly baseUrl: () => string;
  /** Hears which parts are ready. */
  readonly health?: HealthState;
  /** What sees the calls of a service to others: a test loses some of them. None unless given. */
  readonly interceptors?: (service: string) => readonly Interceptor[];
}

/** All services in one process, wired: the one place that knows every service. */
export interface Marketplace {
  readonly modules: readonly ServiceModule[];
  readonly directory: Directory;
  /** Starts what works by itself: workers, consumers, relays, jobs. Call it once the server listens. */
  start(): Promise<void>;
  /** Waits until every event is applied and every due job is done. For tests and tools that must see the effect. */
  settle(): Promise<void>;
  /** Ends everything in order: jobs, relays, consumers, workers, databases. */
  stop(): Promise<void>;
}

/** Opens every database, bringing its tables up to date, and wires the services. Nothing runs by itself before `start`. */
export async function openMarketplace(options: MarketplaceOptions): Promise<Marketplace> {
  const { keys, clock, log } = options;
  const directory = createDirectory({ verifiers: embeddedVerifiers(keys), log });
  const pages = pageTokens({ secret: keys.pageTokens, clock });
  const part = (service: string) => ({
    clients: directory.clientsFor(serviceTokens(keys, service), options.interceptors?.(service)),
    log: log.child({ service }),
    clock,
    pages,
  });
  const open = openWith(options);
  const [accounts, listings, units, orders, payments, searches] = await Promise.all([
    open("account", accountTables.entities, accountMigrations),
    open("catalog", catalogTables.entities, catalogMigrations),
    open("inventory", inventoryTables.entities, inventoryMigrations),
    open("order", orderTables.entities, orderMigrations),
    open("payment", paymentTables.entities, paymentMigrations),
    open("search", searchTables.entities, searchMigrations),
  ]);
  const processor = openSimulator({ file: fileIn(options.dataDir, "processor.db"), clock, baseUrl: options.baseUrl });
  const indexFolder = folderOf(options.dataDir);
  const modules: readonly ServiceModule[] = [
    account({ ...part("account"), database: accounts }),
    catalog({ ...part("catalog"), database: listings }),
    inventory({ ...part("inventory"), database: units }),
    order({ ...part("order"), database: orders }),
    payment({ ...part("payment"), database: payments, processor, doors: simulatorDoors(processor) }),
    search({ ...part("search"), database: searches, index: (hooks) => sqliteIndex({ folder: indexFolder.path, log, ...hooks }) }),
    ops({ ...part("ops"), services: ["account", "catalog", "inventory", "order", "payment", "search"] }),
  ];
  // What services answer about themselves is for ops alone and has no place on a port that serves them all.
  directory.host(modules.map((module) => withMaintenance(module, pages)));
  const consumers = modules.flatMap((module) => module.consumers.map(({ consumer }) => consumer));
  const { redisUrl } = options;
  const bus = redisUrl === undefined ? inProcessBus({ log }) : redisBus({ url: redisUrl, log, consumers });
  return running(modules, directory, bus, options, () => {
    processor.close();
    indexFolder.remove();
  });
}

function withMaintenance(module: ServiceModule, pages: PageTokens): ServiceModule {
  const { database } = module;
  if (database === undefined) return module;
  return {
    ...module,
    routes(router) {
      module.routes(router);
      router.service(MaintenanceService, maintenance(database, pages));
    },
  };
}

function openWith({ dataDir, databaseUrl, clock, log }: MarketplaceOptions) {
  const urlOf = databaseUrl ?? ((service: string) => `sqlite:${fileIn(dataDir, `${service}.db`)}`);
  return <const E extends Parameters<typeof openDatabase>[0]["entities"]>(
    service: string,
    entities: E,
    migrations: Parameters<typeof openDatabase>[0]["migrations"],
  ) => openDatabase<E>({ service, url: urlOf(service), entities, migrations, clock, log });
}

function fileIn(dataDir: string | undefined, name: string): string {
  return dataDir === undefined ? ":memory:" : join(dataDir, name);
}

/** The folder of the search index; a temporary one where nothing is kept. */
function folderOf(dataDir: string | undefined): { path: string; remove(): void } {
  if (dataDir !== undefined) return { path: dataDir, remove: () => {} };
  const path = mkdtempSync(join(tmpdir(), "souk-"));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}

/** The moving parts, and the order in which they begin and end. */
function running(
  modules: readonly ServiceModule[],
  directory: Directory,
  bus: Bus,
  { health, log }: MarketplaceOptions,
  close: () => void,
): Marketplace {
  const relays: Relay[] = [];
  const jobs: Jobs[] = [];
  for (const { name } of modules) health?.add(name);
  return {
    modules,
    directory,
    async start() {
      // Consumers first: an event that nobody takes yet would count as taken by all.
      for (const module of modules) for (const consumer of module.consumers) bus.subscribe(consumer);
      for (const { database } of modules) if (database) relays.push(startRelay({ database, bus, log }));
      await Promise.all(
        modules.map(async (module) => {
          await module.start?.();
          if (module.database) jobs.push(startJobs({ ...module, database: module.database, handlers: module.jobs }));
          health?.set(module.name, true);
        }),
      );
    },
    async settle() {
      // An event may schedule a job and a job may tell a fact: the second round finds nothing new.
      for (let round = 0; round < 2; round++) {
        await Promise.all(relays.map((relay) => relay.drain()));
        await Promise.all(jobs.map((each) => each.runDue()));
      }
      await Promise.all(relays.map((relay) => relay.drain()));
    },
    async stop() {
      await Promise.all(jobs.map((each) => each.stop()));
      await Promise.all(relays.map((relay) => relay.stop()));
      await bus.close();
      await Promise.all(modules.map((module) => module.stop?.()));
      await Promise.all(modules.map(({ database }: { database?: Database }) => database?.close()));
      close();
    },
  };
}
