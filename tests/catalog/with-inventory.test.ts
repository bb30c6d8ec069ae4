import assert from "node:assert/strict";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Client } from "@connectrpc/connect";
import { CatalogService, type Listing, ListingState } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { InventoryService } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import { createDirectory } from "#runtime/clients.ts";
import { manualClock } from "#runtime/clock.ts";
import { inProcessBus } from "#runtime/events/bus.ts";
import { type Relay, startRelay } from "#runtime/events/relay.ts";
import { newId } from "#runtime/ids.ts";
import { pageTokens } from "#runtime/pages.ts";
import { embeddedVerifiers, serviceTokens, temporaryKeys } from "#runtime/tokens.ts";
import { entities } from "../../services/catalog/entities.ts";
import { migrations } from "../../services/catalog/migrations/index.ts";
import { catalog } from "../../services/catalog/service.ts";
import { entities as inventoryEntities } from "../../services/inventory/entities.ts";
import { migrations as inventoryMigrations } from "../../services/inventory/migrations/index.ts";
import { inventory } from "../../services/inventory/service.ts";
import { memoryDatabase, quietLog } from "../support/database.ts";
import { refused } from "../support/refused.ts";
import { overBothTransports } from "../support/server.ts";
import { draft } from "./marketplace.ts";

const seller = newId();

const clock = manualClock();
let relay: Relay;
let close: () => Promise<void>;

overBothTransports(
  "the catalog with the inventory and its events",
  async () => {
    const keys = await temporaryKeys();
    const { database: ours } = await memoryDatabase(entities, migrations, { service: "catalog", clock });
    const { database: theirs } = await memoryDatabase(inventoryEntities, inventoryMigrations, { service: "inventory", clock });
    const directory = createDirectory({ verifiers: embeddedVerifiers(keys), log: quietLog });
    const clients = directory.clientsFor(serviceTokens(keys, "catalog"));
    const modules = [
      catalog({ database: ours, clients, pages: pageTokens({ secret: keys.pageTokens, clock }) }),
      inventory({ database: theirs }),
    ];
    directory.host(modules);
    const bus = inProcessBus({ log: quietLog });
    for (const consumer of modules.flatMap(({ consumers }) => consumers)) {
      bus.subscribe(consumer);
    }
    relay = startRelay({ database: theirs, bus });
    close = async () => {
      await relay.stop();
      await bus.close();
      await ours.close();
      await theirs.close();
    };
    return modules;
  },
  (subject) => {
    let listings: Client<typeof CatalogService>;
    let units: Client<typeof InventoryService>;
    let own: Client<typeof InventoryService>;
    before(() => {
      listings = subject().client(CatalogService, { account: seller });
      own = subject().client(InventoryService, { account: seller });
      units = subject().client(InventoryService, { service: "order" });
    });
    after(() => close());

    const settled = async (listingId: string): Promise<[ListingState, number]> => {
      await relay.drain();
      const { state, availableUnits } = (await listings.getListing({ listingId })).listing as Listing;
      return [state, availableUnits];
    };
    const create = async (count: number): Promise<string> =>
      (await listings.createListing({ requestId: newId(), listing: draft({ units: count }), publish: true })).listing
        ?.listingId as string;
    const reserve = async (listingId: string, count: number): Promise<string> => {
      const reservationId = newId();
      const expireTime = timestampFromMs(clock.now() + 60_000);
      await units.reserve({ requestId: newId(), reservationId, lines: [{ listingId, units: count }], expireTime });
      return reservationId;
    };

    it("shows a listing reserved, active again and sold as its units go", async () => {
      const listingId = await create(2);
      assert.deepEqual(await settled(listingId), [ListingState.ACTIVE, 2]);
      const first = await reserve(listingId, 1);
      assert.deepEqual(await settled(listingId), [ListingState.ACTIVE, 1]);
      const second = await reserve(listingId, 1);
      assert.deepEqual(await settled(listingId), [ListingState.RESERVED, 0]);
      await refused(listings.withdrawListing({ requestId: newId(), listingId }), "UNITS_RESERVED");
      await units.releaseReservation({ requestId: newId(), reservationId: second });
      assert.deepEqual(await settled(listingId), [ListingState.ACTIVE, 1]);
      await refused(listings.withdrawListing({ requestId: newId(), listingId }), "UNITS_RESERVED");
      assert.deepEqual(await settled(listingId), [ListingState.ACTIVE, 1]);
      await units.commitReservation({ requestId: newId(), reservationId: first });
      await units.commitReservation({ requestId: newId(), reservationId: await reserve(listingId, 1) });
      assert.deepEqual(await settled(listingId), [ListingState.SOLD, 0]);
      await own.setUnits({ requestId: newId(), listingId, units: 3 });
      assert.deepEqual(await settled(listingId), [ListingState.ACTIVE, 3]);
    });

    it("publishes a batch whose units can all be reserved", async () => {
      const drafts = Array.from({ length: 250 }, (_, i) => draft({ units: (i % 3) + 1, externalId: `batch-${i}` }));
      const { results } = await listings.batchCreateListings({ requestId: newId(), listings: drafts, publish: true });
      assert.ok(results.every(({ reason }) => reason === ""));
      for (const [index, { listingId }] of results.slice(0, 5).entries()) {
        await reserve(listingId, (index % 3) + 1);
        assert.deepEqual(await settled(listingId), [ListingState.RESERVED, 0]);
      }
    });

    it("withdraws while events and buyers come, and either the buyer or the seller wins", async () => {
      for (let i = 0; i < 10; i++) {
        const listingId = await create(1);
        const withdrawal = listings.withdrawListing({ requestId: newId(), listingId });
        const [withdrawn, reserved] = await Promise.allSettled([withdrawal, reserve(listingId, 1)]);
        assert.notEqual(withdrawn.status, reserved.status);
        const state = withdrawn.status === "fulfilled" ? ListingState.WITHDRAWN : ListingState.RESERVED;
        assert.deepEqual(await settled(listingId), [state, 0]);
      }
    });
  },
  ["Connect JSON"],
);
