import assert from "node:assert/strict";
import { Code } from "@connectrpc/connect";
import { type Listing, ListingState } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { fail, INVALID_REQUEST, reasonOf } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { type Jobs, startJobs } from "#runtime/jobs/jobs.ts";
import { refused } from "../support/refused.ts";
import { carriers } from "../support/server.ts";
import { type DraftFields, draft, type Marketplace, openMarketplace } from "./marketplace.ts";

for (const carrier of carriers)
  describe(`listings that are published as they are created (${carrier})`, () => {
    let seller: string;
    let market: Marketplace;
    let jobs: Jobs;
    before(async () => {
      market = await openMarketplace(carrier);
      jobs = startJobs({ database: market.database, handlers: market.module.jobs, pollMs: 3_600_000 });
    });
    beforeEach(() => {
      seller = newId();
    });
    after(async () => {
      await jobs.stop();
      await market.close();
    });

    const create = (over: DraftFields, requestId = newId()) =>
      market.account(seller).createListing({ requestId, listing: draft(over), publish: true });
    const batch = (drafts: DraftFields[], requestId = newId()) =>
      market.account(seller).batchCreateListings({ requestId, listings: drafts.map(draft), publish: true });
    const own = async (): Promise<Listing[]> => (await market.account(seller).listSellerListings({ pageSize: 100 })).listings;
    const eventTypes = async (listingId: string) => (await market.events(listingId)).map(({ type }) => type);
    /** What is left of commands that are under way, in all tables. */
    const underWay = async () => [
      ...(await market.database.sql.selectFrom("creation").select("creation_id").execute()),
      ...(await market.database.sql.selectFrom("listing").select("listing_id").where("creation_id", "is not", null).execute()),
      ...(await market.database.sql.selectFrom("job").select("job_key").where("kind", "=", "catalog.create").execute()),
      ...(await market.database.sql.selectFrom("replay").select("request_key").where("state", "=", "pending").execute()),
    ];
    /** Lets the job run, and gives what the repeat that waits for it is answered. */
    const finished = async <T>(repeat: () => Promise<T>): Promise<T> => {
      const [answer] = await Promise.all([repeat(), Promise.resolve(market.clock.advance(10_000)).then(() => jobs.runDue())]);
      assert.deepEqual(await underWay(), []);
      return answer;
    };

    it("are finished by a job when the call died between the services, and a repeat gets the answer", async () => {
      for (const when of ["before", "after"] as const) {
        seller = newId();
        const requestId = newId();
        const told = market.inventory.units.size;
        market.inventory.failing = { count: 1, when };
        await refused(create({ units: 3 }, requestId), "DEPENDENCY_UNAVAILABLE", Code.Internal);
        const { listing, alreadyExisted } = await finished(() => create({ units: 3 }, requestId));
        assert.deepEqual([alreadyExisted, listing?.state, listing?.availableUnits], [false, ListingState.ACTIVE, 3]);
        assert.deepEqual(await own(), [listing]);
        assert.equal(market.inventory.units.get(listing?.listingId ?? ""), 3);
        assert.equal(market.inventory.units.size, told + 1, "no units of listings that do not exist");
        assert.deepEqual(await eventTypes(listing?.listingId ?? ""), ["ListingPublished"]);
        assert.deepEqual((await create({ units: 3 }, requestId)).listing, listing);
      }
    });

    it("are finished by the job although nobody repeats the call", async () => {
      market.inventory.failing = { count: 1, when: "before" };
      await refused(batch([{ units: 2 }, {}]), "DEPENDENCY_UNAVAILABLE");
      await finished(async () => {});
      const listings = await own();
      assert.deepEqual(
        listings.map(({ state }) => state),
        [ListingState.ACTIVE, ListingState.ACTIVE],
      );
      assert.deepEqual(listings.map(({ listingId }) => market.inventory.units.get(listingId)).sort(), [1, 2]);
    });

    it("of a batch with a conflict are answered by the job as they were decided", async () => {
      for (const when of ["before", "after"] as const) {
        const [taken, fresh, requestId] = [newId(), newId(), newId()];
        const { listing: old } = await create({ externalId: taken });
        const drafts = [
          { units: 2 },
          { title: "" },
          { externalId: taken },
          { externalId: taken, title: "Other contents" },
          { externalId: fresh, units: 3 },
          { externalId: fresh, units: 3 },
        ];
        market.inventory.failing = { count: 1, when };
        await refused(batch(drafts, requestId), "DEPENDENCY_UNAVAILABLE");
        // What happens meanwhile is not in the answer.
        await market.account(seller).withdrawListing({ requestId: newId(), listingId: old?.listingId ?? "" });
        const { results } = await finished(() => batch(drafts, requestId));
        assert.deepEqual(
          results.map(({ reason, alreadyExisted, state }) => [reason, alreadyExisted, state]),
          [
            ["", false, ListingState.ACTIVE],
            ["INVALID_REQUEST", false, ListingState.UNSPECIFIED],
            ["", true, ListingState.ACTIVE],
            ["EXTERNAL_ID_CONFLICT", false, ListingState.UNSPECIFIED],
            ["", false, ListingState.ACTIVE],
            ["", true, ListingState.ACTIVE],
          ],
        );
        assert.match(results[1]?.message ?? "", /^title: /);
        assert.equal(results[2]?.listingId, old?.listingId);
        assert.equal(results[4]?.listingId, results[5]?.listingId);
        assert.deepEqual(
          [0, 4].map((i) => market.inventory.units.get(results[i]?.listingId ?? "")),
          [2, 3],
        );
        for (const i of [0, 4]) {
          const { listingId = "", etag } = results[i] ?? {};
          assert.equal((await market.anonymous.getListing({ listingId })).listing?.etag, etag);
          assert.deepEqual(await eventTypes(listingId), ["ListingPublished"]);
        }
        assert.deepEqual((await batch(drafts, requestId)).results, results);
      }
    });

    it("are meanwhile drafts that only their seller sees and nobody changes", async () => {
      const requestId = newId();
      const externalId = newId();
      market.inventory.failing = { count: 1, when: "after" };
      await refused(create({ externalId }, requestId), "DEPENDENCY_UNAVAILABLE");
      const [{ listingId, etag, state, availableUnits }] = (await own()) as [Listing];
      assert.deepEqual([state, availableUnits], [ListingState.DRAFT, 0]);
      await refused(market.anonymous.getListing({ listingId }), "LISTING_NOT_FOUND");
      const client = market.account(seller);
      for (const change of [
        () => client.updateListing({ requestId: newId(), listingId, etag, title: "Other" }),
        () => client.publishListing({ requestId: newId(), listingId }),
        () => client.withdrawListing({ requestId: newId(), listingId }),
      ]) {
        await refused(change(), "LISTING_NOT_EDITABLE", Code.FailedPrecondition);
      }
      await refused(create({ externalId: newId() }, requestId), "REQUEST_ID_REUSED", Code.AlreadyExists);
      await refused(create({ externalId, units: 9 }), "EXTERNAL_ID_CONFLICT", Code.AlreadyExists);
      const { listing, alreadyExisted } = await create({ externalId });
      assert.deepEqual([alreadyExisted, listing?.listingId, listing?.state], [true, listingId, ListingState.DRAFT]);
      const answer = await finished(() => create({ externalId }, requestId));
      assert.deepEqual([answer.alreadyExisted, answer.listing?.listingId], [false, listingId]);
      const edit = { requestId: newId(), listingId, etag: answer.listing?.etag ?? "", title: "Other" };
      assert.equal((await client.updateListing(edit)).listing?.title, "Other");
    });

    it("leave nothing of the content that lost when one request_id comes with two at once", async () => {
      for (const make of [
        (requestId: string, units: number) => create({ units }, requestId),
        (requestId: string, units: number) => batch([{ units }, { units, externalId: newId() }], requestId),
      ]) {
        seller = newId();
        const requestId = newId();
        const told = market.inventory.units.size;
        const calls = Array.from({ length: 20 }, (_, i) => make(requestId, (i % 2) + 1));
        const outcomes = await Promise.allSettled(calls);
        for (const outcome of outcomes) {
          assert.ok(outcome.status === "fulfilled" || reasonOf(outcome.reason) === "REQUEST_ID_REUSED");
        }
        const listings = await own();
        assert.equal(market.inventory.units.size, told + listings.length);
        assert.equal(new Set(listings.map(({ availableUnits }) => availableUnits)).size, 1);
        assert.deepEqual(await underWay(), []);
      }
    });

    describe("and drafts that are published later", () => {
      const publish = (listingId: string, requestId = newId()) => market.account(seller).publishListing({ requestId, listingId });
      const drafted = async (over: DraftFields = {}) => {
        const { listing } = await market.account(seller).createListing({ requestId: newId(), listing: draft(over) });
        return listing as Listing;
      };

      it("are finished by a job when the call died between the services, and a repeat gets the answer", async () => {
        for (const when of ["before", "after"] as const) {
          const { listingId, etag } = await drafted({ units: 3 });
          const requestId = newId();
          market.inventory.failing = { count: 1, when };
          await refused(publish(listingId, requestId), "DEPENDENCY_UNAVAILABLE", Code.Internal);
          const edit = { requestId: newId(), listingId, etag, units: 5 };
          await refused(market.account(seller).updateListing(edit), "LISTING_NOT_EDITABLE");
          const { listing } = await finished(() => publish(listingId, requestId));
          assert.deepEqual([listing?.state, listing?.availableUnits], [ListingState.ACTIVE, 3]);
          assert.equal(market.inventory.units.get(listingId), 3);
          assert.deepEqual(await eventTypes(listingId), ["ListingPublished"]);
        }
      });

      it("leave nothing with inventory of the one that lost when one request_id comes for two at once", async () => {
        const requestId = newId();
        const ids = [(await drafted()).listingId, (await drafted()).listingId];
        const outcomes = await Promise.allSettled(Array.from({ length: 20 }, (_, i) => publish(ids[i % 2] as string, requestId)));
        for (const outcome of outcomes) {
          assert.ok(outcome.status === "fulfilled" || reasonOf(outcome.reason) === "REQUEST_ID_REUSED");
        }
        const active = (await own()).filter(({ state }) => state === ListingState.ACTIVE).map(({ listingId }) => listingId);
        assert.equal(active.length, 1);
        assert.deepEqual(
          ids.filter((id) => market.inventory.units.has(id)),
          active,
        );
        assert.deepEqual(await underWay(), []);
      });

      it("are drafts again when inventory refuses them, and the call may be repeated", async () => {
        const { listingId } = await drafted();
        const requestId = newId();
        market.inventory.meanwhile = async () => fail(INVALID_REQUEST);
        await refused(publish(listingId, requestId), "INVALID_REQUEST", Code.InvalidArgument);
        market.inventory.meanwhile = undefined;
        assert.deepEqual(await underWay(), []);
        assert.deepEqual(
          (await own()).map(({ state }) => state),
          [ListingState.DRAFT],
        );
        assert.equal((await publish(listingId, requestId)).listing?.state, ListingState.ACTIVE);
      });
    });

    it("are gone when inventory refuses them, and the call may be repeated", async () => {
      for (const make of [(id: string) => create({}, id), (id: string) => batch([{}, { externalId: "mine" }, { title: "" }], id)]) {
        const requestId = newId();
        market.inventory.meanwhile = async () => fail(INVALID_REQUEST);
        await refused(make(requestId), "INVALID_REQUEST", Code.InvalidArgument);
        market.inventory.meanwhile = undefined;
        assert.deepEqual([await own(), await underWay()], [[], []]);
        await make(requestId);
        seller = newId();
      }
    });

    it("are gone too when it is the job that inventory refuses, and a repeat that waited starts anew", async () => {
      const requestId = newId();
      market.inventory.failing = { count: 1, when: "before" };
      await refused(create({}, requestId), "DEPENDENCY_UNAVAILABLE");
      const [lost] = await own();
      market.inventory.meanwhile = async () => {
        market.inventory.meanwhile = undefined;
        fail(INVALID_REQUEST);
      };
      const { listing } = await finished(() => create({}, requestId));
      assert.notEqual(listing?.listingId, lost?.listingId);
      assert.deepEqual(await own(), [listing]);
    });

    it("take over what inventory said of their units before they were published", async () => {
      market.inventory.meanwhile = async () => {
        const [listing] = await own();
        await market.stock(listing?.listingId ?? "", 1, { available: 1 });
        await market.stock(listing?.listingId ?? "", 2, { available: 0, sold: 1 });
      };
      const { listing } = await create({});
      market.inventory.meanwhile = undefined;
      assert.equal(listing?.state, ListingState.SOLD);
      assert.deepEqual(await eventTypes(listing?.listingId ?? ""), ["ListingPublished", "ListingSold"]);
    });

    it("are published once when the job comes while the call is still at it", async () => {
      const requestId = newId();
      market.inventory.meanwhile = async () => {
        market.inventory.meanwhile = undefined;
        market.clock.advance(10_000);
        await jobs.runDue();
      };
      const { listing } = await create({}, requestId);
      assert.equal(listing?.state, ListingState.ACTIVE);
      assert.deepEqual(await eventTypes(listing?.listingId ?? ""), ["ListingPublished"]);
      assert.deepEqual(await underWay(), []);
    });
  });
