import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { DescService } from "@bufbuild/protobuf";
import type { Interceptor } from "@connectrpc/connect";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { CatalogService } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { InventoryService } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import { MaintenanceService, OpsService } from "#gen/marketplace/ops/v1/ops_pb.ts";
import { OrderService } from "#gen/marketplace/order/v1/order_pb.ts";
import { PaymentService } from "#gen/marketplace/payment/v1/payment_pb.ts";
import { SearchService } from "#gen/marketplace/search/v1/search_pb.ts";
import type { Verifiers } from "#runtime/access.ts";
import { cacheStores } from "#runtime/cache/stores.ts";
import { type Clients, createDirectory, type Directory } from "#runtime/clients.ts";
import type { Clock } from "#runtime/clock.ts";
import { type Database, openDatabase } from "#runtime/database/database.ts";
import type { Migration } from "#runtime/database/migrations.ts";
import { type Bus, inProcessBus, watched } from "#runtime/events/bus.ts";
import { redisBus } from "#runtime/events/redis-bus.ts";
import { type Relay, startRelay } from "#runtime/events/relay.ts";
import type { HealthState } from "#runtime/health.ts";
import { type Jobs, startJobs } from "#runtime/jobs/jobs.ts";
import type { Log } from "#runtime/log.ts";
import { maintenance } from "#runtime/maintenance.ts";
import { type PageTokens, pageTokens } from "#runtime/pages.ts";
import { openPeers, type Peers } from "#runtime/peers.ts";
import type { ServiceModule } from "#runtime/service.ts";
import type { Observer } from "#runtime/telemetry/observer.ts";
import { type ServiceKeys, serviceTokens } from "#runtime/tokens.ts";
import { account } from "./account/service.ts";
import { catalog } from "./catalog/service.ts";
import { inventory } from "./inventory/service.ts";
import { ops } from "./ops/service.ts";
import { order } from "./order/service.ts";
import { type NamedProcessor, openProcessor } from "./payment/processors.ts";
import { payment } from "./payment/service.ts";
import { notesIn } from "./search/replica.ts";
import { search } from "./search/service.ts";
import { sqliteIndex } from "./search/sqlite/sqlite-index.ts";
import { type ServiceWithTables, TABLES } from "./tables.ts";

/** The names of all services, in the order in which they are wired. */
export const SERVICES = ["account", "catalog", "inventory", "order", "payment", "search", "ops"] as const;
type ServiceName = (typeof SERVICES)[number];

/** What the other processes must know of a service that does not run in theirs. */
export interface Outline {
  readonly contracts: readonly DescService[];
  /** What it consumes: its own name of each consumer. Relays wait for all of them, wherever they run. */
  readonly consumers: readonly string[];
  /** Those of them whose effect is in the process: every process that runs the service takes all events for itself. */
  readonly replicated?: readonly string[];
}

/** The outline of every service. */
export const OUTLINES: Readonly<Record<ServiceName, Outline>> = {
  account: { contracts: [AccountService, MaintenanceService], consumers: ["account.orders"] },
  catalog: { contracts: [CatalogService, MaintenanceService], consumers: ["catalog.stock", "catalog.cache"] },
  inventory: { contracts: [InventoryService, MaintenanceService], consumers: [] },
  order: { contracts: [OrderService, MaintenanceService], consumers: [] },
  payment: { contracts: [PaymentService, MaintenanceService], consumers: [] },
  search: { contracts: [SearchService, MaintenanceService], consumers: ["search.index"], replicated: ["search.index"] },
  ops: { contracts: [OpsService], consumers: [] },
};

/** What a marketplace is opened with. */
export interface MarketplaceOptions {
  /** Where its files stand; undefined keeps them in temporary files that go when it stops. */
  readonly dataDir: string | undefined;
  /** Names the database of each service; SQLite files in `dataDir` unless given. */
  readonly databaseUrl?: ((service: string) => string) | undefined;
  /** False refuses tables that are older than the program; true unless given. */
  readonly migrate?: boolean | undefined;
  /** Names the Redis that carries events; they stay in the process unless given. */
  readonly redisUrl?: string | undefined;
  /** The beginning of all keys there, which are apart from those of other marketplaces then; empty unless given. */
  readonly redisPrefix?: string | undefined;
  /** The services that run here; all unless given. */
  readonly services?: readonly string[] | undefined;
  /** Where a service that runs elsewhere is reached, such as "http://souk-order:8080". Needed unless all run here. */
  readonly peerUrl?: ((service: string) => string | undefined) | undefined;
  /** Whether failed calls to those are tried again as their policy allows; true unless given. */
  readonly retries?: boolean | undefined;
  /** The payment processor; a simulated one in this process unless given. */
  readonly processor?: NamedProcessor | undefined;
  /** The books of the simulated one; in `dataDir` unless given. */
  readonly simulatorFile?: string | undefined;
  readonly keys: ServiceKeys;
  /** What the tokens of calls in memory are checked with. */
  readonly verifiers: Verifiers;
  readonly clock: Clock;
  readonly log: Log;
  /** Where people reach the server: the beginning of the pages they are sent to. Asked for when a page is needed. */
  readonly baseUrl: () => string;
  /** Hears which parts are ready. */
  readonly health?: HealthState;
  /** Watches calls, statements, events and jobs. */
  readonly observer?: Observer | undefined;
  /** What sees the calls of a service to others: a test loses some of them. None unless given. */
  readonly interceptors?: (service: string) => readonly Interceptor[];
}

/** The services of one process, wired: the one place that knows every service. */
export interface Marketplace {
  readonly modules: readonly ServiceModule[];
  /** What several of the services answer by the same contract: on a port a call of it names its service. */
  readonly inner: readonly Pick<ServiceModule, "name" | "routes">[];
  readonly directory: Directory;
  /** Starts what works by itself: workers, consumers, relays, jobs. Call it once the server listens. */
  start(): Promise<void>;
  /** Waits until every event is applied and every due job is done. For tests and tools that must see the effect. */
  settle(): Promise<void>;
  /** Ends everything in order: jobs, relays, consumers, workers, databases. */
  stop(): Promise<void>;
}

/** Opens the databases of the services, bringing their tables up to date, and wires them. Nothing runs by itself before `start`. */
export async function openMarketplace(options: MarketplaceOptions): Promise<Marketplace> {
  const { keys, verifiers, clock, log, services = SERVICES, redisUrl, redisPrefix = "", observer } = options;
  const directory = createDirectory({ verifiers, log, observer });
  const pages = pageTokens({ secret: keys.pageTokens, clock });
  const closing: (() => void)[] = [];
  const part = (service: string) => ({
    clients: directory.clientsFor(serviceTokens(keys, service), options.interceptors?.(service)),
    log: log.child({ service }),
    clock,
    pages,
  });
  const make = makersOf({ options, part, open: openWith(options), closing });
  const modules = await Promise.all(SERVICES.filter((name) => services.includes(name)).map((name) => make[name]()));
  const inner = modules.flatMap(({ name, database }) => (database === undefined ? [] : [maintenanceOf(name, database, pages)]));
  directory.host(modules.map((module) => joined(module, inner)));
  const peers = openPeers({ urlOf: peerUrlOf(options), retries: options.retries, observer });
  reachOthers(directory, peers, modules);
  closing.push(() => peers.close());
  const consumers = SERVICES.flatMap((name) => OUTLINES[name].consumers);
  const replicated = SERVICES.flatMap((name) => OUTLINES[name].replicated ?? []);
  const shared = { prefix: `{${redisPrefix}souk.events}`, log, consumers, replicated, observer };
  const bus = redisUrl === undefined ? inProcessBus({ log }) : redisBus({ url: redisUrl, ...shared });
  return running({ modules, inner, directory }, bus, options, () => {
    for (const close of closing) close();
  });
}

/** What services are made of. */
interface Making {
  readonly options: MarketplaceOptions;
  readonly part: (service: string) => { clients: Clients; log: Log; clock: Clock; pages: PageTokens };
  readonly open: ReturnType<typeof openWith>;
  /** What to do when all have ended. */
  readonly closing: (() => void)[];
}

/** How each service is made. */
function makersOf({ options, part, open, closing }: Making): Readonly<Record<ServiceName, () => Promise<ServiceModule>>> {
  const { dataDir, clock, baseUrl, log, observer } = options;
  return {
    account: async () => account({ ...part("account"), database: await open("account") }),
    catalog: async () => catalog({ ...part("catalog"), database: await open("catalog"), openCacheStore: cacheStores(options) }),
    inventory: async () => inventory({ ...part("inventory"), database: await open("inventory") }),
    order: async () => order({ ...part("order"), database: await open("order") }),
    async payment() {
      const database = await open("payment");
      const books = options.simulatorFile ?? fileIn(dataDir, "processor.db");
      const named = options.processor;
      const { processor, doors, close } = await openProcessor({
        database,
        named,
        simulatorFile: books,
        clock,
        baseUrl,
        log,
        observer,
      });
      closing.push(close);
      return payment({ ...part("payment"), database, processor, doors });
    },
    async search() {
      const database = await open("search");
      const folder = folderOf(dataDir);
      closing.push(() => folder.remove());
      const notes = notesIn(folder.path);
      const index = (hooks: { onCorrupt(): void }) => sqliteIndex({ folder: folder.path, log, ...hooks });
      return search({ ...part("search"), database, notes, index });
    },
    ops: async () =>
      ops({
        ...part("ops"),
        services: SERVICES.filter((name) => OUTLINES[name].contracts.includes(MaintenanceService)),
      }),
  };
}

function peerUrlOf({ peerUrl }: MarketplaceOptions): (service: string) => string {
  return (service) => {
    const url = peerUrl?.(service);
    if (url === undefined) throw new Error(`The service "${service}" does not run here, and nothing says where it is reached.`);
    return url;
  };
}

/** Makes the services callable that other processes run. */
function reachOthers(directory: Directory, peers: Peers, modules: readonly ServiceModule[]): void {
  for (const name of SERVICES) {
    if (modules.some((module) => module.name === name)) continue;
    directory.reach(name, { services: OUTLINES[name].contracts, open: (interceptors) => peers.open(name, interceptors) });
  }
}

/** What a service answers the ops service about itself. */
function maintenanceOf(name: string, database: Database, pages: PageTokens): Pick<ServiceModule, "name" | "routes"> {
  return { name, routes: (router) => void router.service(MaintenanceService, maintenance(database, pages)) };
}

/** A service with all its contracts, for calls in memory, which name their service. */
function joined(module: ServiceModule, inner: Marketplace["inner"]): ServiceModule {
  const own = inner.find(({ name }) => name === module.name);
  if (own === undefined) return module;
  return {
    ...module,
    routes(router) {
      module.routes(router);
      own.routes(router);
    },
  };
}

function openWith({ dataDir, databaseUrl, migrate = true, services = SERVICES, clock, log, observer }: MarketplaceOptions) {
  const together = services.filter((name) => name in TABLES).length;
  const urlOf = databaseUrl ?? ((service: string) => `sqlite:${fileIn(dataDir, `${service}.db`)}`);
  return <N extends ServiceWithTables>(service: N) => {
    const { entities, migrations }: { entities: (typeof TABLES)[N]["entities"]; migrations: readonly Migration[] } =
      TABLES[service];
    return openDatabase({ service, url: urlOf(service), entities, migrations, migrate, together, clock, log, observer });
  };
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
  wired: Pick<Marketplace, "modules" | "inner" | "directory">,
  bus: Bus,
  { health, log, observer }: MarketplaceOptions,
  close: () => void,
): Marketplace {
  const { modules } = wired;
  const relays: Relay[] = [];
  const jobs: Jobs[] = [];
  for (const { name } of modules) health?.add(name);
  return {
    ...wired,
    async start() {
      // Consumers first: an event that nobody takes yet would count as taken by all.
      for (const module of modules) for (const consumer of module.consumers) bus.subscribe(watched(consumer, observer));
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
