import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { createClient, type Transport } from "@connectrpc/connect";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { CatalogService, Condition } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { OpsService } from "#gen/marketplace/ops/v1/ops_pb.ts";
import { OrderService, OrderState } from "#gen/marketplace/order/v1/order_pb.ts";
import { newId } from "#runtime/ids.ts";
import { signAccountToken } from "#runtime/tokens.ts";
import { createSoukTransport } from "../../client/transport.ts";
import { TABLES } from "../../services/tables.ts";
import { GATEWAY_NAMESPACE, tool, until } from "./cluster.ts";
import { killPod, podsOf } from "./disaster.ts";
import { underLoad } from "./load.ts";
import { pageFetch } from "./page.ts";
import { installSouk, type Release, valuesBehind } from "./release.ts";
import { report } from "./report.ts";

const host = "rotation-test.souk.example";
const PRICE = { currencyCode: "USD", amountMinor: 5000n };
const SERVICES = [...Object.keys(TABLES), "ops"];

describe("the marketplace in the mesh while its parts are replaced", function () {
  this.timeout(600_000);
  let release: Release;
  before(async () => {
    const services = { order: { replicas: 2 }, inventory: { replicas: 2 } };
    release = await installSouk((jwks) => ({ ...valuesBehind(host)(jwks), services }));
    await until("the gateway lets calls in", async () => {
      await createClient(CatalogService, await page()).listCategories({});
      return true;
    });
  });
  after(() => release?.end());

  /** What a page in a browser calls with, signed in as somebody or not. */
  async function page(accountId?: string, operator = false): Promise<Transport> {
    const token = accountId && (await signAccountToken(release.keys, { accountId, operator, ttlMs: 3_600_000 }));
    return createSoukTransport({ baseUrl: `http://${host}`, token: () => token, fetch: pageFetch(host) });
  }

  interface Buyer {
    readonly transport: Transport;
    readonly addressId: string;
  }

  async function buyer(): Promise<Buyer> {
    const transport = await page(newId());
    const to = { recipient: "Ben", lines: ["1 Way"], city: "Springfield", postalCode: "12345", countryCode: "US" };
    const { address } = await createClient(AccountService, transport).createAddress({ requestId: newId(), ...to });
    return { transport, addressId: address?.addressId ?? "" };
  }

  /** A thing of somebody who sells nothing else. */
  async function offer(): Promise<string> {
    const what = { title: "Celeste racing bike", categoryId: "road-bikes", condition: Condition.GOOD, price: PRICE };
    const catalog = createClient(CatalogService, await page(newId()));
    const { listing } = await catalog.createListing({ requestId: newId(), publish: true, listing: what });
    return listing?.listingId ?? "";
  }

  /** Offers so many things, some at a time. */
  async function offers(count: number): Promise<string[]> {
    const listings: string[] = [];
    const offering = async () => {
      while (listings.length < count) listings.push(await offer());
    };
    await Promise.all(Array.from({ length: 6 }, offering));
    return listings;
  }

  /** Lets each buyer buy one thing after the other until all are sold. */
  async function sellOut(listings: string[], buyers: readonly Buyer[], buy: (buyer: Buyer, listingId: string) => Promise<void>) {
    const buying = async (each: Buyer) => {
      for (let listingId = listings.pop(); listingId !== undefined; listingId = listings.pop()) await buy(each, listingId);
    };
    await Promise.all(buyers.map(buying));
  }

  const purchase = ({ transport, addressId }: Buyer, listingId: string, requestId = newId()) =>
    createClient(OrderService, transport).placeOrder({
      requestId,
      addressId,
      paymentMethodToken: "tok_approved",
      lines: [{ listingId, unitPrice: PRICE }],
    });

  /** Does something until it succeeds, as a person who is asked to try again. */
  async function persistently<T>(what: () => Promise<T>, failed: () => void): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await what();
      } catch (error) {
        if (attempt >= 60) throw error;
        failed();
        await sleep(1_000);
      }
    }
  }

  async function booksAreRight(): Promise<void> {
    const ops = createClient(OpsService, await page(newId(), true));
    await until("the books are right", async () => (await ops.checkBooks({})).balanced, 90);
  }

  it("crosses at most 4 pairs of sidecars for a purchase, the processor excluded", async () => {
    const somebody = await buyer();
    await purchase(somebody, await offer());
    const listingId = await offer();
    await sleep(3_000);
    const since = new Date().toISOString();
    await sleep(1_000);
    await purchase(somebody, listingId);
    await sleep(1_000);
    const crossed: string[] = [];
    for (const service of SERVICES) {
      const selector = `app.kubernetes.io/name=${service}`;
      const lines = await tool("kubectl", "-n", release.name, "logs", "-l", selector, "-c", "istio-proxy", `--since-time=${since}`);
      const pattern = new RegExp(`POST /([\\w.]+/\\w+) HTTP.*outbound\\|8080\\|\\|${release.name}-(\\w+)\\.`, "g");
      for (const [, method, callee] of lines.matchAll(pattern)) {
        // The processor is outside, and has no sidecar.
        if (callee !== "processor") crossed.push(`${service} → ${callee} ${method?.split("/")[1]}`);
      }
    }
    const pairs = new Set(crossed.map((each) => each.split(" ").slice(0, 3).join(" ")));
    report(`a purchase crosses ${pairs.size} pairs of sidecars, with ${crossed.length} calls: ${crossed.join(", ")}`);
    assert.ok(pairs.size > 0 && pairs.size <= 4, [...pairs].join(", "));
  });

  it("sells through the gateway as fast as it can", async () => {
    const listings = await offers(120);
    const count = listings.length;
    const buyers = await Promise.all(Array.from({ length: 12 }, buyer));
    let paid = 0;
    const beginTime = performance.now();
    await sellOut(listings, buyers, async (each, listingId) => {
      const { order } = await purchase(each, listingId);
      if (order?.state === OrderState.PAID) paid++;
    });
    report(
      `purchases through the gateway: ${(paid / ((performance.now() - beginTime) / 1_000)).toFixed(1)} a second, 12 buyers at once`,
    );
    assert.equal(paid, count);
  });

  it("sells everything to pages in browsers while pods are killed, each thing once, and the books are right", async () => {
    const listings = await offers(36);
    const count = listings.length;
    const buyers = await Promise.all(Array.from({ length: 6 }, buyer));
    const orders = new Set<string>();
    let again = 0;
    const buying = sellOut(listings, buyers, async (each, listingId) => {
      const requestId = newId();
      const { order } = await persistently(
        () => purchase(each, listingId, requestId),
        () => again++,
      );
      const orderId = order?.orderId ?? "";
      const reading = createClient(OrderService, each.transport);
      await until("the order is paid", async () => (await reading.getOrder({ orderId })).order?.state === OrderState.PAID, 90);
      orders.add(orderId);
      await sleep(500);
    });
    buying.catch(() => {});
    for (const service of ["inventory", "order", "account", "order", "inventory"]) {
      await killPod(release, (await podsOf(release, service))[0] ?? "");
      await sleep(3_000);
    }
    await buying;
    assert.equal(orders.size, count);
    await booksAreRight();
    report(`${count} purchases while 5 pods were killed: all paid, their buyers asked again ${again} times`);
  });

  it("loses no call while every service and the gateway restart", async () => {
    const restart = async (namespace: string, ...deployments: string[]) => {
      await tool("kubectl", "-n", namespace, "rollout", "restart", "deploy", ...deployments);
      for (const each of deployments) {
        await tool("kubectl", "-n", namespace, "rollout", "status", `deploy/${each}`, "--timeout=300s");
      }
    };
    const { calls, again, failures } = await underLoad({ keys: release.keys, host }, async () => {
      await restart(release.name, ...SERVICES.map((service) => `${release.name}-${service}`));
      await restart(GATEWAY_NAMESPACE, "istio-ingressgateway");
      await sleep(3_000);
    });
    report(
      `every service and the gateway restarted: ${calls} calls, ${again} sent again by the caller; failed: ${failures.join(", ") || "none"}`,
    );
    assert.deepEqual(failures, []);
    await booksAreRight();
  });
});
