import assert from "node:assert/strict";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { CatalogService, Condition } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { OpsService } from "#gen/marketplace/ops/v1/ops_pb.ts";
import { OrderService, OrderState } from "#gen/marketplace/order/v1/order_pb.ts";
import { ReindexState, SearchService } from "#gen/marketplace/search/v1/search_pb.ts";
import { newId } from "#runtime/ids.ts";
import { openRedis, redisReady } from "#runtime/redis.ts";
import { OUTLINES, SERVICES } from "../../services/marketplace.ts";
import { quietLog } from "../support/database.ts";
import { testMarketplace } from "../support/marketplace.ts";
import { type Fleet, startFleet } from "../support/processes.ts";

const PRICE = { currencyCode: "USD", amountMinor: 1250n };
const operator = { account: newId(), operator: true };

async function until(look: () => Promise<boolean> | boolean, what: string): Promise<void> {
  for (const end = Date.now() + 25_000; !(await look()); await sleep(30)) assert.ok(Date.now() < end, what);
}

describe("several processes that run the same service", function () {
  this.timeout(120_000);
  const seller = newId();
  let fleet: Fleet;
  let otherSimulator: string | undefined;
  before(async () => {
    fleet = await startFleet({
      processes: [
        ["catalog", "inventory", "account", "search"],
        ["order", "payment", "search", "ops"],
        ["account", "payment"],
      ],
      env: { SOUK_LOG_LEVEL: "info" },
      program: (index) => ["services/main.ts", ...(index === 2 && otherSimulator ? ["--simulator-file", otherSimulator] : [])],
    });
  });
  after(() => fleet?.stop());

  async function publish(title: string, units = 1): Promise<string> {
    const { listing } = await fleet.client(CatalogService, { account: seller }, "catalog").createListing({
      requestId: newId(),
      publish: true,
      listing: { title, categoryId: "golf-clubs", condition: Condition.GOOD, price: PRICE, units },
    });
    return listing?.listingId ?? "";
  }

  const finds = async (index: number, query: string) =>
    (await fleet.client(SearchService, undefined, index).searchListings({ query })).results.length > 0;
  const found = (query: string) =>
    until(async () => (await finds(0, query)) && (await finds(1, query)), `"${query}" is not found by both`);
  const rebuilds = (index: number) => fleet.output(index).split("the search index is rebuilt").length - 1;

  it("with search, each find every listing", async () => {
    await publish("Zither");
    await publish("Hurdygurdy");
    await found("zither");
    await found("hurdygurdy");
  });

  it("with search, each rebuild their index when an operator asks one of them", async () => {
    const before = [rebuilds(0), rebuilds(1)];
    const search = fleet.client(SearchService, operator, 0);
    await search.startReindex({ requestId: newId() });
    await until(async () => (await search.getIndexStatus({})).reindex?.state === ReindexState.DONE, "it is not done");
    await until(() => rebuilds(0) > (before[0] ?? 0) && rebuilds(1) > (before[1] ?? 0), "one has not followed");
    assert.deepEqual(
      [rebuilds(0), rebuilds(1)],
      before.map((count) => count + 1),
    );
  });

  it("with search, each find what was published while they were down, or while Redis lost everything", async () => {
    const before = rebuilds(1);
    await fleet.kill(1, "SIGTERM");
    await publish("Theremin");
    await fleet.restart(1);
    await found("theremin");
    assert.equal(rebuilds(1), before, "what it missed comes as events");
    const redis = openRedis({ url: fleet.redisUrl, log: quietLog, name: "test" });
    await redisReady(redis, 5_000);
    await Promise.all([redis.flushall(), publish("Glockenspiel")]);
    redis.disconnect();
    await found("glockenspiel");
    await publish("Ocarina");
    await found("ocarina");
  });

  it("with payment, share the simulated processor, and a process with another is refused in a sentence", async () => {
    const buyer = newId();
    const place = { recipient: "Ben", lines: ["1 Long Road"], city: "Springfield", postalCode: "97477", countryCode: "US" };
    const accounts = fleet.client(AccountService, { account: buyer }, "account");
    const addressId = (await accounts.createAddress({ requestId: newId(), ...place })).address?.addressId ?? "";
    const listingId = await publish("Bagpipe", 10);
    const buy = async () => {
      const orders = fleet.client(OrderService, { account: buyer }, "order");
      const lines = [{ listingId, unitPrice: PRICE }];
      const request = { requestId: newId(), lines, addressId, paymentMethodToken: "tok_approved" };
      assert.equal((await orders.placeOrder(request)).order?.state, OrderState.PAID);
    };
    await buy();
    assert.equal(await fleet.kill(2, "SIGTERM"), 0);
    await buy();
    otherSimulator = join(fleet.folder, "another.db");
    await assert.rejects(fleet.restart(2), /another simulated processor than the one in .*another\.db.*SOUK_SIMULATOR_FILE/);
    otherSimulator = undefined;
    await fleet.restart(2);
    await buy();
    const ops = fleet.client(OpsService, operator, "ops");
    await until(async () => (await ops.checkBooks({})).balanced, "the books are not right");
  });
});

describe("what processes know of services that run elsewhere", () => {
  it("is what these are", async () => {
    const market = await testMarketplace();
    try {
      assert.deepEqual(
        market.modules.map(({ name }) => name),
        SERVICES,
      );
      for (const { name, consumers } of market.modules) {
        const outline = OUTLINES[name as keyof typeof OUTLINES];
        assert.deepEqual(
          consumers.map(({ consumer }) => consumer),
          outline.consumers,
          name,
        );
        const replicated = consumers.filter(({ replica }) => replica !== undefined).map(({ consumer }) => consumer);
        assert.deepEqual(replicated, outline.replicated ?? [], name);
        for (const contract of outline.contracts) market.directory.transport(contract, name);
      }
    } finally {
      await market.stop();
    }
  });
});
