import assert from "node:assert/strict";
import { Code, type ConnectError } from "@connectrpc/connect";
import { Condition, type Listing, ListingState } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { metadataOf, reasonOf, violationsOf } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { refused } from "../support/refused.ts";
import { type DraftFields, draft, type Marketplace, openMarketplace } from "./marketplace.ts";

const seller = newId();
const stranger = newId();

for (const carrier of ["memory", "server"] as const) {
  describe(`the catalog over ${carrier}`, () => {
    let market: Marketplace;
    before(async () => {
      market = await openMarketplace(carrier);
    });
    after(() => market.close());

    const create = async (publish: boolean, over: DraftFields = {}): Promise<Listing> => {
      const { listing } = await market.account(seller).createListing({ requestId: newId(), listing: draft(over), publish });
      return listing as Listing;
    };
    const get = async (listingId: string): Promise<Listing> =>
      (await market.account(seller).getListing({ listingId })).listing as Listing;

    describe("creating", () => {
      it("makes a draft with the defaults and tells nobody", async () => {
        const calls = market.inventory.calls.length;
        const listing = await create(false, { price: { currencyCode: "JPY", amountMinor: 1n } });
        assert.equal(listing.state, ListingState.DRAFT);
        assert.equal(listing.sellerId, seller);
        assert.equal(listing.handlingDays, 3);
        assert.equal(listing.shipsFrom, "JP");
        assert.equal(listing.availableUnits, 0);
        assert.equal(listing.publishTime, undefined);
        assert.equal(listing.etag, "1");
        assert.deepEqual(await market.events(listing.listingId), []);
        assert.equal(market.inventory.calls.length, calls);
        assert.deepEqual(await get(listing.listingId), listing);
      });

      it("tells inventory first and then publishes, with one event", async () => {
        const listing = await create(true, { units: 7 });
        assert.equal(listing.state, ListingState.ACTIVE);
        assert.equal(listing.availableUnits, 7);
        assert.ok(listing.publishTime);
        assert.equal(market.inventory.units.get(listing.listingId), 7);
        assert.deepEqual(await market.events(listing.listingId), [
          { type: "ListingPublished", sequence: 1, state: ListingState.ACTIVE, availableUnits: 7 },
        ]);
      });

      it("answers a repeat with the first answer and refuses other contents under the request_id", async () => {
        const requestId = newId();
        const first = await market.account(seller).createListing({ requestId, listing: draft(), publish: true });
        const calls = market.inventory.calls.length;
        const again = await market.account(seller).createListing({ requestId, listing: draft(), publish: true });
        assert.deepEqual(again, first);
        assert.equal(market.inventory.calls.length, calls, "a repeat calls nobody");
        const other = { requestId, listing: draft({ title: "Nine iron" }), publish: true };
        await refused(market.account(seller).createListing(other), "REQUEST_ID_REUSED", Code.AlreadyExists);
        assert.equal(market.inventory.calls.length, calls, "a refusal leaves nothing behind");
      });

      it("answers the listing that has the external_id and the same contents, whatever its state", async () => {
        const over = { externalId: newId(), title: "Putter" };
        const first = await create(true, over);
        await market.stock(first.listingId, 1, { available: 0, sold: 1 });
        const calls = market.inventory.calls.length;
        const again = { requestId: newId(), listing: draft({ ...over, units: 1, handlingDays: 3 }), publish: true };
        const answer = await market.account(seller).createListing(again);
        assert.equal(answer.alreadyExisted, true);
        assert.equal(answer.listing?.listingId, first.listingId);
        assert.equal(answer.listing?.state, ListingState.SOLD);
        assert.equal(market.inventory.calls.length, calls, "units of a listing that is there are not touched");
      });

      it("refuses other contents under the external_id, but not of another seller", async () => {
        const over = { externalId: newId() };
        const first = await create(true, over);
        const other = { requestId: newId(), listing: draft({ ...over, units: 9 }), publish: true };
        const error = await refused(market.account(seller).createListing(other), "EXTERNAL_ID_CONFLICT", Code.AlreadyExists);
        assert.deepEqual(metadataOf(error), { external_id: over.externalId, listing_id: first.listingId });
        assert.equal(market.inventory.units.get(first.listingId), 1);
        const { alreadyExisted } = await market.account(stranger).createListing({ ...other, requestId: newId() });
        assert.equal(alreadyExisted, false);
      });

      it("lets one of many with the same external_id be the first", async () => {
        const externalId = newId();
        const answers = await Promise.all(
          Array.from({ length: 20 }, () =>
            market.account(seller).createListing({ requestId: newId(), listing: draft({ externalId }), publish: true }),
          ),
        );
        assert.equal(answers.filter(({ alreadyExisted }) => !alreadyExisted).length, 1);
        const [id] = new Set(answers.map(({ listing }) => listing?.listingId));
        assert.equal(new Set(answers.map(({ listing }) => listing?.listingId)).size, 1);
        assert.equal((await market.events(id)).length, 1);
      });

      it("refuses a category that is unknown or has categories below it", async () => {
        const make = (categoryId: string) =>
          market.account(seller).createListing({ requestId: newId(), listing: draft({ categoryId }), publish: true });
        const calls = market.inventory.calls.length;
        const unknown = await refused(make("no-such-category"), "CATEGORY_NOT_FOUND", Code.NotFound);
        assert.deepEqual(metadataOf(unknown), { category_id: "no-such-category" });
        await refused(make("women"), "CATEGORY_NOT_LEAF", Code.InvalidArgument);
        assert.equal(market.inventory.calls.length, calls);
      });

      it("refuses bad fields with the field's name", async () => {
        const bad: [DraftFields, string][] = [
          [{ title: "" }, "listing.title"],
          [{ title: "x".repeat(301) }, "listing.title"],
          [{ title: "tab\there" }, "listing.title"],
          [{ description: "x".repeat(5001) }, "listing.description"],
          [{ price: { currencyCode: "EUR", amountMinor: 1n } }, "listing.price.currency_code"],
          [{ price: { currencyCode: "USD", amountMinor: 0n } }, "listing.price"],
          [{ price: { currencyCode: "USD", amountMinor: -5n } }, "listing.price"],
          [{ price: { currencyCode: "USD", amountMinor: 100_000_001n } }, "listing.price"],
          [{ units: 10_001 }, "listing.units"],
          [{ handlingDays: 8 }, "listing.handling_days"],
          [{ shipsFrom: "usa" }, "listing.ships_from"],
          [{ condition: Condition.UNSPECIFIED }, "listing.condition"],
        ];
        for (const [over, field] of bad) {
          const call = market.account(seller).createListing({ requestId: newId(), listing: draft(over) });
          const error = await refused(call, "INVALID_REQUEST", Code.InvalidArgument);
          assert.ok(
            violationsOf(error).some((violation) => violation.field.startsWith(field)),
            field,
          );
        }
      });

      it("needs an account", async () => {
        const request = { requestId: newId(), listing: draft() };
        await refused(market.anonymous.createListing(request), "TOKEN_MISSING", Code.Unauthenticated);
        await refused(market.service("order").createListing(request), "PERMISSION_DENIED");
      });
    });

    describe("updating", () => {
      it("replaces what is given and leaves the rest", async () => {
        const listing = await create(true);
        market.clock.advance(1000);
        const { listing: updated } = await market.account(seller).updateListing({
          requestId: newId(),
          listingId: listing.listingId,
          etag: listing.etag,
          title: "Eight iron",
          brand: "cALLAWAY",
          price: { currencyCode: "USD", amountMinor: 999n },
        });
        assert.equal(updated?.title, "Eight iron");
        assert.equal(updated?.brand, "Callaway");
        assert.equal(updated?.price?.amountMinor, 999n);
        assert.equal(updated?.description, listing.description);
        assert.notEqual(updated?.etag, listing.etag);
        assert.notDeepEqual(updated?.updateTime, listing.updateTime);
        assert.deepEqual(await get(listing.listingId), updated);
        assert.deepEqual(
          (await market.events(listing.listingId)).map(({ type }) => type),
          ["ListingPublished", "ListingUpdated"],
        );
      });

      it("changes a draft, its currency too, and tells nobody", async () => {
        const listing = await create(false);
        const { listing: updated } = await market.account(seller).updateListing({
          requestId: newId(),
          listingId: listing.listingId,
          etag: listing.etag,
          price: { currencyCode: "JPY", amountMinor: 100n },
        });
        assert.equal(updated?.price?.currencyCode, "JPY");
        assert.deepEqual(await market.events(listing.listingId), []);
      });

      it("leaves the etag alone when nothing changes", async () => {
        const listing = await create(true);
        const { listing: same } = await market.account(seller).updateListing({
          requestId: newId(),
          listingId: listing.listingId,
          etag: listing.etag,
          title: listing.title,
        });
        assert.deepEqual(same, listing);
        assert.equal((await market.events(listing.listingId)).length, 1);
      });

      it("lets one of many with the same etag win", async () => {
        const listing = await create(true);
        const outcomes = await Promise.allSettled(
          Array.from({ length: 20 }, (_, i) =>
            market.account(seller).updateListing({
              requestId: newId(),
              listingId: listing.listingId,
              etag: listing.etag,
              title: `Iron ${i}`,
            }),
          ),
        );
        assert.equal(outcomes.filter(({ status }) => status === "fulfilled").length, 1);
        for (const outcome of outcomes) {
          if (outcome.status === "rejected") {
            assert.equal(reasonOf(outcome.reason), "ETAG_MISMATCH");
            assert.equal((outcome.reason as ConnectError).code, Code.Aborted);
          }
        }
        assert.equal((await market.events(listing.listingId)).length, 2);
      });

      it("has a reason for each refusal", async () => {
        const listing = await create(true);
        const base = { listingId: listing.listingId, etag: listing.etag, title: "Other" };
        const update = (over: object, by = seller) => market.account(by).updateListing({ requestId: newId(), ...base, ...over });
        await refused(update({ listingId: newId() }), "LISTING_NOT_FOUND", Code.NotFound);
        await refused(update({}, stranger), "NOT_YOUR_LISTING", Code.PermissionDenied);
        await refused(update({ etag: "77" }), "ETAG_MISMATCH", Code.Aborted);
        await refused(update({ categoryId: "nope" }), "CATEGORY_NOT_FOUND", Code.NotFound);
        await refused(update({ categoryId: "men" }), "CATEGORY_NOT_LEAF", Code.InvalidArgument);
        const yen = { price: { currencyCode: "JPY", amountMinor: 5n } };
        const fixed = await refused(update(yen), "CURRENCY_FIXED", Code.FailedPrecondition);
        assert.deepEqual(metadataOf(fixed), { currency_code: "USD" });
        await refused(update({ price: { currencyCode: "USD", amountMinor: 0n } }), "INVALID_REQUEST");
        const requestId = newId();
        await market.account(seller).updateListing({ requestId, ...base });
        await refused(update({ requestId, title: "Third" }), "REQUEST_ID_REUSED");
        await market.stock(listing.listingId, 1, { available: 0, reserved: 1 });
        const { etag } = await get(listing.listingId);
        const reserved = await refused(update({ etag }), "LISTING_NOT_EDITABLE", Code.FailedPrecondition);
        assert.equal(metadataOf(reserved).state, "RESERVED");
        const hidden = await create(false);
        await refused(update({ listingId: hidden.listingId }, stranger), "LISTING_NOT_FOUND");
      });
    });

    describe("publishing", () => {
      it("tells inventory of the draft's units and then makes it active", async () => {
        const { listingId } = await create(false, { units: 4 });
        const { listing } = await market.account(seller).publishListing({ requestId: newId(), listingId });
        assert.equal(listing?.state, ListingState.ACTIVE);
        assert.equal(listing?.availableUnits, 4);
        assert.equal(market.inventory.units.get(listingId), 4);
        assert.deepEqual(
          (await market.events(listingId)).map(({ type }) => type),
          ["ListingPublished"],
        );
      });

      it("leaves the draft a draft when inventory fails, and whoever publishes it next finishes both", async () => {
        for (const when of ["before", "after"] as const) {
          const { listingId } = await create(false);
          market.inventory.failing = { count: 1, when };
          const request = { requestId: newId(), listingId };
          await refused(market.account(seller).publishListing(request), "DEPENDENCY_UNAVAILABLE", Code.Internal);
          assert.equal((await get(listingId)).state, ListingState.DRAFT);
          const { listing } = await market.account(seller).publishListing({ requestId: newId(), listingId });
          assert.equal(listing?.state, ListingState.ACTIVE);
          assert.deepEqual((await market.account(seller).publishListing(request)).listing, listing);
          assert.equal((await market.events(listingId)).length, 1);
        }
      });

      it("publishes once however many try, and changes nothing on an active listing", async () => {
        const { listingId } = await create(false);
        const answers = await Promise.all(
          Array.from({ length: 20 }, () => market.account(seller).publishListing({ requestId: newId(), listingId })),
        );
        assert.equal(new Set(answers.map(({ listing }) => listing?.etag)).size, 1);
        assert.equal((await market.events(listingId)).length, 1);
        const calls = market.inventory.calls.length;
        await market.account(seller).publishListing({ requestId: newId(), listingId });
        assert.equal(market.inventory.calls.length, calls);
      });

      it("does not offer units again when a late repeat finds them sold", async () => {
        const { listingId } = await create(false);
        // While the second publisher waits for inventory, the first finishes and the unit is sold.
        let once = true;
        market.inventory.meanwhile = async () => {
          if (once) {
            once = false;
            await market.account(seller).publishListing({ requestId: newId(), listingId });
            market.inventory.units.set(listingId, 0);
            await market.stock(listingId, 2, { available: 0, sold: 1 });
          }
        };
        const { listing } = await market.account(seller).publishListing({ requestId: newId(), listingId });
        market.inventory.meanwhile = undefined;
        assert.equal(listing?.state, ListingState.ACTIVE, "as it was when it was published");
        assert.equal(market.inventory.units.get(listingId), 0);
        assert.equal((await get(listingId)).state, ListingState.SOLD);
      });

      it("takes over what inventory said before", async () => {
        const { listingId } = await create(false, { units: 5 });
        market.inventory.meanwhile = () => market.stock(listingId, 3, { available: 0, reserved: 5 });
        const { listing } = await market.account(seller).publishListing({ requestId: newId(), listingId });
        market.inventory.meanwhile = undefined;
        assert.equal(listing?.state, ListingState.RESERVED);
        assert.deepEqual(
          (await market.events(listingId)).map(({ type }) => type),
          ["ListingPublished", "ListingReserved"],
        );
      });

      it("has a reason for each refusal", async () => {
        const publish = (listingId: string, by = seller, requestId = newId()) =>
          market.account(by).publishListing({ requestId, listingId });
        const hidden = await create(false);
        await refused(publish(newId()), "LISTING_NOT_FOUND", Code.NotFound);
        await refused(publish(hidden.listingId, stranger), "LISTING_NOT_FOUND", Code.NotFound);
        const active = await create(true);
        await refused(publish(active.listingId, stranger), "NOT_YOUR_LISTING", Code.PermissionDenied);
        await market.stock(active.listingId, 1, { available: 0, sold: 1 });
        await refused(publish(active.listingId), "LISTING_NOT_EDITABLE", Code.FailedPrecondition);
        const requestId = newId();
        await publish(hidden.listingId, seller, requestId);
        const other = await create(false);
        const calls = market.inventory.calls.length;
        await refused(publish(other.listingId, seller, requestId), "REQUEST_ID_REUSED");
        assert.equal(market.inventory.calls.length, calls);
      });
    });
  });
}
