import assert from "node:assert/strict";
import { create, type DescMessage, type DescMethod, type MessageInitShape, type MessageShape } from "@bufbuild/protobuf";
import { type Client, Code } from "@connectrpc/connect";
import { CompiledQuery, createQueryId, type KyselyPlugin, type RootOperationNode } from "kysely";
import {
  BatchGetListingsRequestSchema,
  CatalogService,
  ListBrandsRequestSchema,
  ListingState,
  ListSellerListingsRequestSchema,
  ScanListingsRequestSchema,
} from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { callOf } from "#runtime/call.ts";
import { newId } from "#runtime/ids.ts";
import { type PageValue, pageTokens } from "#runtime/pages.ts";
import { brandKey } from "../../services/catalog/brands.ts";
import { categoryTree } from "../../services/catalog/categories.ts";
import { catalogReads } from "../../services/catalog/reads.ts";
import { callContext } from "../support/call.ts";
import { testStore } from "../support/database.ts";
import { refused } from "../support/refused.ts";
import { type DraftFields, draft, type Marketplace, openMarketplace } from "./marketplace.ts";

const seller = newId();

describe("a brand's key", () => {
  it("is the same for spellings of one brand", () => {
    assert.equal(brandKey("  ＳＯＮＹ "), brandKey("sony"));
    assert.equal(brandKey("Groß"), brandKey("GROSS"));
    assert.equal(brandKey("Black\u00a0 Diamond"), brandKey("black diamond"));
    assert.equal(brandKey("Pokémon"), brandKey("POKE\u0301MON"));
    assert.notEqual(brandKey("Sony"), brandKey("Sonos"));
    assert.equal(brandKey(" \n"), "");
  });
});

describe("a category tree", () => {
  const row = (categoryId: string, parentId: string) => ({ categoryId, parentId, name: categoryId });

  it("stands with parents before children, whatever the order of the rows", () => {
    const tree = categoryTree([row("shoes", "men"), row("men", ""), row("boots", "shoes")]);
    assert.deepEqual(
      tree.all.map(({ categoryId, leaf, depth }) => [categoryId, leaf, depth]),
      [
        ["men", false, 1],
        ["shoes", false, 2],
        ["boots", true, 3],
      ],
    );
  });

  it("is refused when a row hangs in the air or stands twice", () => {
    assert.throws(() => categoryTree([row("a", "b")]));
    assert.throws(() => categoryTree([row("a", "b"), row("b", "a")]));
    assert.throws(() => categoryTree([row("a", ""), row("a", "")]));
  });
});

for (const carrier of ["memory", "server"] as const) {
  describe(`reading the catalog over ${carrier}`, () => {
    let market: Marketplace;
    const byState = new Map<ListingState, string>();
    before(async () => {
      market = await openMarketplace(carrier);
      await market.module.start?.();
      byState.set(ListingState.DRAFT, await make(seller, false));
      byState.set(ListingState.ACTIVE, await make(seller));
      const reserved = await make(seller);
      await market.stock(reserved, 1, { available: 0, reserved: 1 });
      byState.set(ListingState.RESERVED, reserved);
      const sold = await make(seller);
      await market.stock(sold, 1, { available: 0, sold: 1 });
      byState.set(ListingState.SOLD, sold);
      const withdrawn = await make(seller);
      await market.account(seller).withdrawListing({ requestId: newId(), listingId: withdrawn });
      byState.set(ListingState.WITHDRAWN, withdrawn);
    });
    after(() => market.close());

    const make = async (by: string, publish = true, over: DraftFields = {}): Promise<string> => {
      const { listing } = await market.account(by).createListing({ requestId: newId(), listing: draft(over), publish });
      return listing?.listingId as string;
    };
    const pub = [ListingState.ACTIVE, ListingState.RESERVED, ListingState.SOLD];
    const all = [ListingState.DRAFT, ...pub, ListingState.WITHDRAWN];
    const readers = (): [string, Client<typeof CatalogService>, ListingState[]][] => [
      ["nobody", market.anonymous, pub],
      ["another account", market.account(newId()), pub],
      ["the seller", market.account(seller), all],
      ["an operator", market.account(newId(), { operator: true }), all],
      ["a service", market.service("order"), all],
    ];

    it("shows drafts and withdrawn listings to their seller, operators and services only", async () => {
      for (const [name, client, visible] of readers()) {
        for (const [state, listingId] of byState) {
          if (visible.includes(state)) {
            const { listing } = await client.getListing({ listingId });
            assert.equal(listing?.state, state, name);
          } else {
            await refused(client.getListing({ listingId }), "LISTING_NOT_FOUND", Code.NotFound);
          }
        }
      }
      await refused(market.anonymous.getListing({ listingId: newId() }), "LISTING_NOT_FOUND", Code.NotFound);
      await refused(market.anonymous.getListing({ listingId: "x" }), "INVALID_REQUEST");
    });

    it("answers a batch in the order of the ids and names what is missing", async () => {
      const unknown = newId();
      const listingIds = [unknown, ...[...byState.values()].reverse()];
      for (const [name, client, visible] of readers()) {
        const { listings, missingListingIds } = await client.batchGetListings({ listingIds });
        const expected = listingIds.filter((id) => visible.some((state) => byState.get(state) === id));
        assert.deepEqual(
          listings.map(({ listingId }) => listingId),
          expected,
          name,
        );
        assert.deepEqual(
          missingListingIds,
          listingIds.filter((id) => !expected.includes(id)),
          name,
        );
      }
      const tooMany = Array.from({ length: 101 }, newId);
      await refused(market.anonymous.batchGetListings({ listingIds: tooMany }), "INVALID_REQUEST");
      await refused(market.anonymous.batchGetListings({ listingIds: [unknown, unknown] }), "INVALID_REQUEST");
    });

    it("lists a seller's listings newest first, others see the public ones", async () => {
      const list = async (client: Client<typeof CatalogService>, states: ListingState[] = []) =>
        (await client.listSellerListings({ sellerId: seller, states })).listings.map(({ state }) => state).sort();
      assert.deepEqual(await list(market.account(seller)), all);
      assert.deepEqual(await list(market.anonymous), pub);
      assert.deepEqual(await list(market.account(newId())), pub);
      assert.deepEqual(await list(market.anonymous, [ListingState.DRAFT]), []);
      assert.deepEqual(await list(market.account(seller), [ListingState.DRAFT, ListingState.SOLD]), [1, 4]);
      const own = await market.account(seller).listSellerListings({});
      assert.equal(own.listings.length, 5);
      await refused(market.anonymous.listSellerListings({}), "TOKEN_MISSING", Code.Unauthenticated);
    });

    it("pages over a seller's listings, each once, while others are added", async () => {
      const another = newId();
      const ids: string[] = [];
      for (let i = 0; i < 12; i++) {
        // Three at a time share their moment, so that the id has to tell them apart.
        market.clock.advance(i % 3 === 0 ? 1000 : 0);
        ids.push(await make(another, i % 2 === 0));
      }
      const seen: string[] = [];
      const times: bigint[] = [];
      let pageToken = "";
      do {
        const page = await market.account(another).listSellerListings({ pageSize: 5, pageToken });
        seen.push(...page.listings.map(({ listingId }) => listingId));
        times.push(...page.listings.map(({ createTime }) => createTime?.seconds ?? 0n));
        pageToken = page.nextPageToken;
        market.clock.advance(1000);
        await make(another);
      } while (pageToken !== "");
      assert.deepEqual([...seen].sort(), [...ids].sort());
      assert.deepEqual(
        times,
        [...times].sort((a, b) => Number(b - a)),
      );
    });

    it("refuses a page token that is forged or another list's", async () => {
      const mine = market.account(seller);
      const { nextPageToken } = await mine.listSellerListings({ pageSize: 2 });
      assert.notEqual(nextPageToken, "");
      const forged = `${nextPageToken.slice(0, -2)}AA`;
      await refused(mine.listSellerListings({ pageToken: forged }), "PAGE_TOKEN_INVALID", Code.InvalidArgument);
      await refused(mine.listSellerListings({ pageToken: nextPageToken, sellerId: newId() }), "PAGE_TOKEN_INVALID");
      await refused(market.anonymous.listBrands({ pageToken: nextPageToken }), "PAGE_TOKEN_INVALID");
      const search = market.service("search");
      await refused(search.scanListings({ pageToken: nextPageToken }), "PAGE_TOKEN_INVALID");
    });

    it("scans every active listing once, in the order of the ids, with the sequence of its last event", async () => {
      const search = market.service("search");
      const reactivated = await make(seller);
      await market.stock(reactivated, 1, { available: 0, reserved: 1 });
      await market.stock(reactivated, 2, { available: 1 });
      const sequences = new Map<string, number>();
      let pageToken = "";
      do {
        const page = await search.scanListings({ pageSize: 4, pageToken });
        for (const { listing, sequence } of page.listings) {
          assert.equal(listing?.state, ListingState.ACTIVE);
          assert.ok(!sequences.has(listing.listingId));
          sequences.set(listing.listingId, Number(sequence));
        }
        pageToken = page.nextPageToken;
      } while (pageToken !== "");
      assert.deepEqual([...sequences.keys()], [...sequences.keys()].sort());
      const active = await market.database.sql.selectFrom("listing").select("listing_id").where("state", "=", "ACTIVE").execute();
      assert.equal(sequences.size, active.length);
      assert.equal(sequences.get(reactivated), 3);
      assert.equal(sequences.get(byState.get(ListingState.ACTIVE) ?? ""), 1);
      await refused(market.account(seller).scanListings({}), "PERMISSION_DENIED", Code.PermissionDenied);
    });

    it("answers the whole category tree, parents before children", async () => {
      const { categories } = await market.anonymous.listCategories({});
      assert.ok(categories.length >= 200);
      const seen = new Set([""]);
      for (const { categoryId, parentId } of categories) {
        assert.ok(seen.has(parentId));
        seen.add(categoryId);
      }
    });

    it("gives a known brand its known spelling, and lists a new one from its first use on", async () => {
      const brandOf = async (brand: string) => {
        const { listing } = await market.account(seller).createListing({ requestId: newId(), listing: draft({ brand }) });
        return listing?.brand;
      };
      assert.equal(await brandOf("le  creuset"), "Le Creuset");
      assert.equal(await brandOf("   "), "");
      const list = async (prefix: string) =>
        (await market.anonymous.listBrands({ prefix, pageSize: 100 })).brands.map(({ name }) => name);
      assert.deepEqual(await list("zzyzx"), []);
      assert.equal(await brandOf(" Zzyzx  Works"), "Zzyzx Works");
      assert.equal(await brandOf("ZZYZX WORKS"), "Zzyzx Works");
      assert.deepEqual(await list("ZZY"), ["Zzyzx Works"]);
      assert.deepEqual(await list("sONo"), ["Sonos"]);
    });

    it("adds a new brand once when many use it at once", async () => {
      const spellings = ["Quuxo", "QUUXO", "quuxo", "qUUXO"];
      const answers = await Promise.all(
        spellings.map((brand) => market.account(seller).createListing({ requestId: newId(), listing: draft({ brand }) })),
      );
      assert.equal(new Set(answers.map(({ listing }) => listing?.brand)).size, 1);
    });

    it("pages over the brands by name", async () => {
      const names: string[] = [];
      let pageToken = "";
      do {
        const page = await market.anonymous.listBrands({ pageSize: 100, pageToken });
        names.push(...page.brands.map(({ name }) => name));
        pageToken = page.nextPageToken;
      } while (pageToken !== "");
      assert.ok(names.length > 150);
      assert.equal(new Set(names).size, names.length);
      assert.deepEqual(
        names.map(brandKey),
        names.map(brandKey).sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))),
      );
    });

    it("answers UNIMPLEMENTED for what comes later", async () => {
      const like = market.account(seller).likeListing({ requestId: newId(), listingId: newId() });
      await refused(like, "UNIMPLEMENTED", Code.Unimplemented);
    });
  });
}

describe("the catalog's questions", () => {
  it("are each answered from an index, without sorting", async () => {
    const market = await openMarketplace();
    const { sql } = market.database;
    const built = new Map<unknown, RootOperationNode>();
    const asked: RootOperationNode[] = [];
    const recorder: KyselyPlugin = {
      transformQuery: ({ node, queryId }) => {
        built.set(queryId, node);
        return node;
      },
      transformResult: async ({ result, queryId }) => {
        asked.push(built.get(queryId) as RootOperationNode);
        return result;
      },
    };
    const pages = pageTokens({ secret: market.keys.pageTokens });
    const recorded = sql.withPlugin(recorder);
    const reads = catalogReads({ ...market.database, sql: recorded, stale: recorded, onCommit: () => () => {} }, pages);
    const { listSellerListings, scanListings, listBrands } = CatalogService.method;
    const call = (method: DescMethod) => callContext(method, { caller: { kind: "service", service: "search" } });
    const of = <D extends DescMessage>(schema: D, init: MessageInitShape<D>, position: PageValue[], method: DescMethod) => {
      const request = create(schema, init) as MessageShape<D> & { pageToken: string };
      request.pageToken = pages.encode(method, request, position);
      return request;
    };
    const sellerPage = of(ListSellerListingsRequestSchema, { sellerId: seller }, [5, "x"], listSellerListings);
    await reads.listSellerListings(sellerPage, call(listSellerListings));
    await reads.scanListings(of(ScanListingsRequestSchema, {}, ["x"], scanListings), call(scanListings));
    await reads.listBrands(of(ListBrandsRequestSchema, { prefix: "a" }, ["ab"], listBrands), call(listBrands));
    await reads.batchGetListings(callOf(call(scanListings)), create(BatchGetListingsRequestSchema, { listingIds: ["a", "b"] }));
    assert.equal(asked.length, 4);
    // MariaDB plans by what its tables hold, and these are empty.
    for (const node of testStore === "sqlite" ? asked : []) {
      const query = sql.getExecutor().compileQuery(node, createQueryId());
      const explained = CompiledQuery.raw(
        `explain query plan ${query.sql}`,
        query.parameters.map((value) => (typeof value === "object" ? 5 : value)),
      );
      const { rows } = await sql.executeQuery<{ detail: string }>(explained);
      // "run" is one page of keys of one state, "page" the first of them all: small results, sorted and walked over in memory.
      const small = /SCAN run; USE TEMP B-TREE FOR ORDER BY|SCAN page/g;
      const plan = rows
        .map(({ detail }) => detail)
        .join("; ")
        .replaceAll(small, "");
      assert.match(plan, /SEARCH.*USING.*INDEX/, query.sql);
      assert.doesNotMatch(plan, /SCAN|TEMP B-TREE/, query.sql);
      // A page far down must not walk over those before it.
      assert.ok(!query.sql.includes('order by "create_time"') || plan.includes("create_time<"), plan);
    }
    await market.close();
  });
});
