import assert from "node:assert/strict";
import { Code, ConnectError, type Interceptor } from "@connectrpc/connect";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { CatalogService, Condition } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { OpsService } from "#gen/marketplace/ops/v1/ops_pb.ts";
import { OrderService, OrderState } from "#gen/marketplace/order/v1/order_pb.ts";
import { fail, reasonOf, UNAVAILABLE } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { type TestMarketplace, testMarketplace } from "../support/marketplace.ts";

/** What a purchase calls, in order, with each token; reads first. */
const purchase = ["batchGetListings", "getAddress", "reserve", "authorizePayment", "capturePayment", "commitReservation"];

/** What happens to the next calls of the order service to this method: lost before they take effect, or their answers lost after. */
interface Fault {
  readonly method: string;
  readonly when: "before" | "after";
  times?: number;
}

const price = { currencyCode: "USD", amountMinor: 1250n };

describe("A purchase of which one call fails once", () => {
  const faults: Fault[] = [];
  let market: TestMarketplace;
  let sellerId = "";
  let buyerId = "";

  before(async () => {
    market = await testMarketplace({ going: true, interceptors: (service) => (service === "order" ? [losing(faults)] : []) });
  });
  beforeEach(() => {
    sellerId = newId();
    buyerId = newId();
    faults.length = 0;
  });
  after(() => market.stop());

  const buyer = () => market.as({ account: buyerId }, OrderService);
  const seller = () => market.as({ account: sellerId }, OrderService);

  /** As a client does: repeats what may be repeated, under the same request_id. */
  async function insist<T>(call: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await call();
      } catch (error) {
        if (attempt === 5 || !["UNAVAILABLE", "DEPENDENCY_UNAVAILABLE", "DEADLINE_EXCEEDED"].includes(reasonOf(error) ?? "")) {
          throw error;
        }
      }
    }
  }

  /** A seller's new listing of two units, bought by a new buyer. */
  async function placed(token = "tok_approved") {
    const { listing } = await market.as({ account: sellerId }, CatalogService).createListing({
      requestId: newId(),
      publish: true,
      listing: { title: "Seven iron", categoryId: "golf-clubs", condition: Condition.GOOD, price, units: 2 },
    });
    const { address } = await market.as({ account: buyerId }, AccountService).createAddress({
      requestId: newId(),
      recipient: "Ben",
      lines: ["1 Long Road"],
      city: "Springfield",
      postalCode: "97477",
      countryCode: "US",
    });
    const request = {
      requestId: newId(),
      lines: [{ listingId: listing?.listingId ?? "", unitPrice: price }],
      addressId: address?.addressId ?? "",
      paymentMethodToken: token,
    };
    const { order } = await insist(() => buyer().placeOrder(request));
    assert.ok(order);
    return order;
  }

  /** The buyer says yes on the processor's page. */
  async function confirmPayment(url: string) {
    const door = market.modules.flatMap(({ doors = [] }) => doors).find(({ method }) => method === "POST");
    const answer = await door?.handle(new Request(`${url}/confirm`, { method: "POST" }));
    assert.equal(answer?.status, 200);
  }

  /** Waits until no order is in motion, and looks at all books. Every fault has struck by then. */
  async function booksBalance() {
    const ops = market.as({ service: "ops" }, OrderService);
    for (const end = Date.now() + 8_000; ; ) {
      await market.settle();
      if ((await ops.getEscrowTotals({})).ordersInMotion === 0) break;
      assert.ok(Date.now() < end, "an order does not come to rest");
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    assert.deepEqual(
      faults.filter(({ times }) => times !== 0),
      [],
      "every fault has struck",
    );
    const { checks, balanced } = await market.as("olga", OpsService).checkBooks({});
    assert.deepEqual(
      checks.flatMap((check) => check.findings),
      [],
    );
    assert.ok(balanced);
  }

  async function eventsOf(orderId: string) {
    const database = market.modules.find(({ name }) => name === "order")?.database;
    return database?.sql.selectFrom("outbox").select("position").where("aggregate_id", "=", orderId).execute();
  }

  for (const when of ["before", "after"] as const) {
    const lost = when === "before" ? "never arrives" : "has its answer lost";

    for (const method of purchase) {
      it(`is paid when ${method} ${lost}`, async () => {
        faults.push({ method, when });
        const order = await placed();
        assert.equal(order.state, OrderState.PAID);
        assert.equal((await eventsOf(order.orderId))?.length, 2);
        assert.equal((await buyer().listOrders({})).orders.length, 1);
        await booksBalance();
      });
    }

    it(`is paid when confirmPayment ${lost}`, async () => {
      const { orderId, confirmationUrl } = await placed("tok_needs_confirmation");
      await confirmPayment(confirmationUrl);
      faults.push({ method: "confirmPayment", when });
      const requestId = newId();
      const { order } = await insist(() => buyer().continueOrder({ requestId, orderId }));
      assert.equal(order?.state, OrderState.PAID);
      await booksBalance();
    });

    it(`is completed when releaseEscrow ${lost}`, async () => {
      const { orderId } = await placed();
      await seller().shipOrder({ requestId: newId(), orderId, carrier: "Pigeon" });
      faults.push({ method: "releaseEscrow", when });
      const { order } = await buyer().confirmOrder({ requestId: newId(), orderId, rating: { stars: 5 } });
      assert.ok(order?.state === OrderState.COMPLETING || order?.state === OrderState.COMPLETED);
      await booksBalance();
      assert.equal((await buyer().getOrder({ orderId })).order?.state, OrderState.COMPLETED);
    });

    for (const method of ["voidPayment", "refundPayment", "releaseReservation"]) {
      it(`is refunded when it is cancelled and ${method} ${lost}`, async () => {
        const { orderId } = await placed();
        faults.push({ method, when });
        const requestId = newId();
        const { order } = await buyer().cancelOrder({ requestId, orderId });
        assert.ok(order?.state === OrderState.CANCELLING || order?.state === OrderState.CANCELLED);
        await booksBalance();
        assert.equal((await buyer().getOrder({ orderId })).order?.state, OrderState.CANCELLED);
        assert.deepEqual((await buyer().cancelOrder({ requestId, orderId })).order, order);
      });
    }

    for (const method of ["voidPayment", "releaseReservation"]) {
      it(`keeps nothing when its capture is refused and ${method} ${lost}`, async () => {
        faults.push({ method, when });
        await assert.rejects(placed("tok_capture_expired"), (error) => reasonOf(error) === "PAYMENT_DECLINED");
        await booksBalance();
      });
    }

    it(`keeps nothing when its authorization is declined and authorizePayment ${lost}`, async () => {
      faults.push({ method: "authorizePayment", when });
      await assert.rejects(placed("tok_declined"), (error) => reasonOf(error) === "PAYMENT_DECLINED");
      await booksBalance();
    });
  }

  for (const token of [
    "tok_timeout_charged",
    "tok_timeout_not_charged",
    "tok_capture_timeout_charged",
    "tok_capture_timeout_not_charged",
  ]) {
    it(`is paid with ${token}: the processor is asked until its outcome is known`, async () => {
      assert.equal((await placed(token)).state, OrderState.PAID);
      await booksBalance();
    });
  }

  it("is paid when every call is lost once, before and after it took effect", async () => {
    faults.push(
      ...purchase.slice(2).flatMap((method) => [
        { method, when: "before" as const },
        { method, when: "after" as const },
      ]),
    );
    assert.equal((await placed()).state, OrderState.PAID);
    await booksBalance();
  });
});

/** Loses calls: before they are sent, or their answers. */
function losing(faults: Fault[]): Interceptor {
  return (next) => async (request) => {
    const fault = faults.find((each) => each.method === request.method.localName && (each.times ?? 1) > 0);
    if (fault !== undefined) {
      fault.times = (fault.times ?? 1) - 1;
    }
    if (fault?.when === "before") {
      fail(UNAVAILABLE);
    }
    const answer = await next(request);
    if (fault?.when === "after") {
      throw new ConnectError("the answer is lost", Code.DeadlineExceeded);
    }
    return answer;
  };
}
