import assert from "node:assert/strict";
import { Code } from "@connectrpc/connect";
import { InventoryService } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import { metadataOf, violationsOf } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { refused } from "../support/refused.ts";
import { overBothTransports } from "../support/server.ts";
import { offer, openStorehouse, reserve, type Storehouse, unitsOf } from "./storehouse.ts";

let house: Storehouse;

overBothTransports(
  "units of a listing",
  async () => {
    house = await openStorehouse();
    return [house.module];
  },
  (subject) => {
    after(() => house.close());
    const catalog = () => subject().client(InventoryService, { service: "catalog" });
    const order = () => subject().client(InventoryService, { service: "order" });
    const account = (accountId: string) => subject().client(InventoryService, { account: accountId });
    const anyone = () => subject().client(InventoryService);

    it("are set by the catalog first, and by their seller then", async () => {
      const seller = newId();
      const listingId = await offer(catalog(), 3, seller);
      assert.deepEqual(await unitsOf(anyone(), listingId), [3, 0, 0]);
      const { stock } = await account(seller).setUnits({ requestId: newId(), listingId, units: 5, sellerId: newId() });
      assert.equal(stock?.availableUnits, 5);
      assert.equal(stock?.sellerId, seller, "an account's seller_id is ignored");
    });

    it("belong to the seller of the first call", async () => {
      const listingId = await offer(catalog(), 3);
      const stranger = newId();
      const request = { listingId, units: 1 };
      await refused(account(stranger).setUnits({ requestId: newId(), ...request }), "NOT_YOUR_LISTING", Code.PermissionDenied);
      await refused(catalog().setUnits({ requestId: newId(), sellerId: stranger, ...request }), "NOT_YOUR_LISTING");
      const batch = { requestId: newId(), sellerId: stranger, listings: [{ listingId: newId(), units: 1 }, request] };
      await refused(catalog().batchSetUnits(batch), "NOT_YOUR_LISTING");
      await refused(anyone().getAvailability({ listingId: batch.listings[0]?.listingId as string }), "LISTING_NOT_FOUND");
    });

    it("cannot be set by an account for a listing without stock", async () => {
      const request = { requestId: newId(), listingId: newId(), units: 1 };
      const error = await refused(account(newId()).setUnits(request), "LISTING_NOT_FOUND", Code.NotFound);
      assert.equal(metadataOf(error).listing_id, request.listingId);
    });

    it("need a seller's name from a service", async () => {
      const error = await refused(catalog().setUnits({ requestId: newId(), listingId: newId(), units: 1 }), "INVALID_REQUEST");
      assert.equal(violationsOf(error)[0]?.field, "seller_id");
    });

    it("are refused when others are available than expected", async () => {
      const seller = newId();
      const listingId = await offer(catalog(), 3, seller);
      const request = { listingId, units: 9, expectedUnits: 2 };
      const error = await refused(account(seller).setUnits({ requestId: newId(), ...request }), "UNITS_CHANGED", Code.Aborted);
      assert.equal(metadataOf(error).available_units, "3");
      await account(seller).setUnits({ requestId: newId(), ...request, expectedUnits: 3 });
      assert.deepEqual(await unitsOf(anyone(), listingId), [9, 0, 0]);
      const unknown = { requestId: newId(), listingId: newId(), sellerId: seller, units: 1, expectedUnits: 1 };
      await refused(catalog().setUnits(unknown), "UNITS_CHANGED");
    });

    it("leave reserved and sold ones as they are, or are refused while some are reserved", async () => {
      const seller = newId();
      const listingId = await offer(catalog(), 3, seller);
      const [sold, pending] = [newId(), newId()];
      await reserve(order(), house.clock, sold, [[listingId, 1]]);
      await order().commitReservation({ requestId: newId(), reservationId: sold });
      await reserve(order(), house.clock, pending, [[listingId, 2]]);
      const request = { listingId, units: 7 };
      const error = await refused(
        account(seller).setUnits({ requestId: newId(), ...request, refuseIfReserved: true }),
        "UNITS_RESERVED",
        Code.FailedPrecondition,
      );
      assert.equal(metadataOf(error).reserved_units, "2");
      await account(seller).setUnits({ requestId: newId(), ...request });
      assert.deepEqual(await unitsOf(anyone(), listingId), [7, 2, 1]);
      const most = { requestId: newId(), listingId, units: 9_999 };
      assert.equal(violationsOf(await refused(account(seller).setUnits(most), "INVALID_REQUEST"))[0]?.field, "units");
    });

    it("get the first answer again under the same request_id, and none for another request", async () => {
      const seller = newId();
      const listingId = await offer(catalog(), 3, seller);
      const request = { requestId: newId(), listingId, units: 4 };
      const first = await account(seller).setUnits(request);
      await account(seller).setUnits({ requestId: newId(), listingId, units: 8 });
      assert.deepEqual(await account(seller).setUnits(request), first);
      assert.deepEqual(await unitsOf(anyone(), listingId), [8, 0, 0]);
      await refused(account(seller).setUnits({ ...request, units: 5 }), "REQUEST_ID_REUSED", Code.AlreadyExists);
    });

    it("of 250 new listings are offered at once; one that has stock keeps it", async () => {
      const sellerId = newId();
      const known = await offer(catalog(), 1, sellerId);
      const listings = [{ listingId: known, units: 2 }, ...Array.from({ length: 249 }, () => ({ listingId: newId(), units: 3 }))];
      await catalog().batchSetUnits({ requestId: newId(), sellerId, listings });
      const ids = [listings[249]?.listingId as string, newId(), known];
      const { stocks } = await anyone().batchGetAvailability({ listingIds: ids });
      const found = stocks.map((stock) => [stock.listingId, stock.availableUnits]);
      assert.deepEqual(found, [
        [ids[0], 3],
        [known, 1],
      ]);
      const told = await house.told();
      assert.equal(told.get(known)?.length, 1);
      assert.equal(told.get(ids[0] as string)?.[0]?.stock?.availableUnits, 3);
    });

    it("of one listing are named once in a batch", async () => {
      const listing = { listingId: newId(), units: 1 };
      const request = { requestId: newId(), sellerId: newId(), listings: [listing, listing] };
      await refused(catalog().batchSetUnits(request), "INVALID_REQUEST", Code.InvalidArgument);
    });

    it("are told when they change, and only then", async () => {
      const seller = newId();
      const listingId = await offer(catalog(), 3, seller);
      await account(seller).setUnits({ requestId: newId(), listingId, units: 3 });
      await account(seller).setUnits({ requestId: newId(), listingId, units: 0 });
      const told = (await house.told()).get(listingId) ?? [];
      assert.deepEqual(
        told.map((change) => [change.stock?.availableUnits, change.reservationId]),
        [
          [3, ""],
          [0, ""],
        ],
      );
    });

    it("set by many at once are those of one of them, and each change is told once", async () => {
      const sellerId = newId();
      const listingId = newId();
      const set = (units: number) => catalog().setUnits({ requestId: newId(), listingId, sellerId, units });
      await Promise.all(Array.from({ length: 20 }, (_, index) => set(index + 1)));
      const [available] = await unitsOf(anyone(), listingId);
      const told = (await house.told()).get(listingId) ?? [];
      assert.equal(told.length, 20);
      assert.equal(told.at(-1)?.stock?.availableUnits, available);
    });
  },
  ["Connect JSON"],
);
