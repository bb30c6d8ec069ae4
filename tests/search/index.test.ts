import assert from "node:assert/strict";
import { readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { reasonOf } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { brandKey, type Change, type IndexQuery, type IndexSort, type ListingDocument } from "../../services/search/index.ts";
import { priceRanges } from "../../services/search/price-ranges.ts";
import { allPages, openIndex, published, query, type TestIndex } from "./documents.ts";

function filesOf(folder: string): string[] {
  return readdirSync(folder).filter((name) => name.endsWith(".db"));
}

describe("the index", () => {
  let test: TestIndex;
  beforeEach(async () => {
    test = await openIndex();
  });
  afterEach(() => test.close());

  const add = (...titles: string[]) =>
    test.index.apply(
      titles.map((title) => published({ title })),
      1,
    );

  it("finds words in title, brand and description, in their stems and without accents", async () => {
    await test.index.apply(
      [
        published({ title: "Running shoes" }),
        published({ title: "Parka", brand: "Fjällräven" }),
        published({ title: "Lamp", description: "Batteries included" }),
      ],
      1,
    );
    assert.deepEqual(await test.titles("shoe"), ["Running shoes"]);
    assert.deepEqual(await test.titles("fjallraven"), ["Parka"]);
    assert.deepEqual(await test.titles("battery"), ["Lamp"]);
    assert.deepEqual(await test.titles("zither"), []);
  });

  it("finds model numbers however they are written", async () => {
    await add(
      "Sony WH-1000XM4 headphones",
      "Sony WH1000XM5",
      "Samsung SSD 500 GB",
      "Crucial SSD 250GB",
      "USB-C cable",
      'Dell 24" monitor',
    );
    assert.deepEqual(await test.titles("wh-1000xm4"), ["Sony WH-1000XM4 headphones"]);
    assert.deepEqual(await test.titles("wh1000xm4"), ["Sony WH-1000XM4 headphones"]);
    assert.deepEqual(await test.titles("wh 1000xm4"), ["Sony WH-1000XM4 headphones"]);
    assert.deepEqual(await test.titles("WH-1000XM5"), ["Sony WH1000XM5"]);
    assert.deepEqual(await test.titles("500gb"), ["Samsung SSD 500 GB"]);
    assert.deepEqual(await test.titles("ssd 250 gb"), ["Crucial SSD 250GB"].concat((await test.titles("ssd 250 gb")).slice(1)));
    assert.deepEqual(await test.titles("usbc"), ["USB-C cable"]);
    assert.deepEqual(await test.titles('24"'), ['Dell 24" monitor']);
    assert.deepEqual(await test.titles("24 inch monitor"), ['Dell 24" monitor']);
  });

  it("finds inside unspaced Japanese, Chinese and Korean, down to one character", async () => {
    await add("ソニーのワイヤレスヘッドホン", "東京都の古い地図", "二手相机镜头", "아이폰 케이스");
    assert.deepEqual(await test.titles("ヘッドホン"), ["ソニーのワイヤレスヘッドホン"]);
    assert.deepEqual(await test.titles("ﾍｯﾄﾞﾎﾝ"), ["ソニーのワイヤレスヘッドホン"]);
    assert.deepEqual(await test.titles("京都"), ["東京都の古い地図"]);
    assert.deepEqual(await test.titles("図"), ["東京都の古い地図"]);
    assert.deepEqual(await test.titles("镜头"), ["二手相机镜头"]);
    assert.deepEqual(await test.titles("폰"), ["아이폰 케이스"]);
  });

  it("takes the last word as a beginning, and puts whole words first", async () => {
    await add("Headphones with a very long title that says a lot about them", "Head of a doll");
    assert.deepEqual((await test.titles("head"))[0], "Head of a doll");
    assert.equal((await test.titles("head")).length, 2);
    assert.equal((await test.titles("headph")).length, 1);
  });

  it("ranks the title above the description, the thing above its accessories, and the newer of equals first", async () => {
    await test.index.apply(
      [
        published({ title: "Mouse pad" }),
        published({ title: "Cable tidy", description: "Keeps the mouse in place" }),
        published({ title: "Wireless mouse", publishTime: 1 }),
        published({ title: "Wireless mouse", publishTime: 2 }),
      ],
      1,
    );
    const { hits } = await test.index.search(query({ text: "mouse" }));
    assert.deepEqual(
      hits.map((hit) => [hit.title, hit.publishTime]),
      [
        ["Wireless mouse", 2],
        ["Wireless mouse", 1],
        ["Mouse pad", 1_700_000_000_000],
        ["Cable tidy", 1_700_000_000_000],
      ],
    );
  });

  it("answers listings with some of the words after the few that have all, and says so", async () => {
    await add("Red shoe", "Red hat", "Blue shoe", "Green scarf");
    const answer = await test.index.search(query({ text: "red shoe" }));
    assert.equal(answer.relaxed, true);
    assert.equal(answer.hits[0]?.title, "Red shoe");
    assert.equal(answer.total, 3);
    const cheapest = await test.index.search(query({ text: "red shoe", sort: "price-ascending", currencyCode: "USD" }));
    assert.deepEqual([cheapest.relaxed, cheapest.total], [false, 1]);
    assert.equal((await test.index.search(query({ text: "red trousers", sort: "newest" }))).relaxed, true);
    assert.equal((await test.index.search(query({ text: "zither lute" }))).relaxed, false);
  });

  it("skips what is not newer than what it has, in any order", async () => {
    const first = published({ title: "First" });
    const { listingId } = first;
    const second = { ...published({ title: "Second" }, listingId), sequence: 2 };
    await test.index.apply([second, first, second], 1);
    assert.deepEqual(await test.titles("second"), ["Second"]);
    assert.deepEqual(await test.titles("first"), []);
    assert.equal((await test.index.status()).listingCount, 1);
  });

  it("does not bring a listing back by an event older than its removal", async () => {
    const change = published({ title: "Gone" });
    await test.index.apply([{ listingId: change.listingId, sequence: 2 }], 1);
    await test.index.apply([change], 1);
    assert.deepEqual(await test.titles("gone"), []);
    await test.index.apply([{ ...change, sequence: 3 }], 1);
    assert.deepEqual(await test.titles("gone"), ["Gone"]);
  });

  it("forgets the words of what changed or left", async () => {
    const change = published({ title: "Violin" });
    await test.index.apply([change], 1);
    await test.index.apply([{ ...published({ title: "Cello" }, change.listingId), sequence: 2 }], 1);
    assert.deepEqual(await test.titles("violin"), []);
    assert.deepEqual(await test.titles("cello"), ["Cello"]);
    await test.index.apply([{ listingId: change.listingId, sequence: 3 }], 7);
    assert.deepEqual(await test.titles("cello"), []);
    assert.deepEqual(await test.index.status(), { listingCount: 0, lastEventTime: 7 });
  });

  it("shows a new price though the words stay", async () => {
    const change = published({ title: "Drum", priceMinor: 500 });
    await test.index.apply([change], 1);
    await test.index.apply([{ ...published({ title: "Drum", priceMinor: 400 }, change.listingId), sequence: 2 }], 1);
    assert.deepEqual(
      (await test.index.search(query({ text: "drum" }))).hits.map((hit) => hit.priceMinor),
      [400],
    );
  });

  it("keeps what it applied when it is opened again", async () => {
    await add("Kept");
    await test.index.close();
    const again = await openIndex({ folder: test.folder });
    assert.deepEqual(await again.titles("kept"), ["Kept"]);
    await again.close();
  });

  it("pages by newest and by price without doubles or gaps while listings come", async () => {
    const changes = Array.from({ length: 60 }, (_, i) =>
      published({ title: "Thing", priceMinor: 100 + (i % 7), publishTime: 1000 + (i % 5) }),
    );
    for (const sort of ["newest", "price-ascending", "price-descending"] as const) {
      await test.index.apply(changes, 1);
      const hits = await allPages(test.index, query({ sort, currencyCode: "USD", limit: 7 }), () =>
        test.index.apply([published({ title: "Late", priceMinor: 103, publishTime: 1002 })], 1),
      );
      const ids = hits.map((hit) => hit.listingId);
      assert.equal(new Set(ids).size, ids.length);
      for (const { listingId } of changes) {
        assert.ok(ids.includes(listingId));
      }
    }
  });

  it("pages by relevance without doubles while listings come, and through a rebuild", async () => {
    const changes = Array.from({ length: 40 }, (_, i) => published({ title: `Guitar number ${i}`, publishTime: i }));
    await test.index.apply(changes, 1);
    const before = await allPages(test.index, query({ text: "guitar", limit: 9 }), () =>
      test.index.apply([published({ title: "Guitar" })], 1),
    );
    assert.deepEqual(before.map((hit) => hit.listingId).sort(), changes.map((change) => change.listingId).sort());
    const first = await test.index.search(query({ text: "number", limit: 9 }));
    await test.index.beginRebuild();
    await test.index.addToRebuild(changes);
    await test.index.finishRebuild();
    assert.ok(first.next !== undefined);
    assert.equal((await test.index.search({ ...query({ text: "number", limit: 9 }), from: first.next })).hits.length, 9);
  });
});

/** What the index should answer, found by looking at every listing. */
function oracle(documents: ReadonlyMap<string, ListingDocument>, asked: IndexQuery) {
  const tests = {
    category: (d: ListingDocument) => asked.categoryIds === undefined || asked.categoryIds.includes(d.categoryId),
    brand: (d: ListingDocument) => asked.brandKeys.length === 0 || asked.brandKeys.includes(brandKey(d.brand)),
    condition: (d: ListingDocument) => asked.conditions.length === 0 || asked.conditions.includes(d.condition),
    price: (d: ListingDocument) => d.priceMinor >= (asked.minPriceMinor ?? 0) && d.priceMinor <= (asked.maxPriceMinor ?? 1e9),
    currency: (d: ListingDocument) => asked.currencyCode === "" || d.currencyCode === asked.currencyCode,
    seller: (d: ListingDocument) => asked.sellerId === "" || d.sellerId === asked.sellerId,
    text: (d: ListingDocument) => asked.text === "" || d.title.includes(asked.text),
  };
  const names = Object.keys(tests) as (keyof typeof tests)[];
  const passing = (without?: keyof typeof tests) =>
    [...documents].filter(([, d]) => names.every((name) => name === without || tests[name](d)));
  const counted = (without: keyof typeof tests, of: (d: ListingDocument) => string) => {
    const counts: Record<string, number> = {};
    for (const [, d] of passing(without)) {
      counts[of(d)] = (counts[of(d)] ?? 0) + 1;
    }
    delete counts[""];
    return counts;
  };
  const rangeOf = (d: ListingDocument) =>
    priceRanges(asked.currencyCode).find((range) => {
      const [low = 0, high = 0] = range.split("-").map(Number);
      return d.priceMinor >= low && d.priceMinor <= high;
    }) ?? "";
  const value = (d: ListingDocument) =>
    asked.sort === "price-ascending" ? d.priceMinor : asked.sort === "price-descending" ? -d.priceMinor : -d.publishTime;
  const order = passing().sort(([i, a], [j, b]) => value(a) - value(b) || (i > j ? -1 : 1));
  return {
    ids: order.map(([id]) => id),
    facets: {
      categories: counted("category", (d) => d.categoryId),
      brands: counted("brand", (d) => d.brand),
      conditions: counted("condition", (d) => String(d.condition)),
      priceRanges: counted("price", rangeOf),
    },
  };
}

const sellers = [newId(), newId()] as const;
const anyDocument = fc.record({
  sellerId: fc.constantFrom(...sellers),
  title: fc.constantFrom("red shoe", "blue shoe", "red hat"),
  brand: fc.constantFrom("", "Acme", "Bolt"),
  description: fc.constant(""),
  categoryId: fc.constantFrom("shoes", "hats", "odds"),
  condition: fc.integer({ min: 1, max: 6 }),
  currencyCode: fc.constantFrom("USD", "JPY"),
  priceMinor: fc.constantFrom(1, 999, 1_000, 2_499, 2_500, 9_000, 5_000_000),
  photoUrl: fc.constant(""),
  publishTime: fc.integer({ min: 1, max: 4 }),
});
const anyQuery = fc.record({
  text: fc.constantFrom("", "red", "shoe"),
  categoryIds: fc.option(fc.subarray(["shoes", "hats", "none"], { minLength: 1 }), { nil: undefined }),
  brandKeys: fc.subarray(["acme", "bolt", "none"]),
  conditions: fc.subarray([1, 3, 5]),
  currencyCode: fc.constantFrom("", "USD", "JPY"),
  minPriceMinor: fc.option(fc.constantFrom(0, 1_000, 9_000), { nil: undefined }),
  maxPriceMinor: fc.option(fc.constantFrom(999, 5_000, 100_000_000), { nil: undefined }),
  sellerId: fc.constantFrom("", ...sellers),
  sort: fc.constantFrom<IndexSort>("newest", "price-ascending", "price-descending"),
  limit: fc.integer({ min: 1, max: 9 }),
});

describe("filters, facets, orders and pages of the index", () => {
  it("are those of looking at every listing", async () => {
    const test = await openIndex();
    const live = new Map<string, ListingDocument>();
    const ids = Array.from({ length: 40 }, () => newId());
    let sequence = 0;
    try {
      await fc.assert(
        fc.asyncProperty(
          fc.array(fc.tuple(fc.constantFrom(...ids), fc.option(anyDocument, { nil: undefined, freq: 6 })), { maxLength: 30 }),
          anyQuery,
          async (updates, { categoryIds, minPriceMinor, maxPriceMinor, ...rest }) => {
            const changes = updates.map(([listingId, document]): Change => {
              sequence++;
              return document === undefined ? { listingId, sequence } : { listingId, sequence, document };
            });
            for (const { listingId, document } of changes) {
              live.delete(listingId);
              if (document !== undefined) {
                live.set(listingId, document);
              }
            }
            await test.index.apply(changes, sequence);
            const asked: IndexQuery = {
              ...rest,
              withFacets: true,
              ...(categoryIds && { categoryIds }),
              ...(minPriceMinor !== undefined && { minPriceMinor }),
              ...(maxPriceMinor !== undefined && { maxPriceMinor }),
            };
            const expected = oracle(live, asked);
            const first = await test.index.search(asked);
            assert.equal(first.total, expected.ids.length);
            assert.deepEqual(
              (await allPages(test.index, asked)).map((hit) => hit.listingId),
              expected.ids,
            );
            const { categories = [], brands = [], conditions = [], priceRanges: ranges = [] } = first.facets ?? {};
            assert.deepEqual(
              {
                categories: Object.fromEntries(categories),
                brands: Object.fromEntries(brands),
                conditions: Object.fromEntries(conditions),
                priceRanges: Object.fromEntries(ranges),
              },
              expected.facets,
            );
          },
        ),
        { numRuns: 120 },
      );
    } finally {
      await test.close();
    }
  });
});

describe("a rebuild of the index", () => {
  let test: TestIndex;
  beforeEach(async () => {
    test = await openIndex();
  });
  afterEach(() => test.close());

  it("gives what applying the events one by one gives, also those that come while it runs", async () => {
    const changes = Array.from({ length: 300 }, (_, i) => published({ title: `Chair ${i}`, priceMinor: 100 + i }));
    await test.index.apply(changes, 1);
    const withdrawn = changes[3] as Change;
    const renamed = changes[4] as Change;
    await test.index.beginRebuild();
    await test.index.addToRebuild(changes.slice(0, 100));
    await test.index.apply(
      [
        { listingId: withdrawn.listingId, sequence: 2 },
        { ...published({ title: "Table" }, renamed.listingId), sequence: 2 },
      ],
      5,
    );
    // The scan read these two before they changed.
    await test.index.addToRebuild(changes);
    const late = published({ title: "Stool" });
    await test.index.apply([late], 6);
    const search = query({ limit: 1000, withFacets: true, currencyCode: "USD" });
    const before = await test.index.search(search);
    await test.index.finishRebuild();
    assert.deepEqual(await test.index.search(search), before);
    assert.equal(before.total, 300);
    assert.deepEqual(await test.titles("table"), ["Table"]);
    assert.equal((await test.index.status()).lastEventTime, 6);
    assert.deepEqual(filesOf(test.folder), ["search-index-2.db"]);
  });

  it("is never seen by searches, except that they go on", async () => {
    const changes = Array.from({ length: 200 }, (_, i) => published({ title: `Chair ${i}` }));
    await test.index.apply(changes, 1);
    let ended = false;
    let searches = 0;
    const searching = Promise.all(
      Array.from({ length: 8 }, async () => {
        while (!ended) {
          const answer = await test.index.search(query({ text: "chair" }));
          assert.equal(answer.total, 200);
          searches++;
        }
      }),
    );
    for (let i = 0; i < 3; i++) {
      await test.index.beginRebuild();
      await test.index.addToRebuild(changes);
      await test.index.finishRebuild();
    }
    ended = true;
    await searching;
    assert.ok(searches > 8);
  });

  it("that is dropped, or begun again, leaves the live index and no file", async () => {
    await test.index.apply([published({ title: "Kept" })], 1);
    await test.index.beginRebuild();
    await test.index.addToRebuild([published({ title: "New" })]);
    await test.index.beginRebuild();
    await test.index.abortRebuild();
    assert.deepEqual(await test.titles("kept"), ["Kept"]);
    assert.deepEqual(await test.titles("new"), []);
    assert.deepEqual(filesOf(test.folder), ["search-index-1.db"]);
  });

  it("that a crash cut short is not taken for an index", async () => {
    await test.index.apply([published({ title: "Kept" })], 1);
    await test.index.beginRebuild();
    await test.index.addToRebuild([published({ title: "New" })]);
    await test.index.close();
    const again = await openIndex({ folder: test.folder });
    assert.deepEqual(await again.titles("kept"), ["Kept"]);
    assert.deepEqual(filesOf(test.folder), ["search-index-1.db"]);
    await again.close();
  });

  it("is asked for when the file is missing, broken or of another format", async () => {
    await test.index.apply([published({ title: "Kept" })], 1);
    await test.index.close();
    const file = join(test.folder, filesOf(test.folder)[0] as string);
    writeFileSync(file, Buffer.alloc(statSync(file).size, "x"));
    const again = await openIndex({ folder: test.folder });
    assert.deepEqual(await again.titles("kept"), []);
    await again.index.apply([published({ title: "Anew" })], 1);
    assert.deepEqual(await again.titles("anew"), ["Anew"]);
    await again.close();
  });
});

describe("a thread of the index that dies", () => {
  it("rejects the calls it had with INDEX_UNAVAILABLE, and another takes its place", async () => {
    const reader = new URL("./dying-reader.ts", import.meta.url);
    const test = await openIndex({ modules: { reader } });
    try {
      await test.index.apply([published({ title: "Kept" })], 1);
      const results = await Promise.allSettled([
        test.index.search(query({ text: "kept" })),
        test.index.search(query({ text: "die" })),
        test.index.search(query({ text: "kept" })),
      ]);
      const died = results[1] as PromiseRejectedResult;
      assert.equal(died.status, "rejected");
      assert.equal(reasonOf(died.reason), "INDEX_UNAVAILABLE");
      assert.deepEqual(await test.titles("kept"), ["Kept"]);
    } finally {
      await test.close();
    }
  });

  it("keeps what it acknowledged, and refuses to go on with the rebuild it lost", async () => {
    const writer = new URL("./dying-writer.ts", import.meta.url);
    const test = await openIndex({ modules: { writer } });
    try {
      await test.index.apply([published({ title: "Kept" })], 1);
      await test.index.beginRebuild();
      await assert.rejects(test.index.apply([published({ title: "die" })], 1), (error) => reasonOf(error) === "INDEX_UNAVAILABLE");
      await assert.rejects(test.index.addToRebuild([published()]), (error) => reasonOf(error) === "INDEX_UNAVAILABLE");
      await test.index.apply([published({ title: "Next" })], 1);
      assert.deepEqual((await test.titles("kept")).concat(await test.titles("next")), ["Kept", "Next"]);
    } finally {
      await test.close();
    }
  });

  it("gives up a search whose caller went away before it began", async () => {
    const test = await openIndex();
    try {
      const signal = AbortSignal.abort(new Error("gone"));
      await assert.rejects(test.index.search(query(), signal), /gone/);
    } finally {
      await test.close();
    }
  });

  it("refuses more searches than may wait", async () => {
    const test = await openIndex();
    try {
      const results = await Promise.allSettled(Array.from({ length: 400 }, () => test.index.search(query({ text: "chair" }))));
      const refused = results.filter((result) => result.status === "rejected");
      assert.ok(refused.length > 0 && refused.length < 400);
      assert.ok(refused.every((result) => reasonOf(result.reason) === "INDEX_UNAVAILABLE"));
    } finally {
      await test.close();
    }
  });
});
