import assert from "node:assert/strict";
import { Code } from "@connectrpc/connect";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { CatalogService, Condition } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { OrderService } from "#gen/marketplace/order/v1/order_pb.ts";
import { PaymentService } from "#gen/marketplace/payment/v1/payment_pb.ts";
import { newId } from "#runtime/ids.ts";
import { difference, type Served, serveMarketplace } from "./served.ts";
import { type Answer, assertRefused, type Method, type Way } from "./ways.ts";

const { createListing, batchCreateListings, publishListing, withdrawListing, updateListing } = CatalogService.method;
const { placeOrder, shipOrder, confirmOrder, cancelOrder } = OrderService.method;
const { createPayout, getBalance } = PaymentService.method;
const { createAddress, listAddresses, updateProfile, setPayoutDestination } = AccountService.method;

const USD = (amountMinor: bigint) => ({ currencyCode: "USD", amountMinor });
const draft = (more: object = {}) => ({
  title: "A lamp",
  categoryId: "lamps",
  condition: Condition.GOOD,
  price: USD(5000n),
  units: 50,
  ...more,
});
const address = (city: string) => ({ recipient: "Ben", lines: ["1 Main St"], city, countryCode: "US" });

/** A command, what it is with other content, and the rows that it adds when it takes effect once. */
interface Example {
  readonly who: string;
  readonly method: Method;
  readonly request: () => object | Promise<object>;
  readonly other: object;
  readonly effect: Readonly<Record<string, number>>;
}

describe("Repeats at the whole marketplace", function () {
  this.timeout(60_000);
  let served: Served;
  let listingId: string;
  let addressId: string;

  before(async () => {
    served = await serveMarketplace();
    addressId = (await served.ok("ben", listAddresses, {})).addresses[0].addressId;
    listingId = await publish();
    for (let i = 0; i < 3; i++) {
      const orderId = await buy();
      await served.ok("ada", shipOrder, { requestId: newId(), orderId, carrier: "UPS" });
      await served.ok("ben", confirmOrder, { requestId: newId(), orderId, rating: { stars: 5 } });
    }
  });
  after(() => served.stopBalanced());

  const create = async (publish: boolean): Promise<{ listingId: string; etag: string }> =>
    (await served.ok("ada", createListing, { requestId: newId(), publish, listing: draft() })).listing;
  const publish = async () => (await create(true)).listingId;
  const purchase = () => ({
    addressId,
    paymentMethodToken: "tok_approved",
    lines: [{ listingId, unitPrice: USD(5000n), units: 1 }],
  });
  const buy = async (): Promise<string> =>
    (await served.ok("ben", placeOrder, { requestId: newId(), ...purchase() })).order.orderId;

  const examples: Example[] = [
    {
      who: "ben",
      method: placeOrder,
      request: purchase,
      other: { paymentMethodToken: "tok_declined" },
      effect: { "order.orders": 1, "payment.payment": 1, "inventory.reservation": 1, "processor.operation": 2 },
    },
    {
      who: "ada",
      method: createListing,
      request: () => ({ publish: true, listing: draft() }),
      other: { listing: draft({ title: "Another lamp" }) },
      effect: { "catalog.listing": 1, "inventory.stock": 1 },
    },
    {
      who: "ada",
      method: batchCreateListings,
      request: () => ({ publish: true, listings: [draft(), draft({ externalId: newId() })] }),
      other: { listings: [draft()] },
      effect: { "catalog.listing": 2, "inventory.stock": 2 },
    },
    {
      who: "ada",
      method: publishListing,
      request: async () => ({ listingId: (await create(false)).listingId }),
      other: { listingId: newId() },
      effect: { "inventory.stock": 1 },
    },
    {
      who: "ada",
      method: createPayout,
      request: () => ({ amount: USD(100n) }),
      other: { amount: USD(101n) },
      effect: { "payment.payout": 1, "payment.ledger_transfer": 1, "processor.operation": 1 },
    },
    { who: "ben", method: createAddress, request: () => address("Reno"), other: address("Elko"), effect: { "account.address": 1 } },
    {
      who: "ada",
      method: withdrawListing,
      request: async () => ({ listingId: await publish() }),
      other: { listingId: newId() },
      effect: {},
    },
    {
      who: "ada",
      method: updateListing,
      request: async () => ({ ...pick(await create(false)), title: "A better lamp" }),
      other: { title: "The best lamp" },
      effect: {},
    },
    {
      who: "ben",
      method: cancelOrder,
      request: async () => ({ orderId: await buy() }),
      other: { orderId: newId() },
      effect: { "processor.operation": 1 },
    },
    {
      who: "ada",
      method: shipOrder,
      request: async () => ({ orderId: await buy(), carrier: "UPS" }),
      other: { carrier: "DHL" },
      effect: {},
    },
    {
      who: "ada",
      method: setPayoutDestination,
      request: () => ({ destinationToken: "bank_one", currencyCode: "USD" }),
      other: { destinationToken: "bank_two" },
      effect: {},
    },
  ];

  /** Twenty at once, through all ways by turns. */
  const atOnce = (who: string, method: Method, requests: object[]): Promise<Answer[]> =>
    Promise.all(
      requests.map((request, i) => served.call(who, method, request, { way: served.ways[i % served.ways.length] as Way })),
    );
  const rowsOf = async (places: Iterable<string>): Promise<Record<string, number>> => {
    const kept = await served.kept();
    return Object.fromEntries([...places].map((place) => [place, (kept.get(place) ?? assert.fail(place)).length]));
  };

  for (const { who, method, request, other, effect } of examples) {
    describe(`of ${method.name}`, () => {
      it("at once, twenty in all, take effect once and get one answer", async () => {
        const command = { requestId: newId(), ...(await request()) };
        const before = await rowsOf(Object.keys(effect));
        const answers = await atOnce(who, method, Array(20).fill(command));
        for (const answer of answers) {
          assert.equal(answer.code, undefined, `${answer.reason} ${answer.message}`);
          assert.deepEqual(answer.json, answers[0]?.json);
        }
        const after = await rowsOf(Object.keys(effect));
        assert.deepEqual(gained(before, after), effect);
        // And later, when all is over, the answer is still the first one.
        const late = await served.leavingNothing(() => served.ok(who, method, command));
        assert.deepEqual(late, answers[0]?.json);
      });

      it("with other content is refused, in every protocol, and leaves nothing", async () => {
        const command = { requestId: newId(), ...(await request()) };
        const first = await served.ok(who, method, command);
        await served.leavingNothing(async () => {
          for (const way of served.ways) {
            const answer = await served.call(who, method, { ...command, ...other }, { way });
            assertRefused(answer, Code.AlreadyExists, "REQUEST_ID_REUSED");
          }
          assert.deepEqual(await served.ok(who, method, command), first);
        });
      });
    });
  }

  for (const { who, method, request, effect } of examples.slice(0, 6)) {
    it(`of ${method.name} at once, half of them with other content: one content wins, exactly the others are refused`, async () => {
      const shared = { requestId: newId(), ...(await request()) };
      const rival = { ...shared, ...(method === publishListing ? await request() : rivalOf(method, shared)) };
      const before = await rowsOf(Object.keys(effect));
      const answers = await atOnce(
        who,
        method,
        Array.from({ length: 20 }, (_, i) => (i % 2 === 0 ? shared : rival)),
      );
      const [even, odd] = [answers.filter((_, i) => i % 2 === 0), answers.filter((_, i) => i % 2 === 1)];
      const [winners, losers] = even[0]?.code === undefined ? [even, odd] : [odd, even];
      for (const answer of winners) assert.deepEqual(answer.json ?? answer, winners[0]?.json);
      for (const answer of losers) assertRefused(answer, Code.AlreadyExists, "REQUEST_ID_REUSED");
      assert.deepEqual(gained(before, await rowsOf(Object.keys(effect))), effect);
      await served.assertBalanced();
    });
  }

  it("are told apart by caller: two accounts may use the same request_id", async () => {
    const requestId = newId();
    const first = await served.ok("ben", createAddress, { requestId, ...address("Reno") });
    const second = await served.ok("ada", createAddress, { requestId, ...address("Elko") });
    assert.notEqual(first.address.addressId, second.address.addressId);
  });

  it("are told apart by method: a request_id of one is refused to another of the same service", async () => {
    const requestId = newId();
    await served.ok("ben", createAddress, { requestId, ...address("Reno") });
    const answer = await served.leavingNothing(() => served.call("ben", updateProfile, { requestId, displayName: "Benjamin" }));
    assertRefused(answer, Code.AlreadyExists, "REQUEST_ID_REUSED");
  });

  it("of a refused command are new tries: nothing of the refusal is kept", async () => {
    const requestId = newId();
    const { listingId: id, etag } = await create(false);
    const change = { requestId, listingId: id, title: "A better lamp" };
    await served.leavingNothing(async () => {
      assertRefused(await served.call("ada", updateListing, { ...change, etag: "77" }), Code.Aborted, "ETAG_MISMATCH");
    });
    await served.ok("ada", updateListing, { ...change, etag });
  });

  it("of a payout cannot empty a balance: of many at once as many are made as it covers", async () => {
    const before = BigInt((await served.ok("ada", getBalance, {})).balances[0].available.amountMinor);
    const amount = USD(before / 4n + 1n);
    const answers = await atOnce(
      "ada",
      createPayout,
      Array.from({ length: 12 }, () => ({ requestId: newId(), amount })),
    );
    const refused = answers.filter((answer) => answer.code !== undefined);
    for (const answer of refused) assertRefused(answer, Code.FailedPrecondition, "BALANCE_TOO_LOW");
    assert.equal(refused.length, 9);
    const { balances } = await served.ok("ada", getBalance, {});
    assert.equal(BigInt(balances[0].available.amountMinor), before - 3n * amount.amountMinor);
  });

  it("of two edits with one etag: one is made, the other is told that the listing has changed", async () => {
    const { listingId: id, etag } = await create(true);
    const edits = Array.from({ length: 10 }, (_, i) => ({ requestId: newId(), listingId: id, etag, title: `Lamp ${i}` }));
    const answers = await atOnce("ada", updateListing, edits);
    const refused = answers.filter((answer) => answer.code !== undefined);
    assert.equal(refused.length, 9);
    for (const answer of refused) assertRefused(answer, Code.Aborted, "ETAG_MISMATCH");
  });

  it("of a last unit: ten buyers at once, one order, and nothing set aside for the others", async () => {
    const last = (await served.ok("ada", createListing, { requestId: newId(), publish: true, listing: draft({ units: 1 }) }))
      .listing.listingId;
    const orders = Array.from({ length: 10 }, () => ({
      ...purchase(),
      requestId: newId(),
      lines: [{ listingId: last, unitPrice: USD(5000n) }],
    }));
    const before = await served.kept();
    const answers = await atOnce("ben", placeOrder, orders);
    const refused = answers.filter((answer) => answer.code !== undefined);
    assert.equal(refused.length, 9);
    for (const { reason } of refused) assert.match(reason, /^(OUT_OF_STOCK|LISTING_NOT_AVAILABLE)$/);
    const come = difference(before, await served.kept());
    assert.equal(come.filter((change) => change.startsWith("+inventory.reservation ")).length, 1);
    assert.equal(come.filter((change) => change.startsWith("+payment.payment ")).length, 1);
  });
});

/** Other content that would have succeeded as well. */
function rivalOf(method: Method, request: object): object {
  switch (method) {
    case placeOrder: {
      const { lines } = request as { lines: object[] };
      return { lines: lines.map((line) => ({ ...line, units: 2 })) };
    }
    case createListing:
      return { listing: draft({ title: "Another lamp" }) };
    case batchCreateListings:
      return { listings: [draft({ title: "Another lamp" }), draft({ externalId: newId() })] };
    case createPayout:
      return { amount: USD(101n) };
    default:
      return address("Elko");
  }
}

function pick({ listingId, etag }: { listingId: string; etag: string }) {
  return { listingId, etag };
}

function gained(before: Record<string, number>, after: Record<string, number>): Record<string, number> {
  return Object.fromEntries(Object.entries(after).map(([place, count]) => [place, count - (before[place] ?? 0)]));
}
