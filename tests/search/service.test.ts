import assert from "node:assert/strict";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { Condition, ListingState } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { ReindexState, Sort } from "#gen/marketplace/search/v1/search_pb.ts";
import { newId } from "#runtime/ids.ts";
import { temporaryFolder } from "../support/database.ts";
import { carriers } from "../support/server.ts";
import { event, listing, type Marketplace, openMarketplace, refused } from "./marketplace.ts";

const operator = { account: newId(), operator: true };

for (const carrier of carriers) {
  describe(`search (${carrier})`, () => {
    let market: Marketplace;
    beforeEach(async () => {
      market = await openMarketplace(carrier);
    });
    afterEach(() => market.close());

    const publish = (...listings: ReturnType<typeof listing>[]) =>
      market.deliver(...listings.map((each) => event("published", each, 1)));

    it("finds a listing once its event came, with all that a page of results shows", async () => {
      const photos = [{ photoId: newId(), url: "https://photos.example/1.jpg", width: 640, height: 480 }];
      const one = listing({ title: "Callaway driver", brand: "Callaway", photos });
      await publish(one);
      const { results, totalCount, nextPageToken, relaxed, facets } = await market.client().searchListings({ query: "driver" });
      assert.deepEqual([totalCount, nextPageToken, relaxed, facets], [1, "", false, undefined]);
      const [result] = results;
      assert.equal(result?.listingId, one.listingId);
      assert.equal(result?.sellerId, one.sellerId);
      assert.equal(result?.title, "Callaway driver");
      assert.equal(result?.brand, "Callaway");
      assert.equal(result?.categoryId, "golf-clubs");
      assert.equal(result?.condition, Condition.GOOD);
      assert.deepEqual([result?.price?.currencyCode, result?.price?.amountMinor], ["USD", 1250n]);
      assert.equal(result?.photoUrl, "https://photos.example/1.jpg");
      assert.equal(result?.publishTime && timestampMs(result.publishTime), 1_700_000_000_000);
    });

    it("loses a listing that is sold, whatever order and however often the events come", async () => {
      const one = listing();
      const sold = event("sold", listing({ ...one, state: ListingState.SOLD }), 3);
      const updated = event("updated", listing({ ...one, title: "Eight iron" }), 2);
      await market.deliver(event("published", one, 1), updated, sold);
      await market.deliver(updated, event("published", one, 1));
      assert.equal((await market.client().searchListings({ query: "iron" })).totalCount, 0);
    });

    it("does not find what changed while it was reserved or sold", async () => {
      const one = listing({ state: ListingState.RESERVED });
      await market.deliver(event("updated", one, 2));
      assert.equal((await market.client().searchListings({})).totalCount, 0);
    });

    it("goes on after an event that holds no listing", async () => {
      const broken = event("published", listing(), 1);
      if (broken.payload) {
        broken.payload.value = Uint8Array.of(255, 255);
      }
      await market.deliver(broken, event("published", listing({ title: "Good one" }), 1));
      assert.equal((await market.client().searchListings({})).totalCount, 1);
    });

    it("filters by a category and all below it, and counts its children", async () => {
      await publish(
        listing({ categoryId: "golf-clubs" }),
        listing({ categoryId: "golf-clubs" }),
        listing({ categoryId: "golf-balls" }),
        listing({ categoryId: "tennis" }),
        listing({ categoryId: "home" }),
      );
      const counts = async (categoryId: string) => {
        const { facets, totalCount } = await market.client().searchListings({ filter: { categoryId }, includeFacets: true });
        return [totalCount, facets?.categories.map(({ value, count }) => [value, count])];
      };
      assert.deepEqual(await counts(""), [5, [["sport", 4], ["home", 1]]]); // biome-ignore format: pairs.
      assert.deepEqual(await counts("sport"), [4, [["golf", 3], ["tennis", 1]]]); // biome-ignore format: pairs.
      assert.deepEqual(await counts("golf"), [3, [["golf-clubs", 2], ["golf-balls", 1]]]); // biome-ignore format: pairs.
      assert.deepEqual(await counts("golf-balls"), [1, []]);
      const error = await refused(market.client().searchListings({ filter: { categoryId: "no-such" } }), "CATEGORY_NOT_FOUND");
      assert.equal(error.code, Code.NotFound);
    });

    it("counts brands, conditions from best to worst, and price ranges of one currency", async () => {
      await publish(
        listing({ brand: "Ping", condition: Condition.FOR_PARTS, price: { currencyCode: "USD", amountMinor: 999n } }),
        listing({ brand: "Ping", condition: Condition.FOR_PARTS, price: { currencyCode: "USD", amountMinor: 1000n } }),
        listing({ brand: "Mizuno", condition: Condition.NEW, price: { currencyCode: "USD", amountMinor: 2499n } }),
        listing({ brand: "Mizuno", condition: Condition.NEW, price: { currencyCode: "JPY", amountMinor: 2499n } }),
      );
      const { facets } = await market
        .client()
        .searchListings({ filter: { brands: ["PING"], currencyCode: "USD" }, includeFacets: true });
      const plain = (values?: { value: string; count: number }[]) => values?.map(({ value, count }) => `${value}: ${count}`);
      assert.deepEqual(plain(facets?.brands), ["Ping: 2", "Mizuno: 1"]);
      assert.deepEqual(plain(facets?.conditions), ["CONDITION_FOR_PARTS: 2"]);
      assert.deepEqual(plain(facets?.priceRanges), ["0-999: 1", "1000-2499: 1"]);
      const all = await market.client().searchListings({ includeFacets: true });
      assert.deepEqual(plain(all.facets?.conditions), ["CONDITION_NEW: 2", "CONDITION_FOR_PARTS: 2"]);
      assert.deepEqual(all.facets?.priceRanges, []);
    });

    it("compares prices in one currency only", async () => {
      const search = (request: Parameters<ReturnType<typeof market.client>["searchListings"]>[0]) =>
        market.client().searchListings(request);
      for (const request of [
        { filter: { minPriceMinor: 1n } },
        { filter: { maxPriceMinor: 1n } },
        { sort: Sort.PRICE_ASCENDING },
        { sort: Sort.PRICE_DESCENDING, filter: { categoryId: "home" } },
        { filter: { currencyCode: "USD", minPriceMinor: 2n, maxPriceMinor: 1n } },
      ]) {
        assert.equal((await refused(search(request), "PRICE_RANGE_INVALID")).code, Code.InvalidArgument);
      }
      await publish(
        listing({ price: { currencyCode: "JPY", amountMinor: 5n } }),
        listing({ price: { currencyCode: "JPY", amountMinor: 3n } }),
      );
      const { results } = await search({
        filter: { currencyCode: "JPY", minPriceMinor: 3n, maxPriceMinor: 5n },
        sort: Sort.PRICE_ASCENDING,
      });
      assert.deepEqual(
        results.map((result) => result.price?.amountMinor),
        [3n, 5n],
      );
    });

    it("refuses what breaks the rules of its fields", async () => {
      const search = market.client();
      for (const request of [
        { query: "x".repeat(201) },
        { pageSize: 101 },
        { filter: { currencyCode: "EUR" } },
        { filter: { sellerId: "me" } },
        { filter: { brands: Array.from({ length: 21 }, (_, i) => `b${i}`) } },
        { filter: { minPriceMinor: -1n } },
        { filter: { conditions: [Condition.UNSPECIFIED] } },
        { sort: 9 as Sort },
      ]) {
        await refused(search.searchListings(request), "INVALID_REQUEST");
      }
    });

    it("pages on, the facets asked for on the first page only, and refuses forged and foreign tokens", async () => {
      await publish(...Array.from({ length: 25 }, (_, i) => listing({ title: `Golf ball ${i}` })));
      for (const request of [{ query: "ball" }, {}, { sort: Sort.PRICE_DESCENDING, filter: { currencyCode: "USD" } }]) {
        const search = market.client();
        const first = await search.searchListings({ ...request, includeFacets: true });
        assert.deepEqual([first.results.length, first.totalCount], [20, 25]);
        const second = await search.searchListings({ ...request, pageToken: first.nextPageToken });
        assert.deepEqual([second.results.length, second.totalCount, second.nextPageToken], [5, 25, ""]);
        assert.equal(new Set([...first.results, ...second.results].map((result) => result.listingId)).size, 25);
        const forged = `${first.nextPageToken.slice(0, -4)}AAAA`;
        await refused(search.searchListings({ ...request, pageToken: forged }), "PAGE_TOKEN_INVALID");
        await refused(search.searchListings({ query: "golf", pageToken: first.nextPageToken }), "PAGE_TOKEN_INVALID");
      }
    });

    it("rebuilds the index when an operator asks, once at a time, and answers repeats alike", async () => {
      const one = listing({ title: "From the scan" });
      market.catalog.listings.set(one.listingId, { listing: one, sequence: 4 });
      await publish(listing({ title: "Unknown to the catalog" }));
      const search = market.client(operator);
      const requestId = newId();
      const { reindex } = await search.startReindex({ requestId });
      assert.equal(reindex?.state, ReindexState.RUNNING);
      assert.equal((await search.startReindex({ requestId })).reindex?.reindexId, reindex?.reindexId);
      assert.equal((await search.startReindex({ requestId: newId() })).reindex?.reindexId, reindex?.reindexId);
      await market.runJobs();
      const status = await search.getIndexStatus({});
      assert.equal(status.reindex?.reindexId, reindex?.reindexId);
      assert.equal(status.reindex?.state, ReindexState.DONE);
      assert.deepEqual([status.reindex?.listingsRead, status.listingCount], [1, 1]);
      assert.ok(status.reindex?.endTime !== undefined);
      const { results } = await search.searchListings({});
      assert.deepEqual(
        results.map((result) => result.title),
        ["From the scan"],
      );
      assert.notEqual((await search.startReindex({ requestId: newId() })).reindex?.reindexId, reindex?.reindexId);
    });

    it("lets nobody but an operator rebuild the index, and ops see it too", async () => {
      await refused(market.client().startReindex({ requestId: newId() }), "TOKEN_MISSING");
      await refused(market.client({ account: newId() }).startReindex({ requestId: newId() }), "PERMISSION_DENIED");
      await refused(market.client({ service: "order" }).getIndexStatus({}), "PERMISSION_DENIED");
      assert.equal((await market.client({ service: "ops" }).getIndexStatus({})).listingCount, 0);
    });
  });

  describe(`search and its index (${carrier})`, () => {
    it("refuses to page past 10,000 results, and counts no further", async () => {
      const market = await openMarketplace(carrier);
      try {
        const listings = Array.from({ length: 10_050 }, () => event("published", listing(), 1));
        for (let start = 0; start < listings.length; start += 1_000) {
          await market.deliver(...listings.slice(start, start + 1_000));
        }
        const search = market.client();
        let pageToken = "";
        let seen = 0;
        do {
          const page = await search.searchListings({ pageSize: 100, pageToken });
          assert.equal(page.totalCount, 10_000);
          seen += page.results.length;
          pageToken = page.nextPageToken;
        } while (seen < 10_000);
        assert.equal((await refused(search.searchListings({ pageSize: 100, pageToken }), "SEARCH_TOO_DEEP")).code, Code.OutOfRange);
      } finally {
        await market.close();
      }
    });

    it("builds its index before it is ready, and tries again until the catalog answers", async () => {
      const one = listing({ title: "Already there" });
      const market = await openMarketplace(carrier, (catalog) => {
        catalog.listings.set(one.listingId, { listing: one, sequence: 7 });
        catalog.failing = 1;
      });
      try {
        assert.equal((await market.client().searchListings({ query: "already" })).totalCount, 1);
        assert.equal((await market.client(operator).getIndexStatus({})).reindex, undefined, "no operator asked for it");
      } finally {
        await market.close();
      }
    });

    it("takes events that come during a rebuild into the new index, and none that are older", async () => {
      const market = await openMarketplace(carrier);
      try {
        const before = listing({ title: "Lute" });
        market.catalog.listings.set(before.listingId, { listing: before, sequence: 1 });
        await market.client(operator).startReindex({ requestId: newId() });
        market.catalog.meanwhile = async () => {
          market.catalog.meanwhile = undefined;
          await market.deliver(
            event("updated", listing({ ...before, title: "Zither" }), 2),
            event("published", listing({ title: "Harp" }), 1),
          );
        };
        await market.runJobs();
        const titles = async (query: string) => (await market.client().searchListings({ query })).totalCount;
        assert.deepEqual([await titles("lute"), await titles("zither"), await titles("harp")], [0, 1, 1]);
      } finally {
        await market.close();
      }
    });

    it("serves on with the old index when a rebuild fails, which is tried again and then given up", async () => {
      const market = await openMarketplace(carrier);
      try {
        await market.deliver(event("published", listing(), 1));
        market.catalog.failing = 100;
        await market.client(operator).startReindex({ requestId: newId() });
        for (let attempt = 0; attempt < 6; attempt++) {
          await market.runJobs();
          market.clock.advance(600_000);
        }
        const { reindex, listingCount } = await market.client(operator).getIndexStatus({});
        assert.equal(reindex?.state, ReindexState.FAILED);
        assert.notEqual(reindex?.failure, "");
        assert.equal(listingCount, 1);
        assert.equal((await market.client().searchListings({})).totalCount, 1);
      } finally {
        await market.close();
      }
    });

    it("does not rebuild when it is opened again with a whole index", async () => {
      const folder = temporaryFolder();
      const kept = { path: folder.path, remove: () => {} };
      const first = await openMarketplace(carrier, () => {}, kept);
      await first.deliver(event("published", listing({ title: "Kept" }), 1));
      await first.close();
      const second = await openMarketplace(carrier, () => {}, folder);
      try {
        assert.equal((await second.client().searchListings({ query: "kept" })).totalCount, 1);
        assert.equal((await second.client(operator).getIndexStatus({})).reindex, undefined);
      } finally {
        await second.close();
      }
    });

    it("answers INDEX_UNAVAILABLE, worth another attempt, when its index is closed", async () => {
      const market = await openMarketplace(carrier);
      await market.module.stop?.();
      const error = await refused(market.client().searchListings({}), "INDEX_UNAVAILABLE");
      assert.equal(error.code, Code.Unavailable);
      await market.close();
    });
  });
}
