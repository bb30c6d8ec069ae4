import assert from "node:assert/strict";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { CatalogService, Condition } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { OpsService } from "#gen/marketplace/ops/v1/ops_pb.ts";
import { OrderService, OrderState } from "#gen/marketplace/order/v1/order_pb.ts";
import { reasonOf, retryAfterMsOf } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { testStore } from "../support/database.ts";
import { type TestMarketplace, testMarketplace } from "../support/marketplace.ts";

/** More than are let in at once. A purchase on MariaDB is some dozens of round trips, and its time is PlaceOrder's. */
const BUYERS = testStore === "sqlite" ? 260 : 120;
const price = { currencyCode: "USD", amountMinor: 1250n };

describe("Many purchases at the same moment in one process", function () {
  this.timeout(60_000);
  let market: TestMarketplace;
  before(async () => {
    market = await testMarketplace({ going: true });
  });
  after(() => market.stop());

  async function offer(units: number): Promise<string> {
    const { listing } = await market.as({ account: newId() }, CatalogService).createListing({
      requestId: newId(),
      publish: true,
      listing: { title: "Seven iron", categoryId: "golf-clubs", condition: Condition.GOOD, price, units },
    });
    return listing?.listingId ?? "";
  }

  /** Gives what places an order of a new buyer. */
  async function readyToBuy(listingId: string) {
    const buyer = { account: newId() };
    const home = { recipient: "Ben", lines: ["1 Long Road"], city: "Springfield", postalCode: "97477", countryCode: "US" };
    const { address } = await market.as(buyer, AccountService).createAddress({ requestId: newId(), ...home });
    const request = {
      requestId: newId(),
      lines: [{ listingId, unitPrice: price }],
      addressId: address?.addressId ?? "",
      paymentMethodToken: "tok_approved",
    };
    const place = () => market.as(buyer, OrderService).placeOrder(request);
    // A purchase that outlasts the call goes on, and a repeat gets its outcome. On a busy machine that happens.
    return () => place().catch((error: unknown) => (reasonOf(error) === "DEADLINE_EXCEEDED" ? place() : Promise.reject(error)));
  }

  /** Places an order for each of so many buyers at once. Gives how many were paid, and each refusal. */
  async function rush(listingId: string, buyers: number) {
    const ready = await Promise.all(Array.from({ length: buyers }, () => readyToBuy(listingId)));
    const outcomes = await Promise.allSettled(ready.map((place) => place()));
    const refusals = outcomes.flatMap((outcome) => (outcome.status === "rejected" ? [outcome.reason] : []));
    const orders = outcomes.flatMap((outcome) => (outcome.status === "fulfilled" ? [outcome.value.order] : []));
    assert.ok(orders.every((order) => order?.state === OrderState.PAID));
    return { paid: orders.length, refusals };
  }

  async function assertBalanced() {
    await market.settle();
    const { checks } = await market.as("olga", OpsService).checkBooks({});
    assert.deepEqual(
      checks.flatMap((check) => check.findings),
      [],
    );
  }

  it("are paid or refused with OVERLOADED and a time to wait, and the process goes on hearing of other things", async () => {
    const listingId = await offer(BUYERS);
    let turns = 0;
    const other = setInterval(() => turns++, 1);
    const { paid, refusals } = await rush(listingId, BUYERS);
    clearInterval(other);
    assert.deepEqual(
      [...new Set(refusals.map(reasonOf))].filter((reason) => reason !== "OVERLOADED"),
      [],
    );
    assert.ok(refusals.every((error) => (retryAfterMsOf(error) ?? 0) > 0));
    assert.ok(paid >= 32, `${paid} were paid`);
    assert.ok(turns >= 8, `the event loop turned ${turns} times`);
    await assertBalanced();
  });

  it("of one unit give it to one buyer, and tell every other that it is gone", async () => {
    const { paid, refusals } = await rush(await offer(1), 40);
    assert.equal(paid, 1);
    const allowed = ["OUT_OF_STOCK", "LISTING_NOT_AVAILABLE", "OVERLOADED"];
    assert.deepEqual(
      refusals.map(reasonOf).filter((reason) => !allowed.includes(reason ?? "")),
      [],
    );
    await assertBalanced();
  });
});
