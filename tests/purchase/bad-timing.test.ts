import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { Code } from "@connectrpc/connect";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { CatalogService, Condition } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { OrderService } from "#gen/marketplace/order/v1/order_pb.ts";
import { PaymentService } from "#gen/marketplace/payment/v1/payment_pb.ts";
import { newId } from "#runtime/ids.ts";
import { difference, type Served, serveMarketplace } from "./served.ts";
import { assertRefused, type Method, type Way } from "./ways.ts";

const { createListing, updateListing } = CatalogService.method;
const { placeOrder, listOrders, shipOrder, confirmOrder } = OrderService.method;
const { createPayout } = PaymentService.method;
const { createAddress, listAddresses, updateProfile } = AccountService.method;

const USD = (amountMinor: bigint) => ({ currencyCode: "USD", amountMinor });
const draft = (title = "A lamp") => ({ title, categoryId: "lamps", condition: Condition.GOOD, price: USD(5000n), units: 99 });
const DEADLINE = [Code.DeadlineExceeded, "DEADLINE_EXCEEDED"] as const;

describe("Time running out at the whole marketplace", function () {
  this.timeout(60_000);
  let served: Served;
  let listingId: string;
  let addressId: string;
  let edited: { listingId: string; etag: string };

  before(async () => {
    served = await serveMarketplace();
    addressId = (await served.ok("ben", listAddresses, {})).addresses[0].addressId;
    listingId = (await served.ok("ada", createListing, { requestId: newId(), publish: true, listing: draft() })).listing.listingId;
    const { order } = await served.ok("ben", placeOrder, purchase());
    await served.ok("ada", shipOrder, { requestId: newId(), orderId: order.orderId, carrier: "UPS" });
    await served.ok("ben", confirmOrder, { requestId: newId(), orderId: order.orderId, rating: { stars: 5 } });
    edited = (await served.ok("ada", createListing, { requestId: newId(), listing: draft() })).listing;
  });
  after(() => served.stopBalanced());

  const purchase = (token = "tok_approved") => ({
    requestId: newId(),
    addressId,
    paymentMethodToken: token,
    lines: [{ listingId, unitPrice: USD(5000n) }],
  });
  const commands = (): [string, Method, object][] => [
    ["ben", placeOrder, purchase()],
    ["ada", createListing, { requestId: newId(), publish: true, listing: draft() }],
    ["ada", updateListing, { requestId: newId(), listingId: edited.listingId, etag: edited.etag, title: "Later" }],
    ["ada", createPayout, { requestId: newId(), amount: USD(100n) }],
    ["ben", createAddress, { requestId: newId(), recipient: "Ben", lines: ["1 Main St"], city: "Reno", countryCode: "US" }],
    ["ben", updateProfile, { requestId: newId(), displayName: "Too late", etag: "1" }],
  ];
  const places = (changes: readonly string[]) => changes.map((change) => change.split(" ")[0]);

  it("before a call arrives, in every protocol: it is refused and changes nothing", async () => {
    await served.leavingNothing(async () => {
      for (const [who, method, request] of commands()) {
        const json = JSON.stringify(request, (_, value) => (typeof value === "bigint" ? String(value) : value));
        assertRefused(await served.post(who, method, json, { "connect-timeout-ms": "0" }), ...DEADLINE);
        for (const way of served.ways) {
          const answer = await served.call(who, method, request, { way, timeoutMs: 0 });
          assert.equal(answer.code, Code.DeadlineExceeded, `${method.name} over ${way.name}`);
        }
      }
    });
  });

  it("while the request is still on its way: it is refused and changes nothing", async () => {
    await served.leavingNothing(async () => {
      for (const [who, method, request] of commands()) {
        const bytes = Buffer.from(JSON.stringify(request, (_, value) => (typeof value === "bigint" ? String(value) : value)));
        const slow = new ReadableStream<Uint8Array>({
          async start(controller) {
            controller.enqueue(bytes.subarray(0, 10));
            await sleep(80);
            // The answer may have closed it already.
            try {
              controller.enqueue(bytes.subarray(10));
              controller.close();
            } catch {}
          },
        });
        const answer = await served.post(who, method, slow, { "connect-timeout-ms": "20" });
        assertRefused(answer, ...DEADLINE);
        await sleep(80);
      }
    });
  });

  for (const service of ["order", "payment", "catalog", "account", "inventory"]) {
    it(`while another writes to the tables of ${service}: no write begins after it, and a repeat gets the outcome once`, async () => {
      const concerned: Record<string, Method[]> = {
        order: [placeOrder],
        payment: [createPayout],
        catalog: [createListing, updateListing],
        account: [createAddress, updateProfile],
        inventory: [createListing],
      };
      for (const [who, method, request] of commands()) {
        if (!concerned[service]?.includes(method)) continue;
        const before = await served.kept();
        const unlock = await served.lock(service);
        const answers = await Promise.all(served.ways.map((way) => served.call(who, method, request, { way, timeoutMs: 300 })));
        await unlock();
        for (const answer of answers) assert.equal(answer.code, Code.DeadlineExceeded, `${method.name}: ${answer.reason}`);
        const left = places(difference(before, await served.kept()));
        // The catalog has claimed a listing before inventory hears of it: a job finishes it, and the repeat gets the answer.
        const claimed = service === "inventory" ? ["+catalog.creation", "+catalog.job", "+catalog.listing", "+catalog.replay"] : [];
        assert.deepEqual(left.sort(), claimed, method.name);
        if (claimed.length > 0) served.clock.advance(10_000);
        const repeat = await served.ok(who, method, request);
        assert.deepEqual(await served.leavingNothing(() => served.ok(who, method, request)), repeat);
        if (method === createListing) {
          const come = places(difference(before, await served.kept()));
          assert.equal(come.filter((place) => place === "+catalog.listing").length, 1);
          assert.equal(come.filter((place) => place === "+inventory.stock").length, 1);
        }
        if (method === updateListing) edited = repeat.listing;
      }
    });
  }

  it("while the processor does not answer: the purchase goes on, and a repeat gets its outcome, one order and one payment", async () => {
    for (const token of ["tok_timeout_charged", "tok_timeout_not_charged", "tok_capture_timeout_charged"]) {
      const request = purchase(token);
      const before = await served.kept();
      const answers = await Promise.all(served.ways.map((way) => served.call("ben", placeOrder, request, { way, timeoutMs: 900 })));
      for (const answer of answers) assert.equal(answer.code, Code.DeadlineExceeded, `${token}: ${answer.reason}`);
      // The pauses before the next attempts are over.
      for (let i = 0; i < 5; i++) {
        served.clock.advance(60_000);
        await served.settle();
      }
      const { order } = await served.ok("ben", placeOrder, request);
      assert.equal(order.state, "ORDER_STATE_PAID", token);
      const come = places(difference(before, await served.kept()));
      for (const place of ["+order.orders", "+payment.payment", "+inventory.reservation"]) {
        assert.equal(come.filter((each) => each === place).length, 1, `${token}: ${place}`);
      }
      assert.equal(come.filter((each) => each === "+processor.operation").length, 2, "one authorization and one capture");
      await served.assertBalanced();
    }
  });

  it("at any moment of a purchase: whoever repeats it with the same request_id gets one order and one payment", async () => {
    const { orders: earlier } = await served.ok("ben", listOrders, { pageSize: 100 });
    const before = await served.kept();
    const timeouts = [1, 2, 3, 5, 8, 12, 16, 20, 25, 30, 40, 60];
    let inTime = 0;
    for (const [i, timeoutMs] of timeouts.entries()) {
      const request = purchase();
      const hurried = await served.call("ben", placeOrder, request, { way: served.ways[i % served.ways.length] as Way, timeoutMs });
      if (hurried.code === undefined) inTime++;
      else assert.equal(hurried.code, Code.DeadlineExceeded, `${timeoutMs} ms: ${hurried.reason} ${hurried.message}`);
      const { order } = await served.ok("ben", placeOrder, request);
      assert.equal(order.state, "ORDER_STATE_PAID");
    }
    assert.ok(inTime < timeouts.length, "a purchase takes longer than a millisecond");
    const { orders } = await served.ok("ben", listOrders, { pageSize: 100 });
    assert.equal(orders.length - earlier.length, timeouts.length);
    const come = places(difference(before, await served.kept()));
    assert.equal(come.filter((place) => place === "+payment.payment").length, timeouts.length);
    assert.equal(come.filter((place) => place === "+processor.operation").length, 2 * timeouts.length);
  });
});
