import assert from "node:assert/strict";
import { Code } from "@connectrpc/connect";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { CatalogService, Condition } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { InventoryService } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import { OrderService } from "#gen/marketplace/order/v1/order_pb.ts";
import { PaymentService } from "#gen/marketplace/payment/v1/payment_pb.ts";
import { SearchService } from "#gen/marketplace/search/v1/search_pb.ts";
import { newId } from "#runtime/ids.ts";
import { difference, type Served, serveMarketplace, type Who } from "./served.ts";
import { type Answer, assertRefused, type Method } from "./ways.ts";

const { createListing, updateListing, getListing, batchCreateListings } = CatalogService.method;
const { placeOrder, getOrder, listOrders, shipOrder, confirmOrder } = OrderService.method;
const { createPayout, getBalance } = PaymentService.method;
const { listAddresses, setPayoutDestination } = AccountService.method;
const { getAvailability } = InventoryService.method;

const PRICE_MAX = 100_000_000n;
const AMOUNT_MAX = 1_000_000_000_000n;
const money = (amountMinor: bigint, currencyCode = "USD") => ({ currencyCode, amountMinor });
const draft = (price: object, more: object = {}) => ({
  title: "A lamp",
  categoryId: "lamps",
  condition: Condition.GOOD,
  price,
  ...more,
});

describe("Bad money at the whole marketplace", function () {
  this.timeout(60_000);
  let served: Served;
  let addressId: string;

  before(async () => {
    served = await serveMarketplace();
    addressId = (await served.ok("ben", listAddresses, {})).addresses[0].addressId;
  });
  after(() => served.stopBalanced());

  const publish = async (seller: string, price: object, more: object = {}): Promise<string> => {
    const request = { requestId: newId(), publish: true, listing: draft(price, more) };
    return (await served.ok(seller, createListing, request)).listing.listingId;
  };
  const purchase = (lines: [listingId: string, unitPrice: object, units?: number][], token = "tok_approved") => ({
    requestId: newId(),
    addressId,
    paymentMethodToken: token,
    lines: lines.map(([listingId, unitPrice, units = 1]) => ({ listingId, unitPrice, units })),
  });

  async function refusedEveryWay(
    [who, method, request]: [Who, Method, object],
    [code, reason]: [Code, string],
    check: (answer: Answer) => void = () => {},
  ): Promise<void> {
    await served.leavingNothing(async () => {
      for (const way of served.ways) {
        const answer = await served.call(who, method, request, { way });
        assertRefused(answer, code, reason);
        check(answer);
      }
    });
  }
  const invalid = (call: [Who, Method, object], ...fields: string[]) =>
    refusedEveryWay(call, [Code.InvalidArgument, "INVALID_REQUEST"], (answer) => {
      assert.deepEqual([...new Set(answer.fields)], fields);
    });

  describe("of a listing", () => {
    for (const [what, price, ...fields] of [
      ["negative", money(-1n), "listing.price", "listing.price.amount_minor"],
      ["the smallest number there is", money(-(2n ** 63n)), "listing.price", "listing.price.amount_minor"],
      ["nothing", money(0n), "listing.price"],
      ["a minor unit above the limit", money(PRICE_MAX + 1n), "listing.price"],
      ["the largest number there is", money(2n ** 63n - 1n), "listing.price", "listing.price.amount_minor"],
      ["of a currency that is not traded in", money(5000n, "EUR"), "listing.price.currency_code"],
      ["of a currency in small letters", money(5000n, "usd"), "listing.price.currency_code"],
      ["of no currency", money(5000n, ""), "listing.price.currency_code"],
    ] as [string, object, ...string[]][]) {
      it(`that is ${what} is refused`, async () => {
        await invalid(["ada", createListing, { requestId: newId(), publish: true, listing: draft(price) }], ...fields);
        // A batch answers for each of its listings by itself, so its answer is kept, and nothing else.
        const before = await served.kept();
        const batch = { requestId: newId(), publish: true, listings: [draft(price)] };
        const { results } = await served.ok("ada", batchCreateListings, batch);
        assert.equal(results[0].reason, "INVALID_REQUEST");
        const left = difference(before, await served.kept()).map((change) => change.split(" ")[0]);
        assert.deepEqual(left, ["+catalog.replay"]);
      });
    }

    it("is refused with a change of it, and the listing keeps its own", async () => {
      const listingId = await publish("ada", money(PRICE_MAX));
      const { listing } = await served.ok("ada", getListing, { listingId });
      const change = (price: object) => ({ requestId: newId(), listingId, etag: listing.etag, price });
      await invalid(["ada", updateListing, change(money(0n))], "price");
      await invalid(["ada", updateListing, change(money(-1n))], "price", "price.amount_minor");
      await invalid(["ada", updateListing, change(money(5000n, "EUR"))], "price.currency_code");
      await refusedEveryWay(["ada", updateListing, change(money(5000n, "JPY"))], [Code.FailedPrecondition, "CURRENCY_FIXED"]);
      assert.deepEqual((await served.ok("ada", getListing, { listingId })).listing, listing);
    });
  });

  describe("in JSON", () => {
    for (const [written, reason] of [
      ["-1", "INVALID_REQUEST"],
      ['"-1"', "INVALID_REQUEST"],
      ['"9223372036854775807"', "INVALID_REQUEST"],
      ['"9223372036854775808"', "MALFORMED_REQUEST"],
      ['"-9223372036854775809"', "MALFORMED_REQUEST"],
      ["9223372036854775808", "MALFORMED_REQUEST"],
      ["1e30", "MALFORMED_REQUEST"],
      ["1.5", "MALFORMED_REQUEST"],
      ['"1.5"', "MALFORMED_REQUEST"],
      ['"abc"', "MALFORMED_REQUEST"],
      ['""', "MALFORMED_REQUEST"],
      ['"1e3"', "MALFORMED_REQUEST"],
      ['"NaN"', "MALFORMED_REQUEST"],
      ["true", "MALFORMED_REQUEST"],
      ["[5000]", "MALFORMED_REQUEST"],
      ["{}", "MALFORMED_REQUEST"],
    ] as const) {
      it(`is refused with ${reason} when the amount is ${written}`, async () => {
        const amount = `{"currencyCode":"USD","amountMinor":${written}}`;
        const listing = `{"title":"A lamp","categoryId":"lamps","condition":"CONDITION_GOOD","price":${amount}}`;
        const line = `{"listingId":"${newId()}","unitPrice":${amount}}`;
        const order = `"addressId":"${addressId}","paymentMethodToken":"tok_approved","lines":[${line}]`;
        await served.leavingNothing(async () => {
          for (const [who, method, fields] of [
            ["ada", createListing, `"publish":true,"listing":${listing}`],
            ["ada", createPayout, `"amount":${amount}`],
            ["ben", placeOrder, order],
          ] as const) {
            // A payout has no limit but the balance and the type.
            if (method === createPayout && written === '"9223372036854775807"') continue;
            const answer = await served.post(who, method, `{"requestId":"${newId()}",${fields}}`);
            assertRefused(answer, Code.InvalidArgument, reason);
          }
        });
      });
    }
  });

  describe("of an order", () => {
    it("outside its range or in a foreign currency is refused", async () => {
      const listingId = await publish("ada", money(5000n));
      const line = (price: object): [Who, Method, object] => ["ben", placeOrder, purchase([[listingId, price]])];
      await invalid(line(money(0n)), "lines[0].unit_price");
      await invalid(line(money(-5000n)), "lines[0].unit_price", "lines[0].unit_price.amount_minor");
      await invalid(line(money(PRICE_MAX + 1n)), "lines[0].unit_price");
      await invalid(line(money(5000n, "EUR")), "lines[0].unit_price.currency_code");
    });

    it("other than the seller asks is refused with what the seller asks", async () => {
      const listingId = await publish("ada", money(5000n));
      for (const price of [money(4999n), money(5001n), money(5000n, "JPY")]) {
        await refusedEveryWay(
          ["ben", placeOrder, purchase([[listingId, price]])],
          [Code.FailedPrecondition, "PRICE_CHANGED"],
          ({ metadata }) => {
            assert.deepEqual(metadata, { listing_id: listingId, amount_minor: "5000", currency_code: "USD" });
          },
        );
      }
    });

    it("that the seller has raised since is refused, and taken once agreed to", async () => {
      const listingId = await publish("ada", money(5000n));
      const { listing } = await served.ok("ada", getListing, { listingId });
      const price = money(6000n);
      await served.ok("ada", updateListing, { requestId: newId(), listingId, etag: listing.etag, price });
      const request = purchase([[listingId, money(5000n)]]);
      await refusedEveryWay(["ben", placeOrder, request], [Code.FailedPrecondition, "PRICE_CHANGED"]);
      // The refusal came before anything was written, so the request_id is still good.
      const agreed = purchase([[listingId, price]]);
      const { order } = await served.ok("ben", placeOrder, { ...agreed, requestId: request.requestId });
      assert.equal(order.total.amountMinor, "6000");
    });

    it("in two currencies, or of two sellers, is refused", async () => {
      const [usd, jpy, other] = await Promise.all([
        publish("ada", money(5000n)),
        publish("ada", money(5000n, "JPY")),
        publish("tess", money(5000n)),
      ]);
      await refusedEveryWay(
        [
          "ben",
          placeOrder,
          purchase([
            [usd, money(5000n)],
            [jpy, money(5000n, "JPY")],
          ]),
        ],
        [Code.InvalidArgument, "MIXED_CURRENCIES"],
      );
      await refusedEveryWay(
        [
          "ben",
          placeOrder,
          purchase([
            [usd, money(5000n)],
            [other, money(5000n)],
          ]),
        ],
        [Code.InvalidArgument, "MIXED_SELLERS"],
      );
    });

    it("is exact where it is largest: 20 lines of 100 units at the highest price", async () => {
      const drafts = Array.from({ length: 20 }, () => draft(money(PRICE_MAX), { units: 100 }));
      const { results } = await served.ok("maria", batchCreateListings, { requestId: newId(), publish: true, listings: drafts });
      const lines = results.map(({ listingId }: { listingId: string }) => [listingId, money(PRICE_MAX), 100]);
      const { order } = await served.ok("ben", placeOrder, purchase(lines));
      assert.equal(order.total.amountMinor, String(PRICE_MAX * 2000n));
      await served.assertBalanced();
      await served.ok("maria", shipOrder, { requestId: newId(), orderId: order.orderId, carrier: "UPS" });
      await served.ok("ben", confirmOrder, { requestId: newId(), orderId: order.orderId, rating: { stars: 5 } });
      const { balances } = await served.ok("maria", getBalance, {});
      assert.equal(balances[0].available.amountMinor, String((PRICE_MAX * 2000n * 9n) / 10n));
    });
  });

  describe("that a buyer has not got", () => {
    for (const [token, code, reason] of [
      ["tok_declined", Code.FailedPrecondition, "PAYMENT_DECLINED"],
      ["tok_insufficient_funds", Code.FailedPrecondition, "INSUFFICIENT_FUNDS"],
      ["tok_no_such_token", Code.InvalidArgument, "PAYMENT_METHOD_INVALID"],
    ] as const) {
      it(`(${token}) leaves a cancelled order, every unit on sale, no money moved, and the same answer to every repeat`, async () => {
        const listingId = await publish("ada", money(5000n), { units: 3 });
        const before = (await served.ok("ben", listOrders, { pageSize: 100 })).orders.length;
        const request = purchase([[listingId, money(5000n), 2]], token);
        const first = await served.call("ben", placeOrder, request);
        assertRefused(first, code, reason);
        await served.settle();
        await refusedEveryWay(["ben", placeOrder, request], [code, reason]);
        const { orders } = await served.ok("ben", listOrders, { pageSize: 100 });
        assert.deepEqual([orders.length - before, orders[0].state, orders[0].cancelReason], [1, "ORDER_STATE_CANCELLED", reason]);
        const { stock } = await served.ok(undefined, getAvailability, { listingId });
        assert.deepEqual([stock.availableUnits, stock.reservedUnits ?? 0], [3, 0]);
        await served.assertBalanced();
      });
    }

    it("and units that are not there leave no reservation", async () => {
      const listingId = await publish("ada", money(5000n), { units: 1 });
      const request = purchase([[listingId, money(5000n), 2]]);
      const answer = await served.call("ben", placeOrder, request);
      assertRefused(answer, Code.FailedPrecondition, "OUT_OF_STOCK");
      await served.settle();
      await refusedEveryWay(["ben", placeOrder, request], [Code.FailedPrecondition, "OUT_OF_STOCK"]);
      const { stock } = await served.ok(undefined, getAvailability, { listingId });
      assert.deepEqual([stock.availableUnits, stock.reservedUnits ?? 0], [1, 0]);
    });
  });

  describe("of a payout", () => {
    it("outside its range or in a foreign currency is refused", async () => {
      const payout = (amount: object): [Who, Method, object] => ["ada", createPayout, { requestId: newId(), amount }];
      await invalid(payout(money(0n)), "amount");
      await invalid(payout(money(-1n)), "amount", "amount.amount_minor");
      await invalid(payout(money(AMOUNT_MAX + 1n)), "amount.amount_minor");
      await invalid(payout(money(1n, "EUR")), "amount.currency_code");
    });

    it("above the balance is refused with the balance", async () => {
      const request = { requestId: newId(), amount: money(AMOUNT_MAX) };
      await refusedEveryWay(["sam", createPayout, request], [Code.FailedPrecondition, "BALANCE_TOO_LOW"], ({ metadata }) => {
        assert.equal(metadata.available_minor, "0");
      });
    });

    it("without a destination for its currency is refused", () =>
      refusedEveryWay(
        ["ben", createPayout, { requestId: newId(), amount: money(1n) }],
        [Code.FailedPrecondition, "PAYOUT_DESTINATION_MISSING"],
      ));

    it("to a destination in a foreign currency cannot even be planned", () =>
      invalid(
        ["ada", setPayoutDestination, { requestId: newId(), destinationToken: "bank_x", currencyCode: "EUR" }],
        "currency_code",
      ));
  });

  it("as a bound of a search is refused below nothing and above the highest price", async () => {
    const { searchListings } = SearchService.method;
    const bounds = { currencyCode: "USD", minPriceMinor: -1n, maxPriceMinor: PRICE_MAX + 1n };
    await invalid([undefined, searchListings, { filter: bounds }], "filter.min_price_minor", "filter.max_price_minor");
    const foreign = { currencyCode: "EUR", minPriceMinor: 1n };
    await invalid([undefined, searchListings, { filter: foreign }], "filter.currency_code");
  });

  it("of an order is shown to nobody whom it does not concern", async () => {
    const listingId = await publish("ada", money(5000n));
    const { order } = await served.ok("ben", placeOrder, purchase([[listingId, money(5000n)]]));
    await refusedEveryWay(["tess", getOrder, { orderId: order.orderId }], [Code.NotFound, "ORDER_NOT_FOUND"]);
  });
});
