import assert from "node:assert/strict";
import type { Client } from "@connectrpc/connect";
import { sql } from "kysely";
import { InventoryService } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import { newId } from "#runtime/ids.ts";
import { behind, carriers, type Subject } from "../support/server.ts";
import { offer, openStorehouse, reserve, type Storehouse } from "./storehouse.ts";

for (const carrier of carriers)
  describe(`the check of the stock (${carrier})`, () => {
    let house: Storehouse;
    let subject: Subject;
    let order: Client<typeof InventoryService>;
    let ops: Client<typeof InventoryService>;
    let listingId: string;
    const reservationId = newId();

    beforeEach(async () => {
      house = await openStorehouse();
      subject = await behind(carrier, [house.module]);
      order = subject.client(InventoryService, { service: "order" });
      ops = subject.client(InventoryService, { service: "ops" });
      listingId = await offer(subject.client(InventoryService, { service: "catalog" }), 5);
      await offer(subject.client(InventoryService, { service: "catalog" }), 1);
      await reserve(order, house.clock, reservationId, [[listingId, 2]]);
    });
    afterEach(async () => {
      await subject.stop();
      await house.close();
    });

    const tamper = (statement: string) => house.database.transaction(async (tx) => void (await sql.raw(statement).execute(tx.sql)));

    it("finds nothing where counters and reservations agree", async () => {
      await reserve(order, house.clock, newId(), [[listingId, 1]]);
      await order.commitReservation({ requestId: newId(), reservationId });
      assert.deepEqual({ ...(await ops.checkStock({})), $typeName: "" }, { $typeName: "", listingsChecked: 2n, findings: [] });
    });

    it("finds units that are reserved for nobody", async () => {
      await tamper(
        "update stock set available_units = available_units - 1, reserved_units = reserved_units + 1 where sold_units = 0",
      );
      const { findings } = await ops.checkStock({});
      assert.equal(findings.length, 2);
      assert.ok(findings.some((finding) => finding.includes(listingId) && finding.includes("3 reserved")));
    });

    it("finds a reservation that ended without its units", async () => {
      await tamper("update reservation set state = 'COMMITTED', end_time = 1");
      assert.equal((await ops.checkStock({})).findings.length, 2);
    });

    for (const [what, statement] of [
      ["a unit that is lost", "update stock set available_units = available_units - 1"],
      ["a unit that comes from nowhere", "update stock set sold_units = sold_units + 1"],
      ["fewer than no units", "update stock set available_units = -1, sold_units = sold_units + available_units + 1"],
      ["an end without its time", "update reservation set state = 'EXPIRED'"],
      ["a state that is none", "update reservation set state = 'LOST', end_time = 1"],
      ["a line without units", "update reservation_line set units = 0"],
      ["a line of no listing", "delete from stock"],
    ] as const) {
      it(`has little to find, since the tables refuse ${what}`, async () => {
        await assert.rejects(tamper(statement), /constraint/i);
      });
    }
  });
