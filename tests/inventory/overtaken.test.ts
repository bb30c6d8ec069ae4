import assert from "node:assert/strict";
import type { KyselyPlugin } from "kysely";
import { reasonOf } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { moveUnits, setUnits } from "../../services/inventory/stock.ts";
import { openStorehouse, type Storehouse } from "./storehouse.ts";

/** The first row read is older than the row that is there, as when another transaction committed between reading and writing. */
function staleOnce(change: (row: Record<string, number>) => void): KyselyPlugin {
  let stale = true;
  return {
    transformQuery: ({ node }) => node,
    async transformResult({ result }) {
      const [row] = result.rows as Record<string, number>[];
      if (stale && row?.available_units !== undefined) {
        stale = false;
        change(row);
      }
      return result;
    },
  };
}

describe("setting units while another writer comes between reading and writing", () => {
  let house: Storehouse;
  const sellerId = newId();
  const listingId = newId();
  beforeEach(async () => {
    house = await openStorehouse();
    await house.database.transaction((tx) => setUnits(tx, [{ listingId, units: 5 }], { sellerId, mayCreate: true }));
    await house.database.transaction(async (tx) => assert.ok(await moveUnits(tx, "reserve", { listingId, units: 2 })));
  });
  afterEach(() => house.close());

  const overtaken = (
    change: (row: Record<string, number>) => void,
    setting: { refuseIfReserved?: boolean; expectedUnits?: number },
  ) =>
    house.database.transaction((tx) => {
      const sql = tx.sql.withPlugin(staleOnce(change));
      const stale = new Proxy(tx, { get: (target, name) => (name === "sql" ? sql : bound(target, name)) });
      return setUnits(stale, [{ listingId, units: 9 }], { sellerId, mayCreate: false, ...setting });
    });
  const beforeTheReservation = (row: Record<string, number>) => {
    row.available_units = 5;
    row.reserved_units = 0;
  };

  it("keeps what the other one reserved", async () => {
    const [row] = await overtaken(beforeTheReservation, {});
    assert.deepEqual([row?.available_units, row?.reserved_units, row?.offered_units], [9, 2, 11]);
  });

  it("is refused by what the other one reserved", async () => {
    await assert.rejects(
      overtaken(beforeTheReservation, { refuseIfReserved: true }),
      (error) => reasonOf(error) === "UNITS_RESERVED",
    );
  });

  it("is refused by what the other one left", async () => {
    await assert.rejects(overtaken(beforeTheReservation, { expectedUnits: 5 }), (error) => reasonOf(error) === "UNITS_CHANGED");
  });
});

/** A property as its owner has it: methods with private fields need their own `this`. */
function bound<T extends object>(target: T, name: string | symbol): unknown {
  const value: unknown = Reflect.get(target, name);
  return typeof value === "function" ? value.bind(target) : value;
}
