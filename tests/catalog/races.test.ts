import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import type { KyselyPlugin } from "kysely";
import { ListingDraftSchema } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { newId } from "#runtime/ids.ts";
import { brandKey, spellBrands } from "../../services/catalog/brands.ts";
import { change, deciding } from "../../services/catalog/changes.ts";
import { contentsOf } from "../../services/catalog/contents.ts";
import { insertListings } from "../../services/catalog/create.ts";
import type { CatalogTransaction } from "../../services/catalog/entities.ts";
import { loadListing } from "../../services/catalog/listings.ts";
import { refused } from "../support/refused.ts";
import { carriers } from "../support/server.ts";
import { draft, type Marketplace, openMarketplace } from "./marketplace.ts";

const seller = newId();

/** The transaction as it is where another writer commits between reading and writing: its first `count` selects find nothing. */
function blind(tx: CatalogTransaction, count: number): CatalogTransaction {
  const selects = new Set<unknown>();
  let left = count;
  const plugin: KyselyPlugin = {
    transformQuery({ node, queryId }) {
      if (node.kind === "SelectQueryNode" && left > 0) {
        left--;
        selects.add(queryId);
      }
      return node;
    },
    transformResult: async ({ result, queryId }) => (selects.has(queryId) ? { ...result, rows: [] } : result),
  };
  const sql = tx.sql.withPlugin(plugin);
  return new Proxy(tx, {
    get(target, name) {
      const value = name === "sql" ? sql : Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

// SQLite lets one writer in at a time; these races are those of a store with many, at READ COMMITTED.
for (const carrier of carriers)
  describe(`the catalog among other writers (${carrier})`, () => {
    let market: Marketplace;
    before(async () => {
      market = await openMarketplace(carrier);
    });
    after(() => market.close());

    const created = async () => {
      const { listing } = await market.account(seller).createListing({ requestId: newId(), listing: draft(), publish: true });
      return listing?.listingId as string;
    };

    it("decides anew when a listing changed between reading and writing", async () => {
      const listingId = await created();
      await market.database.transaction(async (tx) => {
        const stale = await loadListing(tx.sql, listingId);
        assert.ok(stale);
        await change(tx, stale, { title: "Another's title" });
        let attempts = 0;
        const row = await deciding(async () => {
          const seen = ++attempts === 1 ? stale : await loadListing(tx.sql, listingId);
          assert.ok(seen);
          return change(tx, seen, { description: "Mine" });
        });
        assert.equal(attempts, 2);
        assert.deepEqual([row.title, row.description, row.version], ["Another's title", "Mine", 4]);
      });
    });

    it("decides anew when a stock event came between", async () => {
      const listingId = await created();
      const stale = await loadListing(market.database.sql, listingId);
      await market.stock(listingId, 1, { available: 1 });
      const changing = market.database.transaction((tx) => {
        assert.ok(stale);
        return deciding(() => change(tx, stale, { title: "Late" }));
      });
      await refused(changing, "UNAVAILABLE");
    });

    it("refuses to write a step that the table of transitions lacks", async () => {
      const listingId = await created();
      await market.database.transaction(async (tx) => {
        const row = await loadListing(tx.sql, listingId);
        assert.ok(row);
        assert.throws(() => change(tx, row, { state: "DRAFT" }), /ACTIVE cannot become DRAFT/);
      });
      const illegal = market.database.sql
        .updateTable("listing")
        .set({ state: "GONE" as never })
        .execute();
      await assert.rejects(illegal, /listing_state/);
    });

    it("takes the spelling of whoever added a brand first", async () => {
      await market.database.transaction(async (tx) => {
        await tx.sql
          .insertInto("brand")
          .values({ brand_key: brandKey("Grault"), name: "GRAULT" })
          .execute();
        const spelling = await spellBrands(blind(tx, 1).sql, ["Grault", "Garply"]);
        assert.deepEqual(
          [...spelling],
          [
            ["Grault", "GRAULT"],
            ["Garply", "Garply"],
          ],
        );
      });
    });

    it("finds the listing that took the external_id first, and inserts the others", async () => {
      const contents = [newId(), newId()].map((externalId) => contentsOf(create(ListingDraftSchema, draft({ externalId }))));
      const wanted = { sellerId: seller, drafts: contents, creationId: null };
      const [first] = await market.database.transaction((tx) => insertListings(tx, { ...wanted, drafts: contents.slice(0, 1) }));
      const results = await market.database.transaction((tx) => insertListings(blind(tx, 1), wanted));
      assert.ok(first && "row" in first);
      assert.deepEqual(
        results.map((result) => "row" in result && result.alreadyExisted),
        [true, false],
      );
      assert.ok(results[0] && "row" in results[0]);
      assert.equal(results[0].row.listing_id, first.row.listing_id);
    });

    it("refuses others to change a listing that is being withdrawn", async () => {
      for (const publish of [true, false]) {
        const request = { requestId: newId(), listing: draft(), publish };
        const { listing } = await market.account(seller).createListing(request);
        const listingId = listing?.listingId as string;
        const client = market.account(seller);
        market.inventory.meanwhile = async () => {
          market.inventory.meanwhile = undefined;
          const etag = (await client.getListing({ listingId })).listing?.etag as string;
          await refused(client.withdrawListing({ requestId: newId(), listingId }), "LISTING_NOT_EDITABLE");
          await refused(client.publishListing({ requestId: newId(), listingId }), "LISTING_NOT_EDITABLE");
          await refused(client.updateListing({ requestId: newId(), listingId, etag, title: "x" }), "LISTING_NOT_EDITABLE");
        };
        await client.withdrawListing({ requestId: newId(), listingId });
      }
    });
  });
