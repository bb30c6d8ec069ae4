import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { CatalogService, Condition, ListingState } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { InventoryService } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import { OpsService } from "#gen/marketplace/ops/v1/ops_pb.ts";
import { OrderService, OrderState } from "#gen/marketplace/order/v1/order_pb.ts";
import { PaymentService } from "#gen/marketplace/payment/v1/payment_pb.ts";
import { SearchService } from "#gen/marketplace/search/v1/search_pb.ts";
import { newId } from "#runtime/ids.ts";
import { watchOrder } from "../../client/watch-order.ts";
import { type Fleet, startFleet } from "../support/processes.ts";
import { refused } from "../support/refused.ts";

const PRICE = { currencyCode: "USD", amountMinor: 1250n };

/** Waits for what events and jobs bring about by themselves. */
async function until<T>(look: () => Promise<T>, isThere: (found: T) => boolean): Promise<T> {
  for (const end = Date.now() + 20_000; ; await sleep(30)) {
    const found = await look();
    if (isThere(found)) return found;
    assert.ok(
      Date.now() < end,
      `it does not come: ${JSON.stringify(found, (_, value) => (typeof value === "bigint" ? String(value) : value))}`,
    );
  }
}

describe("a marketplace in several processes", function () {
  this.timeout(120_000);
  let fleet: Fleet;
  const seller = newId();
  const buyer = newId();
  before(async () => {
    fleet = await startFleet({
      processes: [
        ["catalog", "account"],
        ["inventory", "order"],
        ["inventory", "order"],
        ["payment", "search", "ops"],
      ],
    });
  });
  after(() => fleet?.stop());

  async function published(units: number): Promise<string> {
    const { listing } = await fleet.client(CatalogService, { account: seller }, "catalog").createListing({
      requestId: newId(),
      publish: true,
      listing: { title: "Seven iron", categoryId: "golf-clubs", condition: Condition.GOOD, price: PRICE, units },
    });
    return listing?.listingId ?? "";
  }

  async function addressOf(account: string): Promise<string> {
    const place = { recipient: "Ben", lines: ["1 Long Road"], city: "Springfield", postalCode: "97477", countryCode: "US" };
    const { address } = await fleet.client(AccountService, { account }, "account").createAddress({ requestId: newId(), ...place });
    return address?.addressId ?? "";
  }

  const place = async (
    listingId: string,
    addressId: string,
    where: string | number = "order",
    paymentMethodToken = "tok_approved",
  ) =>
    fleet
      .client(OrderService, { account: buyer }, where)
      .placeOrder({ requestId: newId(), lines: [{ listingId, unitPrice: PRICE }], addressId, paymentMethodToken });

  it("sells a listing from its publication to the seller's balance", async () => {
    const listingId = await published(1);
    const search = fleet.client(SearchService, undefined, "search");
    await until(
      () => search.searchListings({ query: "seven iron" }),
      ({ results }) => results.some((result) => result.listingId === listingId),
    );
    const { order } = await place(listingId, await addressOf(buyer));
    assert.equal(order?.state, OrderState.PAID);
    const orderId = order?.orderId ?? "";
    await fleet.client(OrderService, { account: seller }, 1).shipOrder({ requestId: newId(), orderId, carrier: "Pigeon" });
    await fleet.client(OrderService, { account: buyer }, 2).confirmOrder({ requestId: newId(), orderId, rating: { stars: 5 } });
    await until(
      () => fleet.client(OrderService, { account: buyer }, "order").getOrder({ orderId }),
      (found) => found.order?.state === OrderState.COMPLETED,
    );
    await until(
      () => search.searchListings({ query: "seven iron" }),
      ({ results }) => results.every((result) => result.listingId !== listingId),
    );
    const { listing } = await until(
      () => fleet.client(CatalogService, undefined, "catalog").getListing({ listingId }),
      (found) => found.listing?.state === ListingState.SOLD,
    );
    assert.equal(listing?.sellerId, seller);
    const { balances } = await fleet.client(PaymentService, { account: seller }, "payment").getBalance({});
    assert.ok((balances[0]?.available?.amountMinor ?? 0n) > 0n);
  });

  it("shows a watcher what another process changes, and goes on elsewhere when the process of the stream ends", async () => {
    const { order } = await place(await published(1), await addressOf(buyer));
    const orderId = order?.orderId ?? "";
    const watching = new AbortController();
    const { signal } = watching;
    const here = watchOrder(fleet.client(OrderService, { account: buyer }, 1), orderId, { signal });
    const anywhere = watchOrder(fleet.client(OrderService, { account: seller }, "order"), orderId, { signal });
    const next = async (orders: typeof here) => (await orders.next()).value?.state;
    assert.deepEqual([await next(here), await next(anywhere)], [OrderState.PAID, OrderState.PAID]);
    await fleet.client(OrderService, { account: seller }, 2).shipOrder({ requestId: newId(), orderId, carrier: "Pigeon" });
    assert.deepEqual([await next(here), await next(anywhere)], [OrderState.SHIPPED, OrderState.SHIPPED]);
    const seen: (OrderState | undefined)[] = [];
    const watched = (async () => {
      for await (const { state } of anywhere) seen.push(state);
    })();
    for (const [ended, other] of [
      [2, 1],
      [1, 2],
    ] as const) {
      assert.equal(await fleet.kill(ended, "SIGTERM"), 0);
      if (ended === 1) {
        const rating = { stars: 5 };
        await fleet.client(OrderService, { account: buyer }, other).confirmOrder({ requestId: newId(), orderId, rating });
        await watched;
      }
      await fleet.restart(ended);
    }
    assert.equal(seen.at(-1), OrderState.COMPLETED);
    assert.equal(new Set(seen).size, seen.length);
    watching.abort();
  });

  it("tells the caller of one service the reason that another gave", async () => {
    const listingId = await published(1);
    const addressId = await addressOf(buyer);
    await refused(place(listingId, addressId, "order", "tok_declined"), "PAYMENT_DECLINED");
    await refused(place(listingId, newId()), "ADDRESS_NOT_FOUND");
    assert.equal((await place(listingId, addressId)).order?.state, OrderState.PAID);
  });

  it("reserves on one process what was released on another the call before", async () => {
    const listingId = await published(1);
    const at = (index: number) => fleet.client(InventoryService, { service: "order" }, index);
    const reserve = (index: number) => {
      const reservationId = newId();
      const expireTime = timestampFromMs(Date.now() + 60_000);
      return at(index).reserve({ requestId: newId(), reservationId, lines: [{ listingId, units: 1 }], expireTime });
    };
    for (let round = 0; round < 6; round++) {
      const [here, there] = round % 2 === 0 ? ([1, 2] as const) : ([2, 1] as const);
      const { reservation } = await reserve(here);
      await refused(reserve(there), "OUT_OF_STOCK");
      await at(there).releaseReservation({ requestId: newId(), reservationId: reservation?.reservationId ?? "" });
    }
  });

  it("answers the operator about every service, wherever it runs", async () => {
    const ops = fleet.client(OpsService, { account: newId(), operator: true }, "ops");
    for (const service of ["account", "catalog", "inventory", "order", "payment", "search"]) {
      assert.deepEqual((await ops.listDeadLetters({ service })).deadLetters, [], service);
      assert.ok((await ops.listJobs({ service })).jobs.every(({ kind }) => kind !== ""));
    }
    await refused(ops.listJobs({ service: "ops" }), "SERVICE_UNKNOWN");
    const { checks, balanced } = await until(
      () => ops.checkBooks({}),
      (found) => found.balanced,
    );
    assert.ok(balanced, JSON.stringify(checks.flatMap(({ findings }) => findings)));
  });

  it("goes on while a process is ended and started again", async () => {
    const listingId = await published(60);
    const addressId = await addressOf(buyer);
    let ending = true;
    let bought = 0;
    const buying = async () => {
      for (; ending || bought < 5; bought++) assert.equal((await place(listingId, addressId)).order?.state, OrderState.PAID);
    };
    const buyers = [buying(), buying()];
    assert.equal(await fleet.kill(2, "SIGTERM"), 0);
    for (const before = bought; bought < before + 3; await sleep(10));
    await fleet.restart(2);
    ending = false;
    await Promise.all(buyers);
    assert.equal((await place(listingId, addressId, 2)).order?.state, OrderState.PAID);
  });
});
