import assert from "node:assert/strict";
import { Code } from "@connectrpc/connect";
import { type Listing, ListingState } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { reasonOf } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { type Jobs, startJobs } from "#runtime/jobs/jobs.ts";
import { refused } from "../support/refused.ts";
import { draft, type Marketplace, openMarketplace } from "./marketplace.ts";

const seller = newId();
const stranger = newId();

for (const carrier of ["memory", "server"] as const)
  describe(`withdrawing a listing (${carrier})`, () => {
    let market: Marketplace;
    let jobs: Jobs;
    before(async () => {
      market = await openMarketplace(carrier);
      jobs = startJobs({ database: market.database, handlers: market.module.jobs, pollMs: 3_600_000 });
    });
    after(async () => {
      await jobs.stop();
      await market.close();
    });

    const create = async (publish = true): Promise<string> => {
      const request = { requestId: newId(), listing: draft({ units: 2 }), publish };
      return (await market.account(seller).createListing(request)).listing?.listingId as string;
    };
    const get = async (listingId: string): Promise<Listing> =>
      (await market.account(seller).getListing({ listingId })).listing as Listing;
    const withdraw = (listingId: string, requestId = newId()) => market.account(seller).withdrawListing({ requestId, listingId });
    const eventTypes = async (listingId: string) => (await market.events(listingId)).map(({ type }) => type);

    it("takes the units back from inventory first, and hides the listing from others", async () => {
      const listingId = await create();
      const requestId = newId();
      const { listing } = await withdraw(listingId, requestId);
      assert.equal(listing?.state, ListingState.WITHDRAWN);
      assert.equal(listing?.availableUnits, 0);
      assert.equal(market.inventory.units.get(listingId), 0);
      assert.deepEqual(await eventTypes(listingId), ["ListingPublished", "ListingWithdrawn"]);
      await refused(market.account(stranger).getListing({ listingId }), "LISTING_NOT_FOUND");
      assert.deepEqual((await withdraw(listingId, requestId)).listing, listing, "a repeat gets the first answer");
    });

    it("withdraws a draft without telling anybody but inventory", async () => {
      const listingId = await create(false);
      const { listing } = await withdraw(listingId);
      assert.equal(listing?.state, ListingState.WITHDRAWN);
      assert.deepEqual(await eventTypes(listingId), []);
    });

    it("is not made sold by the stock event of its own units", async () => {
      const listingId = await create();
      market.inventory.meanwhile = () => market.stock(listingId, 1, { available: 0 });
      const { listing } = await withdraw(listingId);
      market.inventory.meanwhile = undefined;
      assert.equal(listing?.state, ListingState.WITHDRAWN);
      assert.deepEqual(await eventTypes(listingId), ["ListingPublished", "ListingWithdrawn"]);
    });

    it("gives way to a buyer's order, and may be tried again under the same request_id", async () => {
      const listingId = await create();
      market.inventory.reserved.add(listingId);
      const requestId = newId();
      await refused(withdraw(listingId, requestId), "UNITS_RESERVED", Code.FailedPrecondition);
      assert.equal((await get(listingId)).state, ListingState.ACTIVE);
      market.inventory.reserved.delete(listingId);
      assert.equal((await withdraw(listingId, requestId)).listing?.state, ListingState.WITHDRAWN);
    });

    it("refuses a listing whose every unit is reserved without asking inventory", async () => {
      const listingId = await create();
      await market.stock(listingId, 1, { available: 0, reserved: 2 });
      const calls = market.inventory.calls.length;
      await refused(withdraw(listingId), "UNITS_RESERVED", Code.FailedPrecondition);
      assert.equal(market.inventory.calls.length, calls);
    });

    it("follows what the units did while a refused withdrawal was under way", async () => {
      const listingId = await create();
      market.inventory.reserved.add(listingId);
      market.inventory.meanwhile = async () => {
        await market.stock(listingId, 1, { available: 0, reserved: 2 });
        assert.equal((await get(listingId)).state, ListingState.ACTIVE);
      };
      await refused(withdraw(listingId), "UNITS_RESERVED");
      market.inventory.meanwhile = undefined;
      assert.equal((await get(listingId)).state, ListingState.RESERVED);
      assert.deepEqual(await eventTypes(listingId), ["ListingPublished", "ListingReserved"]);
    });

    it("is finished by a job when the call failed half-way, and a repeat gets the answer", async () => {
      for (const when of ["before", "after"] as const) {
        const listingId = await create();
        const requestId = newId();
        market.inventory.failing = { count: 1, when };
        await refused(withdraw(listingId, requestId), "DEPENDENCY_UNAVAILABLE", Code.Internal);
        await market.stock(listingId, 1, { available: 0 });
        assert.equal((await get(listingId)).state, ListingState.ACTIVE);
        assert.equal((await get(listingId)).availableUnits, 0);
        const repeat = withdraw(listingId, requestId);
        market.clock.advance(10_000);
        await jobs.runDue();
        assert.equal((await repeat).listing?.state, ListingState.WITHDRAWN);
        assert.deepEqual(await eventTypes(listingId), ["ListingPublished", "ListingWithdrawn"]);
      }
    });

    it("is taken back by the job too when a buyer's order came first", async () => {
      const listingId = await create();
      const requestId = newId();
      market.inventory.failing = { count: 1, when: "before" };
      await refused(withdraw(listingId, requestId), "DEPENDENCY_UNAVAILABLE");
      market.inventory.reserved.add(listingId);
      // Listened to from the start: it may be refused before the jobs are done.
      const repeat = refused(withdraw(listingId, requestId), "UNITS_RESERVED");
      market.clock.advance(10_000);
      await jobs.runDue();
      await repeat;
      assert.equal((await get(listingId)).state, ListingState.ACTIVE);
    });

    it("lets one of many win", async () => {
      const listingId = await create();
      const outcomes = await Promise.allSettled(Array.from({ length: 20 }, () => withdraw(listingId)));
      assert.equal(outcomes.filter(({ status }) => status === "fulfilled").length, 1);
      for (const outcome of outcomes) {
        if (outcome.status === "rejected") {
          assert.equal(reasonOf(outcome.reason), "LISTING_NOT_EDITABLE");
        }
      }
      assert.deepEqual(await eventTypes(listingId), ["ListingPublished", "ListingWithdrawn"]);
    });

    it("beats or loses against a publisher, and leaves no listing active that it withdrew", async () => {
      for (let i = 0; i < 10; i++) {
        const listingId = await create(false);
        const publish = () => market.account(seller).publishListing({ requestId: newId(), listingId });
        const both = i % 2 === 0 ? [withdraw(listingId), publish()] : [publish(), withdraw(listingId)];
        const outcomes = await Promise.allSettled(both);
        for (const outcome of outcomes) {
          assert.ok(outcome.status === "fulfilled" || reasonOf(outcome.reason) === "LISTING_NOT_EDITABLE");
        }
        const withdrew = outcomes[i % 2]?.status === "fulfilled";
        assert.ok(withdrew || outcomes[1 - (i % 2)]?.status === "fulfilled", "one of the two takes effect");
        assert.equal((await get(listingId)).state, withdrew ? ListingState.WITHDRAWN : ListingState.ACTIVE);
      }
    });

    it("is an operator's right too", async () => {
      const listingId = await create();
      const operator = market.account(newId(), { operator: true });
      const { listing } = await operator.withdrawListing({ requestId: newId(), listingId });
      assert.equal(listing?.state, ListingState.WITHDRAWN);
    });

    it("has a reason for each refusal", async () => {
      await refused(withdraw(newId()), "LISTING_NOT_FOUND", Code.NotFound);
      const listingId = await create();
      const foreign = market.account(stranger).withdrawListing({ requestId: newId(), listingId });
      await refused(foreign, "NOT_YOUR_LISTING", Code.PermissionDenied);
      const requestId = newId();
      await withdraw(listingId, requestId);
      await refused(withdraw(listingId), "LISTING_NOT_EDITABLE", Code.FailedPrecondition);
      const sold = await create();
      await market.stock(sold, 1, { available: 0, sold: 2 });
      await refused(withdraw(sold), "LISTING_NOT_EDITABLE", Code.FailedPrecondition);
      const other = await create();
      await refused(withdraw(other, requestId), "REQUEST_ID_REUSED", Code.AlreadyExists);
      assert.equal(market.inventory.units.get(other), 2, "a refusal leaves nothing behind");
    });
  });
