import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { type Client, createClient } from "@connectrpc/connect";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { CatalogService } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { OrderService, OrderState } from "#gen/marketplace/order/v1/order_pb.ts";
import { RedisStore } from "#runtime/cache/redis-store.ts";
import { systemClock } from "#runtime/clock.ts";
import { newId } from "#runtime/ids.ts";
import { openRedis, type RedisClient, redisReady } from "#runtime/redis.ts";
import { embeddedVerifiers, type Keys, temporaryKeys } from "#runtime/tokens.ts";
import { kept } from "../../services/catalog/public-view.ts";
import { type Marketplace, openMarketplace } from "../../services/marketplace.ts";
import type { PrivateServer } from "../../tools/stores/private.ts";
import { startRedis } from "../../tools/stores/redis.ts";
import { quietLog } from "../support/database.ts";
import { refused } from "../support/refused.ts";
import { signedIn } from "../support/server.ts";
import { draft } from "./marketplace.ts";

const price = { currencyCode: "USD", amountMinor: 1250n };
const forged = { currencyCode: "USD", amountMinor: 1n };

describe("reads and purchases with listings remembered in Redis", () => {
  let redis: PrivateServer;
  let market: Marketplace;
  let keys: Keys;
  const seller = newId();
  const buyer = newId();
  let addressId: string;

  before(async function () {
    this.timeout(120_000);
    redis = await startRedis();
    keys = await temporaryKeys();
    market = await openMarketplace({
      dataDir: undefined,
      redisUrl: redis.url,
      keys,
      verifiers: embeddedVerifiers(keys),
      clock: systemClock,
      log: quietLog,
      baseUrl: () => "http://localhost:8080",
    });
    await market.start();
    const { address } = await as(buyer, AccountService).createAddress({
      requestId: newId(),
      recipient: "Ben",
      lines: ["1 Long Road"],
      city: "Springfield",
      postalCode: "97477",
      countryCode: "US",
    });
    addressId = address?.addressId ?? "";
  });
  after(async () => {
    await market.stop();
    await redis.stop();
  });

  function as<S extends typeof AccountService | typeof CatalogService | typeof OrderService>(
    account: string,
    service: S,
  ): Client<S> {
    return createClient(service, market.directory.transport(service, undefined, [signedIn(keys, { account })]));
  }
  async function offer(): Promise<string> {
    const { listing } = await as(seller, CatalogService).createListing({
      requestId: newId(),
      publish: true,
      listing: draft({ price }),
    });
    return listing?.listingId ?? "";
  }
  const buy = (listingId: string, unitPrice = price) =>
    as(buyer, OrderService).placeOrder({
      requestId: newId(),
      addressId,
      paymentMethodToken: "tok_approved",
      lines: [{ listingId, unitPrice }],
    });
  const read = async (listingId: string) => (await as(buyer, CatalogService).getListing({ listingId })).listing;

  /** Reads and buys; nothing of it may fail. */
  async function shop(): Promise<void> {
    const listingIds = await Promise.all([offer(), offer(), offer()]);
    const many = Array.from({ length: 60 }, (_, index) => read(listingIds[index % 3] ?? ""));
    assert.ok((await Promise.all(many)).every((listing) => listing?.title === "Seven iron"));
    const { listings } = await as(buyer, CatalogService).batchGetListings({ listingIds });
    assert.equal(listings.length, 3);
    const { order } = await buy(listingIds[0] ?? "");
    assert.equal(order?.state, OrderState.PAID);
  }

  async function asked(): Promise<{ client: RedisClient; end: () => void }> {
    const client = openRedis({ url: redis.url, log: quietLog, name: "test" });
    await redisReady(client, 5_000);
    return { client, end: () => client.disconnect() };
  }

  it("are remembered there, and not for ever", async () => {
    const listingId = await offer();
    const { client, end } = await asked();
    while ((await client.pttl(`souk.cache:listing:2:${listingId}`)) <= 0) {
      await read(listingId);
      await sleep(5);
    }
    assert.ok((await client.pttl(`souk.cache:listing:2:${listingId}`)) <= 60_000);
    end();
  });

  it("buy by the price of the table, whatever is remembered", async () => {
    const listingId = await offer();
    const row = await read(listingId);
    const store = new RedisStore({ url: redis.url, log: quietLog, codec: kept.codec, timeoutMs: 5_000 });
    const key = `souk.cache:listing:2:${listingId}`;
    const value = { ...row, price: { ...row?.price, ...forged } } as Parameters<typeof kept.codec.encode>[0];
    const entry = { value, version: 1_000, expireTime: Date.now() + 60_000, loadMs: 0 };
    while ((await read(listingId))?.price?.amountMinor !== forged.amountMinor) {
      await store.put([{ key, entry }]);
      await sleep(5);
    }
    await refused(buy(listingId, forged), "PRICE_CHANGED");
    assert.equal((await buy(listingId)).order?.state, OrderState.PAID);
    store.close();
  });

  it("go on when Redis is emptied", async () => {
    const { client, end } = await asked();
    await shop();
    await client.flushall();
    end();
    await shop();
  });

  it("go on when Redis does not answer, and when it does again", async () => {
    process.kill(redis.pid, "SIGSTOP");
    try {
      await shop();
      await shop();
    } finally {
      process.kill(redis.pid, "SIGCONT");
    }
    await shop();
  });

  it("go on when Redis is gone", async () => {
    process.kill(redis.pid, "SIGKILL");
    await redis.exited;
    await shop();
    await shop();
  });
});
