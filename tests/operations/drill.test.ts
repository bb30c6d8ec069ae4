import assert from "node:assert/strict";
import { cpSync, rmSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import { type MessageInitShape, toJson } from "@bufbuild/protobuf";
import { CatalogService, type Listing, ListingState } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { ListDeadLettersResponseSchema, OpsService } from "#gen/marketplace/ops/v1/ops_pb.ts";
import { type Order, OrderService, OrderState, type PlaceOrderRequestSchema } from "#gen/marketplace/order/v1/order_pb.ts";
import { PaymentService, PayoutState } from "#gen/marketplace/payment/v1/payment_pb.ts";
import { SearchService } from "#gen/marketplace/search/v1/search_pb.ts";
import { newId } from "#runtime/ids.ts";
import { refused } from "../support/refused.ts";
import { type Drill, leaveDeadLetter, openDrill, type Restored, unpublishedEvents } from "./drill.ts";
import { quotedIn } from "./page.ts";
import { BRIEFLY, openStall, PRICE_MINOR, type Stall, type Trade } from "./trade.ts";

const MAX_WAIT_MS = 30_000;
const operator = { account: newId(), operator: true };

describe("the drill of docs/operations.md", function () {
  this.timeout(120_000);
  let drill: Drill;
  let stall: Stall;
  let traded: Traded;
  let backup: string;
  let deadLetters: string;
  let late: Order;

  before(async () => {
    drill = await openDrill();
    stall = await openStall(drill);
    await stall.trade.open();
    traded = await tradeInEveryState(stall, drill);
    await leaveDeadLetter(drill);
    deadLetters = await lettersOf(stall);
    assert.notEqual(await unpublishedEvents(drill), 0);
    backup = await drill.backUp("backup");
    stall.lost.clear();
    const { orderId } = await stall.trade.buy(traded.onSale);
    await stall.trade.ship(orderId);
    late = await stall.trade.confirm(orderId);
  });
  after(async () => {
    await stall?.stop();
    await drill?.close();
  });

  it("gives back the marketplace of the backup, with right books, and what was under way comes to its end", async () => {
    const restored = await drill.restore(backup);
    const [books = "", ...letters] = await restored.check();
    assert.equal(JSON.parse(books).balanced, true, books);
    assert.equal(linesOf(letters.map((line) => JSON.parse(line))), deadLetters);
    await sagasGoOn(restored, traded);
    await peopleGoOn(restored, traded);
    await factsArrive(restored, traded);
    await nothingIsLeftOf(late, restored);
    const { balanced, checks } = await restored.as(operator, OpsService).checkBooks({});
    assert.ok(balanced, JSON.stringify(checks.map(({ findings }) => findings)));
    await restored.stop();
  });

  it("is preceded by the page's lines about tables, which leave those of this version alone", async () => {
    const lines = (await drill.upgrade()).split("\n");
    assert.ok(
      lines.some((line) => /^payment +0001-ledger +done /.test(line)),
      lines.join("\n"),
    );
    assert.ok(lines.includes("payment: up to date"), lines.join("\n"));
  });

  it("says in the page's words when the processor's books are newer than the snapshot", async () => {
    const later = await drill.backUp("later");
    rmSync(join(later, "souk.sql"));
    cpSync(join(backup, "souk.sql"), join(later, "souk.sql"));
    const restored = await drill.restore(later);
    await sagasGoOn(restored, traded);
    const [books = ""] = await restored.check();
    const { balanced, checks } = JSON.parse(books);
    assert.ok(!balanced);
    const sentence = new RegExp(
      quotedIn("### The drill")
        .replace(/[0-9]+/g, "([0-9]+)")
        .replace(/\.$/, "\\."),
    );
    const findings: string[] = checks.flatMap((check: { findings?: string[] }) => check.findings ?? []);
    const [, processors, ours] = findings.map((finding) => sentence.exec(finding)).find((found) => found !== null) ?? [];
    assert.equal(BigInt(processors ?? 0) - BigInt(ours ?? 0), PRICE_MINOR, books);
    await restored.stop();
  });
});

/** What was traded before the backup. */
interface Traded {
  readonly trade: Trade;
  readonly orders: Readonly<Record<Kind, Order>>;
  /** The purchase that the buyer got no answer to. */
  readonly unanswered: MessageInitShape<typeof PlaceOrderRequestSchema>;
  readonly payoutId: string;
  /** It is sold after the backup. */
  readonly onSale: Listing;
}
type Kind = "paid" | "shipped" | "completed" | "cancelled" | "asked" | "placing" | "completing" | "cancelling" | "unheard";

/** Leaves an order in every state, in some of them in the middle of a step, a payout under way and events that nobody has heard. */
async function tradeInEveryState({ trade, lost, settle }: Stall, drill: Drill): Promise<Traded> {
  const completed = await trade.completed("Completed");
  const amount = { currencyCode: "USD", amountMinor: PRICE_MINOR / 2n };
  const { payout } = await trade.seller.payment.createPayout({ requestId: newId(), amount });
  const paid = await trade.paid("Paid");
  const shipped = await trade.shipped("Shipped");
  const cancelled = await trade.cancel((await trade.paid("Cancelled")).orderId);
  const asked = await trade.buy(await trade.offer("Asked"), "tok_needs_confirmation");
  const parcel = await trade.shipped("Completing");
  const regret = await trade.paid("Cancelling");
  for (const method of ["CapturePayment", "ReleaseEscrow", "RefundPayment"]) lost.add(method);
  const unanswered = trade.purchaseOf(await trade.offer("Placing"));
  await refused(trade.buyer.placeOrder(unanswered, BRIEFLY), "DEADLINE_EXCEEDED");
  const { orders: placed } = await trade.buyer.listOrders({ pageSize: 1 });
  const placing = placed[0] as Order;
  const completing = await trade.confirm(parcel.orderId, BRIEFLY);
  const cancelling = await trade.cancel(regret.orderId, BRIEFLY);
  lost.clear();
  await trade.offer("Nobody's choice");
  const onSale = await trade.offer("On sale");
  const wanted = await trade.offer("Unheard");
  await settle();
  await drill.loseRedis();
  const unheard = await trade.buy(wanted);
  const orders = { paid, shipped, completed, cancelled, asked, placing, completing, cancelling, unheard };
  assert.deepEqual(
    Object.values(orders).map(({ state }) => nameOf(OrderState, state)),
    ["PAID", "SHIPPED", "COMPLETED", "CANCELLED", "AWAITING_CONFIRMATION", "PLACING", "COMPLETING", "CANCELLING", "PAID"],
  );
  assert.equal(payout?.state, PayoutState.PENDING);
  return { trade, orders, unanswered, payoutId: payout?.payoutId ?? "", onSale };
}

/** What the platform finishes by itself. */
async function sagasGoOn(restored: Restored, { trade, orders, payoutId }: Traded): Promise<void> {
  const buyer = restored.as({ account: trade.buyerId }, OrderService);
  const seller = restored.as({ account: trade.sellerId }, PaymentService);
  const stateOf = async ({ orderId }: Order) => nameOf(OrderState, (await buyer.getOrder({ orderId })).order?.state);
  await becomes(
    async () => [
      await stateOf(orders.placing),
      await stateOf(orders.completing),
      await stateOf(orders.cancelling),
      nameOf(PayoutState, (await seller.getPayout({ payoutId })).payout?.state),
    ],
    ["PAID", "COMPLETED", "CANCELLED", "PAID"],
  );
}

/** What people finish. */
async function peopleGoOn(restored: Restored, { trade, orders, unanswered }: Traded): Promise<void> {
  const buyer = restored.as({ account: trade.buyerId }, OrderService);
  const { order: first } = await buyer.placeOrder(unanswered);
  assert.equal(first?.orderId, orders.placing.orderId, "a repeat gets the answer that the first did not get");
  const seller = restored.as({ account: trade.sellerId }, OrderService);
  const { order: asked } = await buyer.getOrder({ orderId: orders.asked.orderId });
  const page = new URL(asked?.confirmationUrl ?? "").pathname;
  assert.equal((await fetch(`${restored.url}${page}/confirm`, { method: "POST" })).status, 200);
  await buyer.continueOrder({ requestId: newId(), orderId: orders.asked.orderId });
  for (const { orderId } of [orders.asked, orders.paid, orders.placing, orders.unheard]) {
    await seller.shipOrder({ requestId: newId(), orderId, carrier: "Pigeon" });
  }
  for (const { orderId } of [orders.asked, orders.paid, orders.placing, orders.unheard, orders.shipped]) {
    const { order } = await buyer.confirmOrder({ requestId: newId(), orderId, rating: { stars: 5 } });
    assert.equal(order?.state, OrderState.COMPLETED);
  }
}

/** Events that nobody had heard are heard; what is on sale is found, what is sold is not. */
async function factsArrive(restored: Restored, { trade, orders, onSale }: Traded): Promise<void> {
  const catalog = restored.as({ account: trade.sellerId }, CatalogService);
  const listingId = orders.unheard.lines[0]?.listingId ?? "";
  await becomes(async () => (await catalog.getListing({ listingId })).listing?.state, ListingState.SOLD);
  const search = restored.as(undefined, SearchService);
  const titles = async () => {
    const { results } = await search.searchListings({ filter: { sellerId: trade.sellerId } });
    return results.map(({ title }) => title).sort();
  };
  await becomes(titles, ["Nobody's choice", onSale.title]);
}

/** What was sold after the snapshot was never there. */
async function nothingIsLeftOf(late: Order, restored: Restored): Promise<void> {
  const buyer = restored.as({ account: late.buyerId }, OrderService);
  await refused(buyer.getOrder({ orderId: late.orderId }), "ORDER_NOT_FOUND");
}

async function lettersOf({ as }: Stall): Promise<string> {
  const ops = as(operator, OpsService);
  const answers = [];
  for (const service of ["account", "catalog", "inventory", "order", "payment", "search"]) {
    answers.push(toJson(ListDeadLettersResponseSchema, await ops.listDeadLetters({ service })));
  }
  return linesOf(answers);
}

function linesOf(answers: readonly unknown[]): string {
  return answers.map((answer) => JSON.stringify(answer)).join("\n");
}

function nameOf(states: Readonly<Record<string, number>>, state = 0): string | undefined {
  return Object.keys(states).find((name) => states[name] === state);
}

/** Looks again and again until it is as expected; the last look decides. */
async function becomes<T>(look: () => Promise<T>, expected: T): Promise<void> {
  const end = Date.now() + MAX_WAIT_MS;
  let seen = await look();
  while (!isDeepStrictEqual(seen, expected) && Date.now() < end) {
    await sleep(100);
    seen = await look();
  }
  assert.deepEqual(seen, expected);
}
