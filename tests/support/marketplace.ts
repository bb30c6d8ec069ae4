import type { DescService } from "@bufbuild/protobuf";
import { type Client, createClient } from "@connectrpc/connect";
import { type ManualClock, manualClock } from "#runtime/clock.ts";
import { embeddedVerifiers, type Keys, temporaryKeys } from "#runtime/tokens.ts";
import { type Marketplace, type MarketplaceOptions, openMarketplace, SERVICES } from "../../services/marketplace.ts";
import { accounts } from "../../tools/seed/listings.ts";
import { startRedis } from "../../tools/stores/redis.ts";
import { quietLog, testStore } from "./database.ts";
import { emptyDatabase } from "./mariadb.ts";
import { type Identity, signedIn } from "./server.ts";

/** The whole marketplace in this process on temporary files, with a clock that the test moves. */
export interface TestMarketplace extends Marketplace {
  readonly keys: Keys;
  readonly clock: ManualClock;
  /** A client that calls as a demo account by its name ("ada"), or as any identity. */
  as<S extends DescService>(who: string | Identity, service: S, module?: string): Client<S>;
}

/**
 * Opens and starts a marketplace of its own for a test; the test stops it. `interceptors` see the calls of a service to others. With `going` its
 * clock runs by itself, so that what is planned for later happens then.
 */
export async function testMarketplace(
  options: Pick<MarketplaceOptions, "interceptors" | "observer"> & { going?: true } = {},
): Promise<TestMarketplace> {
  const keys = await temporaryKeys();
  const clock = options.going ? goingClock() : manualClock();
  const stores = await marketplaceStores();
  const marketplace = await openMarketplace({
    dataDir: undefined,
    ...stores.named,
    keys,
    verifiers: embeddedVerifiers(keys),
    clock,
    log: quietLog,
    baseUrl: () => "http://localhost:8080",
    observer: options.observer,
    ...(options.interceptors === undefined ? {} : { interceptors: options.interceptors }),
  });
  await marketplace.start();
  return {
    ...marketplace,
    async stop() {
      await marketplace.stop();
      await stores.remove();
    },
    keys,
    clock,
    as: (who, service, module) =>
      createClient(
        service,
        marketplace.directory.transport(service, module, [signedIn(keys, typeof who === "string" ? demo(who) : who)]),
      ),
  };
}

/** Where a whole marketplace has its tables and its events in this run of the tests. */
export interface MarketplaceStores {
  /** What names them; nothing where they are files and this process. */
  readonly named: Pick<MarketplaceOptions, "databaseUrl" | "redisUrl">;
  remove(): Promise<void>;
}

/** Makes stores for a marketplace: on the test run's MariaDB and a Redis of its own, or nothing, which leaves it the embedded ones. */
export async function marketplaceStores(): Promise<MarketplaceStores> {
  if (testStore === "sqlite") return { named: {}, remove: async () => {} };
  const [redis, ...databases] = await Promise.all([startRedis(), ...SERVICES.map(emptyDatabase)]);
  const urls = new Map(SERVICES.map((service, index) => [service as string, databases[index]?.url]));
  return {
    named: { databaseUrl: (service) => urls.get(service) ?? "", redisUrl: redis.url },
    remove: async () => {
      await Promise.all([redis.stop(), ...databases.map((database) => database.remove())]);
    },
  };
}

/** A clock that goes, and that a test can push. */
export function goingClock(): ManualClock {
  let offset = 0;
  return {
    now: () => Date.now() + offset,
    advance: (ms) => {
      offset += ms;
    },
    set: (time) => {
      offset = time - Date.now();
    },
  };
}

/** The identity of a demo account. */
export function demo(name: string): { account: string; operator: boolean } {
  const account = accounts.find((each) => each.name === name);
  if (account === undefined) throw new Error(`There is no demo account "${name}".`);
  return { account: account.accountId, operator: account.operator };
}
