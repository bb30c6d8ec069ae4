import assert from "node:assert/strict";
import { Code } from "@connectrpc/connect";
import { type CreateResult, ListingState } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { newId } from "#runtime/ids.ts";
import { refused } from "../support/refused.ts";
import { type DraftFields, draft, type Marketplace, openMarketplace } from "./marketplace.ts";

const seller = newId();

for (const carrier of ["memory", "server"] as const) {
  describe(`a batch of listings over ${carrier}`, () => {
    let market: Marketplace;
    before(async () => {
      market = await openMarketplace(carrier);
    });
    after(() => market.close());

    const batch = async (
      drafts: DraftFields[],
      options: { requestId?: string; publish?: boolean } = {},
    ): Promise<CreateResult[]> => {
      const { requestId = newId(), publish = true } = options;
      const { results } = await market.account(seller).batchCreateListings({ requestId, listings: drafts.map(draft), publish });
      return results;
    };
    const countOf = async (): Promise<number> =>
      (await market.database.sql.selectFrom("listing").select("listing_id").execute()).length;

    it("creates 250 at once, told to inventory in one call, with one event each", async () => {
      const calls = market.inventory.calls.length;
      const results = await batch(Array.from({ length: 250 }, (_, i) => ({ title: `Iron ${i}`, units: (i % 5) + 1 })));
      assert.ok(results.every(({ state, etag, reason }) => state === ListingState.ACTIVE && etag === "2" && reason === ""));
      assert.equal(new Set(results.map(({ listingId }) => listingId)).size, 250);
      assert.equal(market.inventory.calls.length, calls + 1);
      assert.equal(market.inventory.units.get(results[7]?.listingId ?? ""), 3);
      const { listings } = await market.anonymous.batchGetListings({ listingIds: results.slice(0, 100).map((r) => r.listingId) });
      assert.deepEqual(
        listings.map(({ title }) => title),
        Array.from({ length: 100 }, (_, i) => `Iron ${i}`),
      );
      for (const { listingId } of results.slice(0, 3)) {
        assert.equal((await market.events(listingId)).length, 1);
      }
    });

    it("creates drafts without telling anybody", async () => {
      const calls = market.inventory.calls.length;
      const results = await batch([{}, {}], { publish: false });
      assert.ok(results.every(({ state }) => state === ListingState.DRAFT));
      assert.equal(market.inventory.calls.length, calls);
      assert.deepEqual(await market.events(results[0]?.listingId), []);
    });

    it("lets a wrong one fail alone, with its reason and the field's name", async () => {
      const externalId = newId();
      await batch([{ externalId, title: "First" }]);
      const results = await batch([
        { title: "Right" },
        { title: "" },
        { price: { currencyCode: "EUR", amountMinor: 5n } },
        { categoryId: "no-such-category" },
        { categoryId: "women" },
        { externalId, title: "Other contents" },
        { externalId, title: "First" },
        { title: "Right too" },
      ]);
      assert.deepEqual(
        results.map(({ reason }) => reason),
        ["", "INVALID_REQUEST", "INVALID_REQUEST", "CATEGORY_NOT_FOUND", "CATEGORY_NOT_LEAF", "EXTERNAL_ID_CONFLICT", "", ""],
      );
      assert.match(results[1]?.message ?? "", /^title: /);
      assert.match(results[2]?.message ?? "", /^price.currency_code: /);
      assert.deepEqual([results[1]?.listingId, results[1]?.etag, results[1]?.state], ["", "", 0]);
      assert.deepEqual(
        results.map(({ alreadyExisted }) => alreadyExisted),
        [false, false, false, false, false, false, true, false],
      );
    });

    it("succeeds when every one fails, and tells nobody", async () => {
      const calls = market.inventory.calls.length;
      const results = await batch([{ title: "" }, { categoryId: "men" }]);
      assert.deepEqual(
        results.map(({ reason }) => reason),
        ["INVALID_REQUEST", "CATEGORY_NOT_LEAF"],
      );
      assert.equal(market.inventory.calls.length, calls);
    });

    it("knows two with the same external_id apart: equal ones are one listing, others conflict", async () => {
      const externalId = newId();
      const told = market.inventory.units.size;
      const results = await batch([{ externalId }, { externalId }, { externalId, units: 4 }]);
      assert.equal(market.inventory.units.size, told + 1);
      assert.deepEqual(
        results.map(({ alreadyExisted, reason }) => [alreadyExisted, reason]),
        [
          [false, ""],
          [true, ""],
          [false, "EXTERNAL_ID_CONFLICT"],
        ],
      );
      assert.equal(results[0]?.listingId, results[1]?.listingId);
      assert.equal(market.inventory.units.get(results[0]?.listingId ?? ""), 1);
      assert.equal((await market.events(results[0]?.listingId)).length, 1);
    });

    it("answers a repeat with the first answer, and refuses other contents", async () => {
      const requestId = newId();
      const drafts = [{ title: "One" }, { title: "" }, { title: "Three" }];
      const first = await batch(drafts, { requestId });
      const [calls, count] = [market.inventory.calls.length, await countOf()];
      assert.deepEqual(await batch(drafts, { requestId }), first);
      await refused(batch([{ title: "Two" }], { requestId }), "REQUEST_ID_REUSED", Code.AlreadyExists);
      assert.deepEqual([market.inventory.calls.length, await countOf()], [calls, count]);
    });

    it("creates nothing twice when the same external_ids come in another batch", async () => {
      const ids = Array.from({ length: 30 }, newId);
      const first = await batch(ids.map((externalId) => ({ externalId })));
      const again = await batch(ids.map((externalId) => ({ externalId })));
      assert.ok(again.every(({ alreadyExisted }) => alreadyExisted));
      assert.deepEqual(
        again.map(({ listingId }) => listingId),
        first.map(({ listingId }) => listingId),
      );
    });

    it("creates each external_id once when batches that overlap run at once", async () => {
      const ids = Array.from({ length: 20 }, newId);
      const count = await countOf();
      const all = await Promise.all(
        Array.from({ length: 6 }, (_, i) => batch([...ids.slice(i), ...ids.slice(0, i)].map((externalId) => ({ externalId })))),
      );
      assert.equal(await countOf(), count + ids.length);
      const created = all.flat().filter(({ alreadyExisted }) => !alreadyExisted);
      assert.equal(created.length, ids.length);
      assert.equal(new Set(all.flat().map(({ listingId }) => listingId)).size, ids.length);
    });

    it("answers many repeats at once with one answer", async () => {
      const requestId = newId();
      const count = await countOf();
      const answers = await Promise.all(Array.from({ length: 8 }, () => batch([{}, {}, {}], { requestId })));
      for (const answer of answers) {
        assert.deepEqual(answer, answers[0]);
      }
      assert.equal(await countOf(), count + 3);
    });

    it("refuses an empty batch and one of more than 250", async () => {
      await refused(batch([]), "INVALID_REQUEST", Code.InvalidArgument);
      await refused(batch(Array.from({ length: 251 }, () => ({}))), "INVALID_REQUEST", Code.InvalidArgument);
    });
  });
}
