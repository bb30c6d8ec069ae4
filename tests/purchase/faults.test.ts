import assert from "node:assert/strict";
import { OrderState } from "#gen/marketplace/order/v1/order_pb.ts";
import { reasonOf } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { openShop, requestFor, type Shop } from "../order/shop.ts";

/** What a purchase calls, in order, with each token; reads first. */
const purchase = ["batchGetListings", "getAddress", "reserve", "authorizePayment", "capturePayment", "commitReservation"];

describe("A purchase of which one call fails once", () => {
  let shop: Shop;
  before(async () => {
    shop = await openShop();
  });
  beforeEach(() => {
    shop.newcomers();
    shop.faults.length = 0;
  });
  after(() => shop.close());

  const buyer = () => shop.as({ account: shop.buyer });
  const seller = () => shop.as({ account: shop.seller });

  /** As a client does: repeats what may be repeated, under the same request_id. */
  async function insist<T>(call: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await call();
      } catch (error) {
        if (attempt === 5 || !["UNAVAILABLE", "DEADLINE_EXCEEDED"].includes(reasonOf(error) ?? "")) {
          throw error;
        }
      }
    }
  }

  async function placed(token = "tok_approved") {
    const request = requestFor(shop, [await shop.offer({ units: 2 })], { token });
    const { order } = await insist(() => buyer().placeOrder(request));
    assert.ok(order);
    return order;
  }

  async function booksBalance() {
    await shop.settle();
    const { findings, escrow, expected, inMotion } = await shop.books();
    assert.deepEqual(findings, []);
    assert.deepEqual(escrow, expected);
    assert.equal(inMotion, 0);
  }

  for (const when of ["before", "after"] as const) {
    const lost = when === "before" ? "never arrives" : "has its answer lost";

    for (const method of purchase) {
      it(`is paid when ${method} ${lost}`, async () => {
        shop.faults.push({ method, when });
        const order = await placed();
        assert.equal(order.state, OrderState.PAID);
        assert.equal((await shop.events(order.orderId)).length, 2);
        assert.equal((await buyer().listOrders({})).orders.length, 1);
        await booksBalance();
      });
    }

    it(`is paid when confirmPayment ${lost}`, async () => {
      const { orderId, confirmationUrl } = await placed("tok_needs_confirmation");
      shop.simulator.decide(confirmationUrl.split("/").at(-1) ?? "", true);
      shop.faults.push({ method: "confirmPayment", when });
      const requestId = newId();
      const { order } = await insist(() => buyer().continueOrder({ requestId, orderId }));
      assert.equal(order?.state, OrderState.PAID);
      await booksBalance();
    });

    it(`is completed when releaseEscrow ${lost}`, async () => {
      const { orderId } = await placed();
      await seller().shipOrder({ requestId: newId(), orderId, carrier: "Pigeon" });
      shop.faults.push({ method: "releaseEscrow", when });
      const { order } = await buyer().confirmOrder({ requestId: newId(), orderId, rating: { stars: 5 } });
      assert.ok(order?.state === OrderState.COMPLETING || order?.state === OrderState.COMPLETED);
      await booksBalance();
      assert.equal((await buyer().getOrder({ orderId })).order?.state, OrderState.COMPLETED);
    });

    for (const method of ["voidPayment", "refundPayment", "releaseReservation"]) {
      it(`is refunded when it is cancelled and ${method} ${lost}`, async () => {
        const { orderId } = await placed();
        shop.faults.push({ method, when });
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
        shop.faults.push({ method, when });
        await assert.rejects(placed("tok_capture_expired"), (error) => reasonOf(error) === "PAYMENT_DECLINED");
        await booksBalance();
      });
    }

    it(`keeps nothing when its authorization is declined and authorizePayment ${lost}`, async () => {
      shop.faults.push({ method: "authorizePayment", when });
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
    shop.faults.push(
      ...purchase.slice(2).flatMap((method) => [
        { method, when: "before" as const },
        { method, when: "after" as const },
      ]),
    );
    assert.equal((await placed()).state, OrderState.PAID);
    await booksBalance();
  });
});
