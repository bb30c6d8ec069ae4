import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { CatalogService, Condition } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { OpsService } from "#gen/marketplace/ops/v1/ops_pb.ts";
import { OrderService, OrderState } from "#gen/marketplace/order/v1/order_pb.ts";
import { SearchService } from "#gen/marketplace/search/v1/search_pb.ts";
import { newId } from "#runtime/ids.ts";
import { motionStates } from "../../services/order/states.ts";
import { TABLES } from "../../services/tables.ts";
import { Ledger } from "../crash/ledger.ts";
import { type Market, openMarket, Trader } from "../crash/traders.ts";
import { rolledOut } from "./beside.ts";
import { tool, until } from "./cluster.ts";
import { evictAll, killPod, podsOf } from "./disaster.ts";
import { report, seconds, table } from "./report.ts";
import { endShared, type SharedRelease, sharedRelease } from "./shared.ts";
import { killStore } from "./stores.ts";
import type { Through } from "./through.ts";

const TRADERS = 6;
const SETTLE_MS = 120_000;
const PRICE = { currencyCode: "USD", amountMinor: 1250n };
const PLACE = { recipient: "Ben", lines: ["1 Long Road"], city: "Springfield", postalCode: "97477", countryCode: "US" };

describe("a marketplace on a cluster whose parts are killed in the middle of purchases", function () {
  this.timeout(600_000);
  let release: SharedRelease;
  let through: Through;
  let market: Market;
  let trading: Promise<unknown> = Promise.resolve();
  const stop = new AbortController();
  const rows: (string | number)[][] = [["what", "until a purchase that begins then is answered", "calls sent again by then"]];
  const buyer = { addressId: "", listingId: "" };
  const [seller, customer] = [newId(), newId()];

  before(async () => {
    release = await sharedRelease();
    through = release.through;
    market = openMarket(through, new Ledger(through));
    const listing = { title: "Seven iron", categoryId: "golf-clubs", condition: Condition.GOOD, price: PRICE, units: 100 };
    const created = await market.ledger.send(seller, CatalogService.method.createListing, {
      requestId: newId(),
      publish: true,
      listing,
    });
    buyer.listingId = created?.listing?.listingId ?? "";
    const { address } =
      (await market.ledger.send(customer, AccountService.method.createAddress, { requestId: newId(), ...PLACE })) ?? {};
    buyer.addressId = address?.addressId ?? "";
    const traders = Array.from({ length: TRADERS }, (_, index) => new Trader(market, index));
    await Promise.all(traders.map((trader) => trader.open()));
    trading = Promise.all(traders.map((trader) => trader.trade(stop.signal)));
  });
  after(async () => {
    stop.abort();
    market?.ledger.close();
    await trading;
    // No file behind this one needs it, and a node has room for so many proxies only.
    await endShared();
  });

  /** Does it, and counts from then until a purchase that begins then is answered. */
  async function recovery(what: string, disturb: () => Promise<void>): Promise<void> {
    await sleep(1_000);
    await disturb();
    const { ledger, orders } = market;
    const [beginTime, repeats] = [performance.now(), ledger.repeats];
    const { order } =
      (await ledger.send(customer, OrderService.method.placeOrder, {
        requestId: newId(),
        addressId: buyer.addressId,
        paymentMethodToken: "tok_approved",
        lines: [{ listingId: buyer.listingId, unitPrice: PRICE }],
      })) ?? {};
    if (order !== undefined) orders.set(order.orderId, order);
    rows.push([what, seconds(performance.now() - beginTime), ledger.repeats - repeats]);
    assert.equal(order?.state, OrderState.PAID);
  }

  it("sells on when a pod of each service is killed in turn", async () => {
    const services = await replaceable();
    assert.ok(services.length >= 6, `only ${services} can be killed`);
    for (const service of services) {
      await recovery(`a pod of ${service} is killed`, async () => {
        const [pod] = await podsOf(release, service);
        await killPod(release, pod ?? "");
      });
    }
    for (const service of services) await rolledOut(release.name, `${release.name}-${service}`);
  });

  it("has a pod of a service that takes calls at all times while all of them are evicted", async () => {
    await recovery("all pods of order are evicted", async () => {
      const { refused, leastReady } = await evictAll(release, "order");
      assert.ok(refused > 0, "the budget refused no eviction");
      assert.ok(leastReady >= 1, "no pod took calls");
    });
    await rolledOut(release.name, `${release.name}-order`);
  });

  it("sells again as soon as MariaDB is back that was killed", async () => {
    await recovery("MariaDB is killed", () => killStore(release.name, "mariadb"));
    await rolledOut(release.name, "mariadb");
  });

  it("sells without Redis, and everybody hears what happened when it is back", async () => {
    await recovery("Redis is killed, which forgets everything", () => killStore(release.name, "redis"));
    const beginTime = performance.now();
    const word = `celeste${Date.now()}`;
    const listing = { title: word, categoryId: "golf-clubs", condition: Condition.GOOD, price: PRICE };
    await market.ledger.send(seller, CatalogService.method.createListing, { requestId: newId(), publish: true, listing });
    await until("search knows a listing", async () => {
      const { results } = await through.client(SearchService).searchListings({ query: word });
      return results.length === 1;
    });
    rows.push(["... and search has a listing made then", seconds(performance.now() - beginTime), ""]);
  });

  it("has every order that it acknowledged, ends every one, and its books are right", async () => {
    stop.abort();
    await trading;
    const { ledger, orders } = market;
    assert.deepEqual(ledger.findings, []);
    const buyers = new Set(ledger.acknowledged.map(({ account }) => account));
    const there = await settled([...buyers]);
    for (const [orderId, told] of orders) assert.equal(there.get(orderId), ended(told.state), orderId);
    for (const [orderId, state] of there) {
      assert.ok(orders.has(orderId) || state === OrderState.CANCELLED, `nobody was told of ${orderId}`);
    }
    const ops = through.client(OpsService, { account: newId(), operator: true });
    const { checks, balanced } = await ops.checkBooks({});
    assert.deepEqual(
      checks.flatMap(({ findings }) => findings),
      [],
    );
    assert.ok(balanced);
    for (const service of Object.keys(TABLES)) {
      assert.deepEqual((await ops.listDeadLetters({ service })).deadLetters, [], service);
    }
    report(
      ...table(rows),
      `${ledger.acknowledged.length} commands answered, ${ledger.repeats} calls sent again after all attempts; ${orders.size} orders.`,
    );
  });

  /** The services of which a pod may go at any time: not one that keeps what it knows to itself, and is therefore never there twice. */
  async function replaceable(): Promise<string[]> {
    const selector = `app.kubernetes.io/instance=${release.name}`;
    const { items } = JSON.parse(await tool("kubectl", "-n", release.name, "get", "deployments", "-l", selector, "-o", "json")) as {
      items: { metadata: { labels: Record<string, string> }; spec: { strategy: { type: string } } }[];
    };
    return items
      .filter(({ spec }) => spec.strategy.type !== "Recreate")
      .map(({ metadata }) => metadata.labels["app.kubernetes.io/name"] ?? "");
  }

  /** The orders of these buyers, once none is on its way any more. */
  async function settled(buyers: readonly string[]): Promise<Map<string, OrderState>> {
    for (const end = Date.now() + SETTLE_MS; ; await sleep(1_000)) {
      const all = new Map((await Promise.all(buyers.map(ordersOf))).flat());
      const moving = [...all].filter(([, state]) => motionStates.some((name) => OrderState[name] === state));
      if (moving.length === 0) return all;
      assert.ok(Date.now() < end, `orders are on their way still: ${moving.map(([orderId]) => orderId)}`);
    }
  }

  async function ordersOf(account: string): Promise<[string, OrderState][]> {
    const client = through.client(OrderService, { account });
    const orders: [string, OrderState][] = [];
    for (let pageToken = ""; ; ) {
      const page = await client.listOrders({ pageSize: 100, pageToken });
      orders.push(...page.orders.map(({ orderId, state }) => [orderId, state] as [string, OrderState]));
      pageToken = page.nextPageToken;
      if (pageToken === "") return orders;
    }
  }
});

/** The state once what is under way is over. */
function ended(state: OrderState): OrderState {
  if (state === OrderState.CANCELLING) return OrderState.CANCELLED;
  return state === OrderState.COMPLETING ? OrderState.COMPLETED : state;
}
