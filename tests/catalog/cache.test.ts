import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { fromBinary } from "@bufbuild/protobuf";
import { type Listing, ListingState } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { type Event, EventSchema } from "#gen/marketplace/event/v1/event_pb.ts";
import { MemoryStore } from "#runtime/cache/memory-store.ts";
import { NearStore } from "#runtime/cache/near-store.ts";
import { RedisStore } from "#runtime/cache/redis-store.ts";
import type { CacheStore } from "#runtime/cache/store.ts";
import type { OpenCacheStore } from "#runtime/cache/stores.ts";
import { manualClock } from "#runtime/clock.ts";
import { openDatabase } from "#runtime/database/database.ts";
import type { Subscription } from "#runtime/events/bus.ts";
import { newId } from "#runtime/ids.ts";
import { entities } from "../../services/catalog/entities.ts";
import { migrations } from "../../services/catalog/migrations/index.ts";
import { databasePlace, quietLog } from "../support/database.ts";
import { refused } from "../support/refused.ts";
import { testStores } from "../support/stores.ts";
import { draft, type Marketplace, openMarketplace } from "./marketplace.ts";

const seller = newId();
const clock = manualClock();

/** A catalog as one of several processes runs it. */
interface Process extends Marketplace {
  /** What it keeps near. For an hour: what is seen in time is seen because of marks. */
  readonly near: MemoryStore<Listing>;
  /** Set, the marks that it sets are lost. */
  forgetful: boolean;
  /** Set, what it has loaded is stored only after that. */
  storeAfter: Promise<void> | undefined;
  readonly cacheConsumer: Subscription;
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  const end = performance.now() + 15_000;
  while (!(await condition())) {
    assert.ok(performance.now() < end, "waited in vain");
    await sleep(5);
  }
}

describe("a catalog in two processes that remember listings", () => {
  let place: Awaited<ReturnType<typeof databasePlace>>;
  let one: Process;
  let other: Process;

  before(async function () {
    this.timeout(120_000);
    await testStores();
  });
  beforeEach(async () => {
    place = await databasePlace("catalog");
    const channel = `cache-${newId()}`;
    one = await start(channel);
    other = await start(channel);
  });
  afterEach(async () => {
    await one.close();
    await other.close();
    await place.remove();
  });

  async function start(channel: string): Promise<Process> {
    const { redisUrl: url } = await testStores();
    const database = await openDatabase({ service: "catalog", url: place.url, entities, migrations, clock, log: quietLog });
    const near = new MemoryStore<Listing>({ maxBytes: 1e6, sizeOf: () => 1_000, ttlMaxMs: 3_600_000 });
    const openCacheStore: OpenCacheStore = ({ codec }) => {
      const far = new RedisStore({ url, log: quietLog, codec, channel, timeoutMs: 5_000 });
      const store: CacheStore<unknown> = new NearStore<unknown>(near as MemoryStore<unknown>, far as RedisStore<unknown>);
      const { put, mark } = { put: store.put.bind(store), mark: store.mark.bind(store) };
      store.put = async (entries) => {
        await started.storeAfter;
        await put(entries);
      };
      store.mark = async (changes) => (started.forgetful ? false : mark(changes));
      return store as CacheStore<never>;
    };
    const market = await openMarketplace("memory", { database, clock, openCacheStore });
    const cacheConsumer = market.module.consumers.find(({ consumer }) => consumer === "catalog.cache") as Subscription;
    const started: Process = Object.assign(market, { near, forgetful: false, storeAfter: undefined, cacheConsumer });
    return started;
  }

  async function offer(units = 1): Promise<string> {
    const { listing } = await one.account(seller).createListing({
      requestId: newId(),
      publish: true,
      listing: draft({ title: "first", units }),
    });
    return listing?.listingId ?? "";
  }
  async function rename(listingId: string, title: string): Promise<void> {
    const { listing } = await one.account(seller).getListing({ listingId });
    await one.account(seller).updateListing({ requestId: newId(), listingId, etag: listing?.etag ?? "", title });
  }
  async function seen(market: Marketplace, listingId: string): Promise<Listing> {
    return (await market.anonymous.getListing({ listingId })).listing as Listing;
  }
  /** Reads until the process keeps the listing near. */
  async function keep(market: Process, listingId: string): Promise<void> {
    await until(async () => {
      await seen(market, listingId);
      return market.near.look(`souk.cache:listing:2:${listingId}`)?.value !== undefined;
    });
  }
  async function told(): Promise<Event[]> {
    const rows = await one.database.sql.selectFrom("outbox").select("event").orderBy("position").execute();
    return rows.map(({ event }) => fromBinary(EventSchema, event));
  }

  it("shows an update, a sale, a return and a withdrawal to who had read the listing in the other", async () => {
    const listingId = await offer();
    await keep(other, listingId);
    await rename(listingId, "second");
    await until(async () => (await seen(other, listingId)).title === "second");
    await keep(other, listingId);
    await one.stock(listingId, 1, { available: 0, reserved: 1 });
    await until(async () => (await seen(other, listingId)).state === ListingState.RESERVED);
    await keep(other, listingId);
    await one.stock(listingId, 2, { available: 1 });
    await until(async () => (await seen(other, listingId)).state === ListingState.ACTIVE);
    await keep(other, listingId);
    await one.account(seller).withdrawListing({ requestId: newId(), listingId });
    await until(async () => (await other.anonymous.batchGetListings({ listingIds: [listingId] })).listings.length === 0);
    await refused(other.anonymous.getListing({ listingId }), "LISTING_NOT_FOUND");
  });

  it("shows how many units are left, of which no event tells", async () => {
    const listingId = await offer(5);
    await keep(other, listingId);
    await one.stock(listingId, 1, { available: 4, reserved: 1 });
    await until(async () => (await seen(other, listingId)).availableUnits === 4);
  });

  it("shows a listing that was not there for others as soon as it is published", async () => {
    const { listing } = await one.account(seller).createListing({ requestId: newId(), listing: draft() });
    const listingId = listing?.listingId ?? "";
    for (let i = 0; i < 3; i++) await refused(other.anonymous.getListing({ listingId }), "LISTING_NOT_FOUND");
    await one.account(seller).publishListing({ requestId: newId(), listingId });
    await until(async () => (await other.anonymous.batchGetListings({ listingIds: [listingId] })).listings.length === 1);
  });

  it("does not go back to an old row that a slow reader stores after a change", async () => {
    const listingId = await offer();
    const gate = Promise.withResolvers<void>();
    other.storeAfter = gate.promise;
    assert.equal((await seen(other, listingId)).title, "first");
    await rename(listingId, "second");
    gate.resolve();
    other.storeAfter = undefined;
    await until(async () => (await seen(other, listingId)).title === "second");
    for (let i = 0; i < 20; i++) {
      assert.equal((await seen(one, listingId)).title, "second");
      assert.equal((await seen(other, listingId)).title, "second");
    }
  });

  it("hears by the event of a change whose process died before it told the cache", async () => {
    const listingId = await offer();
    await keep(other, listingId);
    one.forgetful = true;
    await rename(listingId, "second");
    assert.equal((await seen(other, listingId)).title, "first");
    const events = await told();
    other.forgetful = true;
    await assert.rejects(other.cacheConsumer.handle(events), /cache cannot be told/);
    other.forgetful = false;
    await other.cacheConsumer.handle(events);
    assert.equal((await seen(other, listingId)).title, "second");
    // The same again drops nothing.
    await keep(other, listingId);
    await other.cacheConsumer.handle(events);
    assert.equal(other.near.look(`souk.cache:listing:2:${listingId}`)?.value?.title, "second");
  });

  it("lets an event go that is older than anything remembered", async () => {
    await offer();
    const events = await told();
    other.forgetful = true;
    await assert.rejects(other.cacheConsumer.handle(events), /cache cannot be told/);
    clock.advance(130_000);
    await other.cacheConsumer.handle(events);
  });

  it("shows the table to those who decide by it: the seller, operators and services", async () => {
    const listingId = await offer();
    await keep(other, listingId);
    one.forgetful = true;
    await rename(listingId, "second");
    const listingIds = [listingId];
    assert.equal((await seen(other, listingId)).title, "first");
    assert.equal((await other.account(newId()).getListing({ listingId })).listing?.title, "first");
    for (const client of [other.account(seller), other.account(newId(), { operator: true }), other.service("order")]) {
      assert.equal((await client.getListing({ listingId })).listing?.title, "second");
      assert.equal((await client.batchGetListings({ listingIds })).listings[0]?.title, "second");
    }
  });

  it("shows a draft to nobody else, whoever reads first", async () => {
    const { listing } = await one.account(seller).createListing({ requestId: newId(), listing: draft({ title: "secret" }) });
    const listingId = listing?.listingId ?? "";
    const readers: [Process, boolean][] = [
      [one, true],
      [other, false],
      [other, true],
      [one, false],
    ];
    for (const [market, own] of [...readers, ...readers]) {
      if (own) {
        assert.equal((await market.account(seller).getListing({ listingId })).listing?.title, "secret");
      } else {
        await refused(market.anonymous.getListing({ listingId }), "LISTING_NOT_FOUND");
        await refused(market.account(newId()).getListing({ listingId }), "LISTING_NOT_FOUND");
      }
    }
  });

  it("answers a batch of what is remembered, what is not, what is one's own and what is missing, in order", async () => {
    const [a, b, missing] = [await offer(), await offer(), newId()];
    const { listing } = await one.account(seller).createListing({ requestId: newId(), listing: draft() });
    const own = listing?.listingId ?? "";
    await keep(one, b);
    const listingIds = [b, missing, own, a];
    const mine = await one.account(seller).batchGetListings({ listingIds });
    assert.deepEqual(
      mine.listings.map((each) => each.listingId),
      [b, own, a],
    );
    assert.deepEqual(mine.missingListingIds, [missing]);
    const theirs = await one.account(newId()).batchGetListings({ listingIds });
    assert.deepEqual(
      theirs.listings.map((each) => each.listingId),
      [b, a],
    );
    assert.deepEqual(theirs.missingListingIds, [missing, own]);
  });
});
