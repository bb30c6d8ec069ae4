import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { createClient } from "@connectrpc/connect";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { CatalogService, Condition } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { OrderService } from "#gen/marketplace/order/v1/order_pb.ts";
import { newId } from "#runtime/ids.ts";
import { openPeers, type Peers } from "#runtime/peers.ts";
import { type Fleet, startFleet } from "../support/processes.ts";
import { type Identity, signedIn } from "../support/server.ts";

/** 20 with `npm run prove`. */
const ROUNDS = Math.min(20, Number(process.env.SOUK_PROOF_ROUNDS ?? 1));
const READERS = 8;
const SELLERS = 2;
const BUYERS = 2;
const UNITS = 10_000;
const PRICE = { currencyCode: "USD", amountMinor: 1250n };

/** The first calls the two others, each of which is ended and started again in turn. */
const PROCESSES = [
  ["order", "payment", "search", "ops"],
  ["catalog", "account", "inventory"],
  ["catalog", "account", "inventory"],
];
const ROLLING = [1, 2];

describe("A rolling restart of two processes under load", function () {
  this.timeout(180_000 + ROUNDS * 60_000);
  let fleet: Fleet;
  let peers: Peers;
  before(async () => {
    fleet = await startFleet({ processes: PROCESSES });
    peers = openPeers({ urlOf: () => ROLLING.map((index) => fleet.urls[index]).join(" ") });
  });
  after(async () => {
    peers?.close();
    await fleet?.stop();
  });

  const seller = newId();
  const buyer = newId();
  const catalogOf = (identity: Identity) => createClient(CatalogService, peers.open("catalog", [signedIn(fleet.keys, identity)]));
  const lamp = (units: number) => ({
    requestId: newId(),
    publish: true,
    listing: { title: "Lamp", categoryId: "lamps", condition: Condition.GOOD, price: PRICE, units },
  });

  /** What is called over and over: directly, and through the process that stays. */
  async function load(): Promise<Readonly<Record<string, { workers: number; call(): Promise<unknown> }>>> {
    const { listing } = await catalogOf({ account: seller }).createListing(lamp(UNITS));
    const listingId = listing?.listingId ?? "";
    const place = { recipient: "Ben", lines: ["1 Long Road"], city: "Springfield", postalCode: "97477", countryCode: "US" };
    const accounts = fleet.client(AccountService, { account: buyer }, "account");
    const { address } = await accounts.createAddress({ requestId: newId(), ...place });
    const addressId = address?.addressId ?? "";
    const catalog = catalogOf(undefined);
    const selling = catalogOf({ account: seller });
    const orders = fleet.client(OrderService, { account: buyer }, 0);
    const purchase = { addressId, paymentMethodToken: "tok_approved", lines: [{ listingId, unitPrice: PRICE }] };
    return {
      reads: { workers: READERS, call: () => catalog.getListing({ listingId }) },
      listings: { workers: SELLERS, call: () => selling.createListing(lamp(1)) },
      purchases: { workers: BUYERS, call: () => orders.placeOrder({ requestId: newId(), ...purchase }) },
    };
  }

  it("fails no call of those who call them, directly or through another process, and ends none of them badly", async () => {
    const kinds = await load();
    const failures: string[] = [];
    const counts: Record<string, number> = {};
    let over = false;
    const working = Object.entries(kinds).flatMap(([kind, { workers, call }]) =>
      Array.from({ length: workers }, async () => {
        while (!over) {
          await call().catch((error: unknown) => failures.push(`${kind}: ${error} ${(error as Error).cause ?? ""}`));
          counts[kind] = (counts[kind] ?? 0) + 1;
          await sleep(2);
        }
      }),
    );
    const codes: (number | null)[] = [];
    try {
      for (let round = 0; round < ROUNDS; round++) {
        for (const index of ROLLING) {
          codes.push(await fleet.kill(index, "SIGTERM"));
          await fleet.restart(index);
          await sleep(200);
        }
      }
    } finally {
      over = true;
      await Promise.all(working);
    }
    const { calls, sent, retried, resent } = peers.attempts();
    console.log(
      `      ${ROUNDS} restarts of each: ${JSON.stringify(counts)}; ${calls} direct calls, ${sent} attempts, ${retried} after a failure, ${resent} that none had begun`,
    );
    assert.equal(failures.length, 0, `${failures.length} failed, such as ${[...new Set(failures)].slice(0, 5).join("\n")}`);
    assert.deepEqual([...new Set(codes)], [0]);
    for (const index of PROCESSES.keys()) assert.doesNotMatch(fleet.output(index), /uncaught|unhandled/i);
    for (const kind of Object.keys(kinds)) assert.ok((counts[kind] ?? 0) > ROUNDS * 10, `${kind}: ${counts[kind]}`);
  });
});
