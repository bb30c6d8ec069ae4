import assert from "node:assert/strict";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { DescService } from "@bufbuild/protobuf";
import { type Client, createClient } from "@connectrpc/connect";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { CatalogService, Condition } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { InventoryService } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import { OpsService } from "#gen/marketplace/ops/v1/ops_pb.ts";
import { type Order, OrderService, OrderState } from "#gen/marketplace/order/v1/order_pb.ts";
import { newId } from "#runtime/ids.ts";
import { type Keys, loadOrCreateKeys } from "#runtime/tokens.ts";
import { temporaryFolder } from "../support/database.ts";
import { type StartedMarketplace, startMarketplace } from "../support/process.ts";
import { type Identity, signedIn, transportOf } from "../support/server.ts";
import { type Offer, type Reach, Shopper } from "./shoppers.ts";

const ROUNDS = 5;
const SHOPPERS = 6;
const UNITS = 900;
/** Longer than any lease: so much ahead of its predecessor's is each process's clock. */
const AHEAD_MS = 31_000;

describe("A marketplace that is killed in the middle of purchases", function () {
  this.timeout(90_000);
  const folder = temporaryFolder();
  const dataDir = join(folder.path, "data");
  let keys: Keys;
  let process: StartedMarketplace | undefined;
  after(async () => {
    await process?.kill();
    folder.remove();
  });

  async function start(round: number): Promise<StartedMarketplace> {
    const args = [String(round * AHEAD_MS), "--port", "0", "--data-dir", dataDir];
    process = await startMarketplace(args, { SOUK_LOG_LEVEL: "fatal" }, "tests/crash/clock-ahead.ts");
    keys = await loadOrCreateKeys(join(dataDir, "keys"));
    return process;
  }

  const as = <S extends DescService>(url: string, who: Identity, service: S): Client<S> =>
    createClient(service, transportOf("Connect protobuf", url, [signedIn(keys, who)], "1.1"));

  const reachAt =
    (url: string): Reach =>
    (account) =>
      as(url, { account }, OrderService);

  async function offerAt(url: string): Promise<Offer> {
    const sellerId = newId();
    const price = { currencyCode: "USD", amountMinor: 1250n };
    const { listing } = await as(url, { account: sellerId }, CatalogService).createListing({
      requestId: newId(),
      publish: true,
      listing: { title: "Seven iron", categoryId: "golf-clubs", condition: Condition.GOOD, price, units: UNITS },
    });
    return { sellerId, listingId: listing?.listingId ?? "", unitPrice: price };
  }

  async function shopperAt(url: string, offer: Offer): Promise<Shopper> {
    const buyerId = newId();
    const place = { recipient: "Ben", lines: ["1 Long Road"], city: "Springfield", postalCode: "97477", countryCode: "US" };
    const { address } = await as(url, { account: buyerId }, AccountService).createAddress({ requestId: newId(), ...place });
    return new Shopper(buyerId, address?.addressId ?? "", offer);
  }

  async function atRest(url: string): Promise<void> {
    const ops = as(url, { service: "ops" }, OrderService);
    for (const end = Date.now() + 15_000; (await ops.getEscrowTotals({})).ordersInMotion > 0; await sleep(50)) {
      assert.ok(Date.now() < end, "an order is in motion still");
    }
  }

  async function ordersOf(url: string, account: string): Promise<Order[]> {
    const orders: Order[] = [];
    let pageToken = "";
    do {
      const page = await as(url, { account }, OrderService).listOrders({ pageSize: 100, pageToken });
      orders.push(...page.orders);
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
    return orders;
  }

  it("has every order that it acknowledged, finishes or takes back every other, and its books are right", async () => {
    const first = await start(0);
    const offer = await offerAt(first.url);
    const shoppers = await Promise.all(Array.from({ length: SHOPPERS }, () => shopperAt(first.url, offer)));
    for (let round = 0; round < ROUNDS; round++) {
      const running = round === 0 ? first : await start(round);
      const shopping = shoppers.map((shopper) => shopper.shop(reachAt(running.url)));
      await sleep(200 + Math.random() * 600);
      await running.kill();
      await Promise.all(shopping);
    }

    const { url } = await start(ROUNDS);
    for (const shopper of shoppers) assert.ok(await shopper.finish(reachAt(url)), "a repeat is answered");
    await atRest(url);

    let paid = 0;
    for (const { buyerId, acknowledged, odd } of shoppers) {
      assert.deepEqual(odd, []);
      const orders = new Map((await ordersOf(url, buyerId)).map((order) => [order.orderId, order]));
      for (const [orderId, state] of acknowledged) assert.equal(settled(orders.get(orderId)?.state), settled(state), orderId);
      for (const { orderId, state } of orders.values()) {
        assert.ok(acknowledged.has(orderId) || state === OrderState.CANCELLED, `nobody was told of ${orderId}`);
      }
      paid += acknowledged.size;
    }
    assert.ok(paid >= ROUNDS, `only ${paid} orders were paid`);
    const { stock } = await as(url, undefined, InventoryService).getAvailability({ listingId: offer.listingId });
    assert.deepEqual([stock?.availableUnits, stock?.reservedUnits], [UNITS - paid, 0]);
    const { checks, balanced } = await as(url, { account: newId(), operator: true }, OpsService).checkBooks({});
    assert.deepEqual(
      checks.flatMap((check) => check.findings),
      [],
    );
    assert.ok(balanced);
  });
});

/** The state once what is under way is over. */
function settled(state: OrderState | undefined): OrderState | undefined {
  if (state === OrderState.CANCELLING) return OrderState.CANCELLED;
  return state === OrderState.COMPLETING ? OrderState.COMPLETED : state;
}
