import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import fc from "fast-check";
import { type Listing, ListingSchema, ListingState } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { PlaceOrderLineSchema } from "#gen/marketplace/order/v1/order_pb.ts";
import { metadataOf, reasonOf, violationsOf } from "#runtime/errors.ts";
import { quote } from "../../services/order/quote.ts";
import { allStates, dueTimeOf, finalStates, statesBefore, transitions, whenDue } from "../../services/order/states.ts";

const buyer = "buyer";

function listing(
  listingId: string,
  over: { sellerId?: string; state?: ListingState; currencyCode?: string; amountMinor?: bigint; handlingDays?: number } = {},
): Listing {
  return create(ListingSchema, {
    listingId,
    sellerId: over.sellerId ?? "seller",
    state: over.state ?? ListingState.ACTIVE,
    title: `Title of ${listingId}`,
    price: { currencyCode: over.currencyCode ?? "USD", amountMinor: over.amountMinor ?? 1250n },
    handlingDays: over.handlingDays ?? 3,
    publishTime: timestampFromMs(1_000),
  });
}

function wanted(of: Listing, over: { units?: number; currencyCode?: string; amountMinor?: bigint } = {}) {
  const { currencyCode = of.price?.currencyCode ?? "", amountMinor = of.price?.amountMinor ?? 0n, units = 0 } = over;
  return create(PlaceOrderLineSchema, { listingId: of.listingId, units, unitPrice: { currencyCode, amountMinor } });
}

function refusalOf(...args: Parameters<typeof quote>) {
  try {
    quote(...args);
  } catch (error) {
    return error;
  }
  return assert.fail("expected a refusal");
}

describe("A quote", () => {
  const golf = listing("golf");
  const chess = listing("chess", { amountMinor: 900n, handlingDays: 5 });

  it("is the sum of the lines, from one seller, with the longest handling time", () => {
    const agreed = quote(buyer, [wanted(golf, { units: 2 }), wanted(chess)], [golf, chess]);
    assert.equal(agreed.totalMinor, 3400n);
    assert.equal(agreed.handlingDays, 5);
    assert.equal(agreed.sellerId, "seller");
    assert.deepEqual(agreed.lines[1], {
      listingId: "chess",
      title: "Title of chess",
      units: 1,
      unitPriceMinor: 900n,
      listingTime: 1_000,
    });
  });

  it("adds up whatever the units and prices are", () => {
    const line = fc.record({ units: fc.integer({ min: 1, max: 100 }), amountMinor: fc.bigInt({ min: 1n, max: 100_000_000n }) });
    fc.assert(
      fc.property(fc.array(line, { minLength: 1, maxLength: 20 }), (lines) => {
        const listings = lines.map(({ amountMinor }, i) => listing(`listing ${i}`, { amountMinor }));
        const agreed = quote(
          buyer,
          lines.map(({ units }, i) => wanted(listings[i] as Listing, { units })),
          listings.toReversed(),
        );
        let total = 0n;
        for (const { units, amountMinor } of lines) for (let i = 0; i < units; i++) total += amountMinor;
        assert.equal(agreed.totalMinor, total);
      }),
      { numRuns: 50 },
    );
  });

  for (const [what, reason, args] of [
    ["of a listing twice", "INVALID_REQUEST", [buyer, [wanted(golf), wanted(golf)], [golf]]],
    ["of a listing that is not there", "LISTING_NOT_FOUND", [buyer, [wanted(golf), wanted(chess)], [golf]]],
    ["of the buyer's own listing", "OWN_LISTING", ["seller", [wanted(golf)], [golf]]],
    [
      "of two sellers",
      "MIXED_SELLERS",
      [buyer, [wanted(golf), wanted(listing("b", { sellerId: "other" }))], [golf, listing("b", { sellerId: "other" })]],
    ],
    [
      "in two currencies",
      "MIXED_CURRENCIES",
      [buyer, [wanted(golf), wanted(listing("b", { currencyCode: "JPY" }))], [golf, listing("b", { currencyCode: "JPY" })]],
    ],
    ["at another price", "PRICE_CHANGED", [buyer, [wanted(golf, { amountMinor: 1249n })], [golf]]],
    ["at the price in another currency", "PRICE_CHANGED", [buyer, [wanted(golf, { currencyCode: "JPY" })], [golf]]],
  ] as [string, string, Parameters<typeof quote>][]) {
    it(`${what} is refused with ${reason}`, () => {
      assert.equal(reasonOf(refusalOf(...args)), reason);
    });
  }

  for (const state of [ListingState.RESERVED, ListingState.SOLD, ListingState.WITHDRAWN]) {
    it(`of a listing in the state ${state} is refused with LISTING_NOT_AVAILABLE`, () => {
      assert.equal(reasonOf(refusalOf(buyer, [wanted(golf)], [listing("golf", { state })])), "LISTING_NOT_AVAILABLE");
    });
  }

  it("of another seller's draft is refused as if it were not there", () => {
    const draft = listing("golf", { state: ListingState.DRAFT });
    assert.equal(reasonOf(refusalOf(buyer, [wanted(golf)], [draft])), "LISTING_NOT_FOUND");
  });

  it("names the price now when it has changed", () => {
    const error = refusalOf(buyer, [wanted(golf)], [listing("golf", { amountMinor: 1300n })]);
    assert.deepEqual(metadataOf(error), { listing_id: "golf", amount_minor: "1300", currency_code: "USD" });
  });

  it("names the line that repeats a listing", () => {
    const [violation] = violationsOf(refusalOf(buyer, [wanted(golf), wanted(chess), wanted(golf)], [golf, chess]));
    assert.equal(violation?.field, "lines[2].listing_id");
  });
});

describe("The table of an order's states", () => {
  it("leads from PLACING to every state but those that begin with a dispute", () => {
    const seen = new Set(["PLACING"]);
    for (const state of seen) for (const next of transitions[state as keyof typeof transitions]) seen.add(next);
    assert.deepEqual([...seen].sort(), [...allStates].sort());
  });

  it("ends in COMPLETED and CANCELLED only", () => {
    assert.deepEqual(finalStates, ["COMPLETED", "CANCELLED"]);
  });

  it("lets money be taken back only before it was released", () => {
    assert.deepEqual(statesBefore("CANCELLING"), ["PLACING", "AWAITING_CONFIRMATION", "PAID", "DISPUTED"]);
  });

  it("has a way on, that is allowed, for every state with a due time", () => {
    for (const state of allStates) {
      const then = whenDue[state];
      assert.equal(dueTimeOf(state, 0, 3) !== null, then !== undefined, state);
      assert.ok(then === undefined || transitions[state].includes(then.to), state);
    }
  });
});
