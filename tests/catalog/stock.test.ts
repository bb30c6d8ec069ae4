import assert from "node:assert/strict";
import fc from "fast-check";
import { type Listing, ListingState } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { newId } from "#runtime/ids.ts";
import { allStates, mayBecome, publicStates, stateByUnits, transitions } from "../../services/catalog/states.ts";
import { carriers } from "../support/server.ts";
import { draft, type Marketplace, openMarketplace, stockEvent } from "./marketplace.ts";

const seller = newId();

describe("a listing's state by its units", () => {
  it("is active while units are available, reserved while only reserved ones are left, else sold", () => {
    for (const state of publicStates) {
      assert.equal(stateByUnits(state, { available: 1, reserved: 3 }), "ACTIVE");
      assert.equal(stateByUnits(state, { available: 0, reserved: 3 }), "RESERVED");
      assert.equal(stateByUnits(state, { available: 0, reserved: 0 }), "SOLD");
    }
  });

  it("never makes a draft or a withdrawn listing anything else", () => {
    for (const state of ["DRAFT", "WITHDRAWN"] as const) {
      for (const available of [0, 1]) {
        assert.equal(stateByUnits(state, { available, reserved: 1 }), state);
      }
    }
    assert.deepEqual(transitions.WITHDRAWN, []);
  });

  it("only takes steps that the table of transitions has", () => {
    const units = fc.record({ available: fc.nat(3), reserved: fc.nat(3) });
    fc.assert(
      fc.property(fc.constantFrom(...allStates), units, (state, given) => {
        const next = stateByUnits(state, given);
        assert.ok(next === state || mayBecome(state, next));
      }),
    );
  });
});

for (const carrier of carriers)
  describe(`the catalog hears of units (${carrier})`, () => {
    let market: Marketplace;
    before(async () => {
      market = await openMarketplace(carrier);
    });
    after(() => market.close());

    const create = async (publish = true): Promise<string> => {
      const request = { requestId: newId(), listing: draft({ units: 3 }), publish };
      return (await market.account(seller).createListing(request)).listing?.listingId as string;
    };
    const get = async (listingId: string): Promise<Listing> =>
      (await market.account(seller).getListing({ listingId })).listing as Listing;

    it("and the listing is reserved, active again, sold, and active again, with an event each", async () => {
      const listingId = await create();
      await market.stock(listingId, 1, { available: 3 });
      await market.stock(listingId, 2, { available: 0, reserved: 3 });
      await market.stock(listingId, 3, { available: 1, reserved: 2 });
      await market.stock(listingId, 4, { available: 0, reserved: 2, sold: 1 });
      await market.stock(listingId, 5, { available: 0, sold: 3 });
      assert.equal((await get(listingId)).state, ListingState.SOLD);
      await market.stock(listingId, 6, { available: 5, sold: 3 });
      const told = (await market.events(listingId)).map(({ type, sequence }) => `${sequence} ${type}`);
      assert.deepEqual(told, [
        "1 ListingPublished",
        "2 ListingReserved",
        "3 ListingReactivated",
        "4 ListingReserved",
        "5 ListingSold",
        "6 ListingReactivated",
      ]);
      assert.equal((await get(listingId)).availableUnits, 5);
    });

    it("and a change of the count alone shows, with a new etag, and is told to nobody", async () => {
      const listingId = await create();
      const before = await get(listingId);
      await market.stock(listingId, 1, { available: 3 });
      assert.deepEqual(await get(listingId), before);
      await market.stock(listingId, 2, { available: 2, reserved: 1 });
      const after = await get(listingId);
      assert.equal(after.availableUnits, 2);
      assert.notEqual(after.etag, before.etag);
      assert.equal((await market.events(listingId)).length, 1);
    });

    it("and an event that comes twice or late changes nothing", async () => {
      const listingId = await create();
      await market.stock(listingId, 5, { available: 0, sold: 3 });
      const sold = await get(listingId);
      await market.stock(listingId, 5, { available: 3 });
      await market.stock(listingId, 4, { available: 0, reserved: 3 });
      assert.deepEqual(await get(listingId), sold);
      const event = stockEvent(listingId, 6, { available: 1 });
      await market.module.consumers[0]?.handle([event, event]);
      await market.module.consumers[0]?.handle([event]);
      assert.equal((await market.events(listingId)).length, 3);
    });

    it("and drafts, withdrawn listings and listings unknown stay as they are", async () => {
      const draftId = await create(false);
      const withdrawnId = await create();
      await market.account(seller).withdrawListing({ requestId: newId(), listingId: withdrawnId });
      for (const listingId of [draftId, withdrawnId]) {
        const before = await get(listingId);
        await market.stock(listingId, 1, { available: 9 });
        await market.stock(listingId, 2, { available: 0, sold: 9 });
        assert.deepEqual(await get(listingId), before);
      }
      await market.stock(newId(), 1, { available: 9 });
    });

    it("in any order, and ends where the latest event says", async () => {
      const events = fc.uniqueArray(
        fc.record({ sequence: fc.integer({ min: 1, max: 12 }), available: fc.nat(2), reserved: fc.nat(2) }),
        { selector: ({ sequence }) => sequence, minLength: 1, maxLength: 8 },
      );
      await fc.assert(
        fc.asyncProperty(events, async (given) => {
          const listingId = await create();
          await Promise.all(given.map(({ sequence, ...units }) => market.stock(listingId, sequence, units)));
          const last = given.reduce((a, b) => (a.sequence > b.sequence ? a : b));
          const row = await market.database.sql
            .selectFrom("listing")
            .select(["state", "available_units", "stock_sequence"])
            .where("listing_id", "=", listingId)
            .executeTakeFirstOrThrow();
          assert.deepEqual(
            { ...row },
            {
              state: stateByUnits("ACTIVE", last),
              available_units: last.available,
              stock_sequence: last.sequence,
            },
          );
        }),
        { numRuns: 30 },
      );
    });
  });
