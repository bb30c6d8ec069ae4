import assert from "node:assert/strict";
import { ListingState } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { OrderRole, OrderState } from "#gen/marketplace/order/v1/order_pb.ts";
import { newId } from "#runtime/ids.ts";
import { carriers } from "../support/server.ts";
import { openShop, refused, requestFor, type Shop } from "./shop.ts";

for (const carrier of carriers)
  describe(`Of two things that happen to an order at once (${carrier})`, () => {
    let shop: Shop;
    before(async () => {
      shop = await openShop(carrier);
    });
    beforeEach(() => shop.newcomers());
    after(() => shop.close());

    const buyer = () => shop.as({ account: shop.buyer });
    const seller = () => shop.as({ account: shop.seller });
    const place = async (token = "tok_approved") => {
      const { order } = await buyer().placeOrder(requestFor(shop, [await shop.offer()], { token }));
      assert.ok(order);
      return order;
    };
    const stateOf = async (orderId: string) => (await buyer().getOrder({ orderId })).order?.state;
    const booksAreRight = async () => {
      // A refusal is answered before its undos have run.
      await shop.settle();
      const { findings, escrow, expected, inMotion } = await shop.books();
      assert.deepEqual([findings, escrow, inMotion], [[], expected, 0]);
    };

    it("cancelling and shipping exclude each other", async () => {
      for (let i = 0; i < 5; i++) {
        const { orderId } = await place();
        const [cancelled, shipped] = await Promise.allSettled([
          buyer().cancelOrder({ requestId: newId(), orderId }),
          seller().shipOrder({ requestId: newId(), orderId, carrier: "Pigeon" }),
        ]);
        assert.notEqual(cancelled.status, shipped.status);
        assert.equal(await stateOf(orderId), cancelled.status === "fulfilled" ? OrderState.CANCELLED : OrderState.SHIPPED);
      }
      await booksAreRight();
    });

    it("a confirmed order completes once, whoever confirms and whatever the time", async () => {
      const { orderId } = await place();
      await seller().shipOrder({ requestId: newId(), orderId, carrier: "Pigeon" });
      const rating = { stars: 4 };
      const confirmed = await Promise.allSettled([
        ...Array.from({ length: 5 }, () => buyer().confirmOrder({ requestId: newId(), orderId, rating })),
        shop.pass(14 * 24 * 3600_000),
      ]);
      assert.ok(confirmed.slice(0, 5).filter(({ status }) => status === "fulfilled").length <= 1);
      assert.equal(await stateOf(orderId), OrderState.COMPLETED);
      const completed = (await shop.events(orderId)).filter(({ type }) => type === "OrderCompleted");
      assert.equal(completed.length, 1);
      await booksAreRight();
    });

    it("continuing and running out of time exclude each other", async () => {
      for (let i = 0; i < 3; i++) {
        const { orderId, confirmationUrl } = await place("tok_needs_confirmation");
        shop.simulator.decide(confirmationUrl.split("/").at(-1) ?? "", true);
        const [continued] = await Promise.allSettled([
          buyer().continueOrder({ requestId: newId(), orderId }),
          shop.pass(15 * 60_000),
        ]);
        await shop.settle();
        assert.equal(await stateOf(orderId), continued.status === "fulfilled" ? OrderState.PAID : OrderState.CANCELLED);
      }
      await booksAreRight();
    });

    for (const method of ["reserve", "authorizePayment", "capturePayment", "commitReservation"]) {
      it(`cancelling wins over a purchase that is about to call ${method}: nothing is kept of it`, async () => {
        shop.before.set(method, async () => {
          const [order] = (await buyer().listOrders({})).orders;
          const answer = await buyer().cancelOrder({ requestId: newId(), orderId: order?.orderId ?? "" });
          assert.equal(answer.order?.state, OrderState.CANCELLED);
        });
        await refused(place(), "ORDER_STATE_CONFLICT");
        const [order] = (await buyer().listOrders({})).orders;
        assert.equal(order?.cancelReason, "BUYER_CANCELLED");
        await booksAreRight();
      });
    }

    it("a purchase that is slower than its reservation is refunded", async () => {
      shop.before.set("commitReservation", () => {
        shop.clock.advance(31 * 60_000);
        return Promise.resolve();
      });
      await refused(place(), "RESERVATION_EXPIRED");
      await booksAreRight();
    });

    it("a capture does not begin when the reservation is about to run out", async () => {
      shop.before.set("authorizePayment", () => {
        shop.clock.advance(29 * 60_000 + 1_000);
        return Promise.resolve();
      });
      await refused(place(), "RESERVATION_EXPIRED");
      assert.ok(!shop.calls.includes("capturePayment"));
      await booksAreRight();
    });

    it("a call whose time runs out leaves the purchase going; a repeat gets its outcome", async () => {
      const request = requestFor(shop, [await shop.offer()]);
      const { promise, resolve } = Promise.withResolvers<void>();
      shop.before.set("capturePayment", () => promise);
      await refused(buyer().placeOrder(request, { timeoutMs: 800 }), "DEADLINE_EXCEEDED");
      const repeat = buyer().placeOrder(request);
      resolve();
      const { order } = await repeat;
      assert.equal(order?.state, OrderState.PAID);
      assert.equal(shop.calls.filter((call) => call === "capturePayment").length, 1);
      await booksAreRight();
    });

    it("a purchase whose process dies at its first call is finished by another, and the repeat gets its answer", async () => {
      const request = requestFor(shop, [await shop.offer()]);
      // A process that hangs is as good as dead: its lease runs out, and when it wakes up it may not write any more.
      const { promise, resolve } = Promise.withResolvers<void>();
      shop.before.set("reserve", () => promise);
      await refused(buyer().placeOrder(request, { timeoutMs: 300 }), "DEADLINE_EXCEEDED");
      await shop.pass(31_000);
      const { order } = await buyer().placeOrder(request);
      assert.equal(order?.state, OrderState.PAID);
      resolve();
      await shop.module.stop?.();
      assert.equal((await shop.events(order.orderId)).length, 2);
      await booksAreRight();
    });

    it("a repeat that sees the listing gone, because the first try took it, gets the first try's answer", async () => {
      const listing = await shop.offer();
      const request = requestFor(shop, [listing]);
      let first: unknown;
      shop.before.set("batchGetListings", async () => {
        first = await buyer().placeOrder(request);
        shop.list({ ...listing, state: ListingState.SOLD });
      });
      assert.deepEqual(await buyer().placeOrder(request), first);
    });

    it("a cancellation that the processor keeps waiting is answered as CANCELLING, to a repeat too, and ends later", async () => {
      const { orderId } = await place();
      shop.faults.push({ method: "voidPayment", when: "before", times: 4 });
      const requestId = newId();
      const { order } = await buyer().cancelOrder({ requestId, orderId });
      assert.equal(order?.state, OrderState.CANCELLING);
      await shop.settle();
      assert.equal(await stateOf(orderId), OrderState.CANCELLED);
      assert.deepEqual((await buyer().cancelOrder({ requestId, orderId })).order, order);
      await booksAreRight();
    });

    it("a repeat that sees the listing reserved, because the first try is under way, waits for the first try's answer", async () => {
      const listing = await shop.offer();
      const request = requestFor(shop, [listing]);
      const { promise: captured, resolve: capture } = Promise.withResolvers<void>();
      const { promise: reserved, resolve: reserve } = Promise.withResolvers<void>();
      shop.before.set("capturePayment", () => {
        reserve();
        return captured;
      });
      const first = buyer().placeOrder(request);
      await reserved;
      shop.list({ ...listing, state: ListingState.RESERVED });
      const repeat = buyer().placeOrder(request);
      repeat.catch(() => {});
      setTimeout(capture, 100);
      assert.equal((await first).order?.state, OrderState.PAID);
      assert.deepEqual(await repeat, await first);
    });

    it("who waits beside who placed the order is answered with it, too", async () => {
      const request = requestFor(shop, [await shop.offer()]);
      const { promise: captured, resolve: capture } = Promise.withResolvers<void>();
      const { promise: reserved, resolve: reserve } = Promise.withResolvers<void>();
      shop.before.set("capturePayment", () => {
        reserve();
        return captured;
      });
      const placing = buyer().placeOrder(request);
      await reserved;
      const orderId = (await buyer().listOrders({ role: OrderRole.BUYER })).orders[0]?.orderId ?? "";
      const continuing = [1, 2].map(() => buyer().continueOrder({ requestId: newId(), orderId }));
      setTimeout(capture, 100);
      const placed = await placing;
      assert.equal(placed.order?.state, OrderState.PAID);
      for (const each of continuing) assert.deepEqual((await each).order, placed.order);
      assert.deepEqual(await buyer().placeOrder(request), placed);
      await booksAreRight();
    });

    it("who cancels a purchase under way is answered, and who placed it is refused", async () => {
      const request = requestFor(shop, [await shop.offer()]);
      let cancelled: unknown;
      shop.before.set("capturePayment", async () => {
        const orderId = (await buyer().listOrders({ role: OrderRole.BUYER })).orders[0]?.orderId ?? "";
        cancelled = (await buyer().cancelOrder({ requestId: newId(), orderId })).order?.state;
      });
      await refused(buyer().placeOrder(request), "ORDER_STATE_CONFLICT");
      assert.equal(cancelled, OrderState.CANCELLED);
      await refused(buyer().placeOrder(request), "ORDER_STATE_CONFLICT");
      await booksAreRight();
    });

    it("a cancellation whose time runs out is answered as CANCELLING, to a repeat too, and ends later", async () => {
      const { orderId } = await place();
      const { promise, resolve } = Promise.withResolvers<void>();
      shop.before.set("voidPayment", () => promise);
      const requestId = newId();
      const { order } = await buyer().cancelOrder({ requestId, orderId }, { timeoutMs: 900 });
      assert.equal(order?.state, OrderState.CANCELLING);
      resolve();
      await shop.settle();
      assert.equal(await stateOf(orderId), OrderState.CANCELLED);
      assert.deepEqual((await buyer().cancelOrder({ requestId, orderId })).order, order);
      await booksAreRight();
    });

    it("a buyer who confirmed while another call was asking is not answered with what that call heard before", async () => {
      const { orderId, confirmationUrl } = await place("tok_needs_confirmation");
      const asked = Promise.withResolvers<void>();
      const answered = Promise.withResolvers<void>();
      shop.after.set("confirmPayment", () => {
        asked.resolve();
        return answered.promise;
      });
      const early = buyer().continueOrder({ requestId: newId(), orderId });
      await asked.promise;
      shop.simulator.decide(confirmationUrl.split("/").at(-1) ?? "", true);
      const late = buyer().continueOrder({ requestId: newId(), orderId });
      setTimeout(answered.resolve, 100);
      assert.equal((await early).order?.state, OrderState.AWAITING_CONFIRMATION);
      assert.equal((await late).order?.state, OrderState.PAID);
      await booksAreRight();
    });
  });
