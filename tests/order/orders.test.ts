import assert from "node:assert/strict";
import { clone } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { ListingSchema, ListingState } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { InventoryService } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import { OrderRole, OrderState } from "#gen/marketplace/order/v1/order_pb.ts";
import { PaymentService } from "#gen/marketplace/payment/v1/payment_pb.ts";
import { metadataOf } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { carriers } from "../support/server.ts";
import { openShop, refused, requestFor, type Shop } from "./shop.ts";

const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;

for (const carrier of carriers) {
  describe(`Orders (${carrier})`, () => {
    let shop: Shop;
    before(async () => {
      shop = await openShop(carrier);
    });
    beforeEach(() => shop.newcomers());
    after(() => shop.close());

    const buyer = () => shop.as({ account: shop.buyer });
    const seller = () => shop.as({ account: shop.seller });
    const operatorId = newId();
    const operator = () => shop.as({ account: operatorId, operator: true });
    const place = async (over: Parameters<typeof requestFor>[2] = {}, offer: Parameters<Shop["offer"]>[0] = {}) => {
      const { order } = await buyer().placeOrder(requestFor(shop, [await shop.offer(offer)], over));
      assert.ok(order);
      return order;
    };
    const ordersStored = async () => (await buyer().listOrders({})).orders.length;
    const booksAreRight = async () => {
      const { findings, escrow, expected, inMotion } = await shop.books();
      assert.deepEqual(findings, []);
      assert.deepEqual(escrow, expected);
      assert.equal(inMotion, 0);
    };

    it("are placed, shipped, confirmed and completed; each change is told", async () => {
      const { orderId, state, total, shipTo } = await place({ units: 2 }, { units: 2 });
      assert.equal(state, OrderState.PAID);
      assert.equal(total?.amountMinor, 2500n);
      assert.equal(shipTo?.recipient, "Ben");
      await booksAreRight();
      const shipped = await seller().shipOrder({ requestId: newId(), orderId, carrier: "Pigeon", trackingNumber: "7" });
      assert.equal(shipped.order?.state, OrderState.SHIPPED);
      const rating = { stars: 5, comment: "Fine." };
      const { order } = await buyer().confirmOrder({ requestId: newId(), orderId, rating });
      assert.equal(order?.state, OrderState.COMPLETED);
      assert.equal(order.rating?.comment, "Fine.");
      const events = await shop.events(orderId);
      assert.deepEqual(
        events.map(({ type, sequence, order: told }) => [type, sequence, told?.state, told?.sequence]),
        [
          ["OrderPlaced", 1n, OrderState.PLACING, 1n],
          ["OrderPaid", 2n, OrderState.PAID, 2n],
          ["OrderShipped", 3n, OrderState.SHIPPED, 3n],
          ["OrderConfirmed", 4n, OrderState.COMPLETING, 4n],
          ["OrderCompleted", 5n, OrderState.COMPLETED, 5n],
        ],
      );
      assert.ok(events.every(({ order: told }) => told?.shipTo === undefined));
      assert.equal(events.at(-1)?.order?.rating?.stars, 5);
      await booksAreRight();
      const balance = await shop.neighbour(PaymentService, { account: shop.seller }).getBalance({});
      assert.equal(balance.balances[0]?.available?.amountMinor, 2250n);
    });

    for (const [token, reason] of [
      ["tok_declined", "PAYMENT_DECLINED"],
      ["tok_insufficient_funds", "INSUFFICIENT_FUNDS"],
      ["tok_nobody_knows", "PAYMENT_METHOD_INVALID"],
      ["tok_capture_expired", "PAYMENT_DECLINED"],
    ] as const) {
      it(`fail with ${reason} for ${token}, give the units back, and fail alike when repeated`, async () => {
        const listing = await shop.offer();
        const request = requestFor(shop, [listing], { token });
        await refused(buyer().placeOrder(request), reason);
        const { listingId } = listing;
        const stock = await shop.neighbour(InventoryService, undefined).getAvailability({ listingId });
        assert.equal(stock.stock?.availableUnits, 1);
        const calls = shop.calls.length;
        await refused(buyer().placeOrder(request), reason);
        assert.equal(shop.calls.length, calls);
        const [order] = (await buyer().listOrders({})).orders;
        assert.equal(order?.state, OrderState.CANCELLED);
        assert.equal(order.cancelReason, reason);
        await booksAreRight();
      });
    }

    it("fail with OUT_OF_STOCK, naming the listing, after a single call to inventory", async () => {
      const error = await refused(place({ units: 3 }, { units: 2 }), "OUT_OF_STOCK", Code.FailedPrecondition);
      assert.equal(metadataOf(error).available_units, "2");
      assert.deepEqual(shop.calls.slice(2), ["reserve"]);
      const [order] = (await buyer().listOrders({})).orders;
      assert.deepEqual(
        (await shop.events(order?.orderId ?? "")).map(({ type }) => type),
        ["OrderPlaced", "OrderCancelled"],
      );
    });

    it("leave nothing behind when they are refused before they are written", async () => {
      const listing = await shop.offer();
      const request = requestFor(shop, [listing]);
      const { requestId } = request;
      const price = { currencyCode: "USD", amountMinor: 1n };
      await refused(
        buyer().placeOrder({ ...request, lines: [{ listingId: newId(), unitPrice: price }] }),
        "LISTING_NOT_FOUND",
        Code.NotFound,
      );
      await refused(shop.as({ account: shop.seller }).placeOrder(request), "ADDRESS_NOT_FOUND", Code.NotFound);
      await refused(buyer().placeOrder({ ...request, addressId: newId() }), "ADDRESS_NOT_FOUND");
      await refused(
        buyer().placeOrder({ ...request, lines: [{ listingId: listing.listingId, unitPrice: price }] }),
        "PRICE_CHANGED",
      );
      await refused(buyer().placeOrder({ ...request, lines: [...request.lines, ...request.lines] }), "INVALID_REQUEST");
      const own = await shop.offer({ sellerId: shop.buyer });
      await refused(buyer().placeOrder(requestFor(shop, [own], { requestId })), "OWN_LISTING");
      const sold = await shop.offer({ state: ListingState.SOLD });
      await refused(buyer().placeOrder(requestFor(shop, [sold], { requestId })), "LISTING_NOT_AVAILABLE");
      const others = await shop.offer({ sellerId: newId() });
      await refused(buyer().placeOrder(requestFor(shop, [listing, others], { requestId })), "MIXED_SELLERS");
      const yen = await shop.offer({ currencyCode: "JPY" });
      await refused(buyer().placeOrder(requestFor(shop, [listing, yen], { requestId })), "MIXED_CURRENCIES");
      assert.equal(await ordersStored(), 0);
      // Nothing was stored under the id, so it is free.
      assert.equal((await buyer().placeOrder(request)).order?.state, OrderState.PAID);
    });

    it("are placed once however often and however many at once the request is repeated", async () => {
      const listing = await shop.offer();
      const request = requestFor(shop, [listing]);
      const answers = await Promise.all(Array.from({ length: 20 }, () => buyer().placeOrder(request)));
      assert.equal(new Set(answers.map(({ order }) => order?.orderId)).size, 1);
      assert.equal(await ordersStored(), 1);
      shop.list({ ...clone(ListingSchema, listing), state: ListingState.SOLD });
      assert.deepEqual(await buyer().placeOrder(request), answers[0]);
      await refused(buyer().placeOrder({ ...request, paymentMethodToken: "tok_other" }), "REQUEST_ID_REUSED");
      await booksAreRight();
    });

    it("of many buyers for one unit succeed once", async () => {
      const listing = await shop.offer();
      const outcomes = await Promise.allSettled(Array.from({ length: 25 }, () => buyer().placeOrder(requestFor(shop, [listing]))));
      assert.equal(outcomes.filter(({ status }) => status === "fulfilled").length, 1);
      await booksAreRight();
    });

    it("wait for the buyer's confirmation and go on after it", async () => {
      const placed = await place({ token: "tok_needs_confirmation" });
      assert.equal(placed.state, OrderState.AWAITING_CONFIRMATION);
      const { orderId } = placed;
      const id = placed.confirmationUrl.split("/").at(-1) ?? "";
      const still = await buyer().continueOrder({ requestId: newId(), orderId });
      assert.deepEqual(still.order, placed);
      await refused(seller().continueOrder({ requestId: newId(), orderId }), "ORDER_NOT_FOUND");
      shop.simulator.decide(id, true);
      const answers = await Promise.all(Array.from({ length: 10 }, () => buyer().continueOrder({ requestId: newId(), orderId })));
      assert.ok(answers.every(({ order }) => order?.state === OrderState.PAID));
      assert.equal(answers[0]?.order?.confirmationUrl, "");
      assert.equal(shop.calls.filter((call) => call === "capturePayment").length, 1);
      const types = (await shop.events(orderId)).map(({ type }) => type);
      assert.deepEqual(types, ["OrderPlaced", "OrderConfirmationRequested", "OrderPaid"]);
      await booksAreRight();
    });

    it("fail with PAYMENT_DECLINED when the buyer declines at the processor", async () => {
      const { orderId, confirmationUrl } = await place({ token: "tok_needs_confirmation" });
      shop.simulator.decide(confirmationUrl.split("/").at(-1) ?? "", false);
      await refused(buyer().continueOrder({ requestId: newId(), orderId }), "PAYMENT_DECLINED");
      await refused(buyer().continueOrder({ requestId: newId(), orderId }), "ORDER_STATE_CONFLICT");
      await booksAreRight();
    });

    it("that nobody confirms at the processor are cancelled after 15 minutes", async () => {
      const { orderId, dueTime, updateTime } = await place({ token: "tok_needs_confirmation" });
      assert.equal(dueTime && updateTime && timestampMs(dueTime) - timestampMs(updateTime), 15 * MINUTE_MS);
      await shop.pass(14 * MINUTE_MS);
      assert.equal((await buyer().getOrder({ orderId })).order?.state, OrderState.AWAITING_CONFIRMATION);
      await shop.pass(MINUTE_MS);
      const { order } = await buyer().getOrder({ orderId });
      assert.equal(order?.state, OrderState.CANCELLED);
      assert.equal(order.cancelReason, "NOT_CONFIRMED_IN_TIME");
      await booksAreRight();
    });

    it("that nobody ships are cancelled and refunded two days after the handling time", async () => {
      const { orderId } = await place();
      await shop.pass(5 * DAY_MS - MINUTE_MS);
      assert.equal((await buyer().getOrder({ orderId })).order?.state, OrderState.PAID);
      await shop.pass(MINUTE_MS);
      const { order } = await buyer().getOrder({ orderId });
      assert.equal(order?.cancelReason, "NOT_SHIPPED_IN_TIME");
      assert.equal(order.state, OrderState.CANCELLED);
      await booksAreRight();
    });

    it("that nobody confirms complete by themselves 14 days after shipping, unrated", async () => {
      const { orderId } = await place();
      await seller().shipOrder({ requestId: newId(), orderId, carrier: "Pigeon" });
      await shop.pass(14 * DAY_MS);
      const { order } = await buyer().getOrder({ orderId });
      assert.equal(order?.state, OrderState.COMPLETED);
      assert.equal(order.rating, undefined);
      await booksAreRight();
    });

    for (const [who, client] of [
      ["BUYER", buyer],
      ["SELLER", seller],
      ["OPERATOR", operator],
    ] as const) {
      it(`are cancelled by their ${who.toLowerCase()}: the buyer gets all money back, the units stay sold`, async () => {
        const placed = await place();
        const { orderId } = placed;
        const requestId = newId();
        const first = await client().cancelOrder({ requestId, orderId });
        assert.equal(first.order?.state, OrderState.CANCELLED);
        assert.equal(first.order.cancelReason, `${who}_CANCELLED`);
        assert.deepEqual(await client().cancelOrder({ requestId, orderId }), first);
        assert.deepEqual(await client().cancelOrder({ requestId: newId(), orderId }), first);
        await refused(client().cancelOrder({ requestId, orderId: newId() }), "REQUEST_ID_REUSED");
        const { listingId = "" } = placed.lines[0] ?? {};
        const { stock } = await shop.neighbour(InventoryService, undefined).getAvailability({ listingId });
        assert.deepEqual([stock?.availableUnits, stock?.soldUnits], [0, 1]);
        await booksAreRight();
      });
    }

    it("are cancelled while they wait for confirmation: the units are free again", async () => {
      const placed = await place({ token: "tok_needs_confirmation" });
      const { order } = await buyer().cancelOrder({ requestId: newId(), orderId: placed.orderId });
      assert.equal(order?.state, OrderState.CANCELLED);
      const { listingId = "" } = placed.lines[0] ?? {};
      const { stock } = await shop.neighbour(InventoryService, undefined).getAvailability({ listingId });
      assert.equal(stock?.availableUnits, 1);
      await booksAreRight();
    });

    it("cannot do what their state does not allow", async () => {
      const { orderId } = await place();
      const rating = { stars: 1 };
      const error = await refused(
        buyer().confirmOrder({ requestId: newId(), orderId, rating }),
        "ORDER_STATE_CONFLICT",
        Code.FailedPrecondition,
      );
      assert.equal(metadataOf(error).state, "PAID");
      const ship = { orderId, carrier: "Pigeon" };
      await refused(buyer().shipOrder({ ...ship, requestId: newId() }), "ORDER_NOT_FOUND");
      await seller().shipOrder({ ...ship, requestId: newId() });
      await refused(seller().shipOrder({ ...ship, requestId: newId() }), "ORDER_STATE_CONFLICT");
      await refused(buyer().cancelOrder({ requestId: newId(), orderId }), "ORDER_STATE_CONFLICT");
      await refused(seller().confirmOrder({ requestId: newId(), orderId, rating }), "ORDER_NOT_FOUND");
      await refused(buyer().continueOrder({ requestId: newId(), orderId }), "ORDER_STATE_CONFLICT");
      await refused(shop.as({ account: newId() }).cancelOrder({ requestId: newId(), orderId }), "ORDER_NOT_FOUND");
    });

    it("show the address to the buyer, to the operator, and to the seller while there is a parcel to send", async () => {
      const { orderId } = await place({ token: "tok_needs_confirmation" });
      const seen = async (client: ReturnType<typeof buyer>) => (await client.getOrder({ orderId })).order;
      assert.equal((await seen(seller()))?.shipTo, undefined);
      assert.equal((await seen(seller()))?.confirmationUrl, "");
      assert.equal((await seen(buyer()))?.shipTo?.city, "Springfield");
      assert.equal((await seen(operator()))?.shipTo?.city, "Springfield");
      await refused(seen(shop.as({ account: newId() })), "ORDER_NOT_FOUND", Code.NotFound);
      const paid = await place();
      assert.equal((await seller().getOrder({ orderId: paid.orderId })).order?.shipTo?.city, "Springfield");
      await refused(shop.as(undefined).getOrder({ orderId }), "TOKEN_MISSING");
      await buyer().cancelOrder({ requestId: newId(), orderId });
    });

    it("are listed newest first, page by page, by side and by state", async () => {
      const placed = [];
      for (let i = 0; i < 5; i++) placed.push((await place()).orderId);
      const [, second] = placed;
      await buyer().cancelOrder({ requestId: newId(), orderId: second ?? "" });
      const ids = async (client: ReturnType<typeof buyer>, request: Parameters<typeof client.listOrders>[0]) => {
        const pages: string[][] = [];
        let pageToken = "";
        do {
          const page = await client.listOrders({ ...request, pageToken });
          pages.push(page.orders.map((order) => order.orderId));
          pageToken = page.nextPageToken;
        } while (pageToken !== "");
        return pages;
      };
      const newest = placed.toReversed();
      assert.deepEqual(await ids(buyer(), { pageSize: 2 }), [newest.slice(0, 2), newest.slice(2, 4), newest.slice(4)]);
      assert.deepEqual(await ids(seller(), { role: OrderRole.SELLER }), [newest]);
      assert.deepEqual(await ids(seller(), {}), [[]]);
      const both = [OrderState.PAID, OrderState.CANCELLED];
      assert.deepEqual(await ids(buyer(), { states: both, pageSize: 3 }), [newest.slice(0, 3), newest.slice(3)]);
      assert.deepEqual(await ids(buyer(), { states: [OrderState.CANCELLED] }), [[second]]);
      const { nextPageToken: pageToken } = await buyer().listOrders({ pageSize: 2 });
      await refused(buyer().listOrders({ pageSize: 2, pageToken: `${pageToken.slice(0, -2)}xx` }), "PAGE_TOKEN_INVALID");
      await refused(buyer().listOrders({ pageSize: 2, pageToken, states: both }), "PAGE_TOKEN_INVALID");
    });

    it("sum up to what stands in escrow, for each currency", async () => {
      const { expected: first } = await shop.books();
      await place();
      await place({}, { currencyCode: "JPY", priceMinor: 900n });
      const { orderId } = await place({ units: 2 }, { units: 2 });
      await seller().shipOrder({ requestId: newId(), orderId, carrier: "Pigeon" });
      const waiting = await place({ token: "tok_needs_confirmation" });
      const books = await shop.books();
      assert.deepEqual(books.expected, { USD: (first.USD ?? 0n) + 3750n, JPY: (first.JPY ?? 0n) + 900n });
      assert.deepEqual(books.escrow, books.expected);
      assert.equal(books.inMotion, 1);
      await refused(buyer().getEscrowTotals({}), "PERMISSION_DENIED");
      await buyer().cancelOrder({ requestId: newId(), orderId: waiting.orderId });
    });
  });
}
