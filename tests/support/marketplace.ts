import type { DescService } from "@bufbuild/protobuf";
import { type Client, createClient } from "@connectrpc/connect";
import { type ManualClock, manualClock } from "#runtime/clock.ts";
import { type Keys, temporaryKeys } from "#runtime/tokens.ts";
import { type Marketplace, type MarketplaceOptions, openMarketplace } from "../../services/marketplace.ts";
import { accounts } from "../../tools/seed/listings.ts";
import { quietLog } from "./database.ts";
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
  options: Pick<MarketplaceOptions, "interceptors"> & { going?: true } = {},
): Promise<TestMarketplace> {
  const keys = await temporaryKeys();
  const clock = options.going ? goingClock() : manualClock();
  const marketplace = await openMarketplace({
    dataDir: undefined,
    keys,
    clock,
    log: quietLog,
    baseUrl: () => "http://localhost:8080",
    ...(options.interceptors === undefined ? {} : { interceptors: options.interceptors }),
  });
  await marketplace.start();
  return {
    ...marketplace,
    keys,
    clock,
    as: (who, service, module) =>
      createClient(
        service,
        marketplace.directory.transport(service, module, [signedIn(keys, typeof who === "string" ? demo(who) : who)]),
      ),
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
