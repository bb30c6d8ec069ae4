import assert from "node:assert/strict";

/** What is said of one listing after a change: its units, and the reservation that changed them (empty: the seller). */
export interface Told {
  readonly available: number;
  readonly reserved: number;
  readonly sold: number;
  readonly reservationId: string;
}

/** How the reservations ended, and what their callers were told. */
export interface Fate {
  readonly units: ReadonlyMap<string, number>;
  readonly state: "PENDING" | "COMMITTED" | "RELEASED" | "EXPIRED";
  /** The states that successful ends answered. */
  readonly answered: readonly string[];
}

/**
 * The checker of inventory, whoever keeps it. From what was told of each listing, in order, it follows every unit: a change by the seller moves no reserved
 * or sold one; any other change moves exactly the units of its reservation's line, forward once and to one end. So nothing is
 * oversold, no unit is lost or made, and each reservation ends once.
 */
export function audit(told: ReadonlyMap<string, readonly Told[]>, fates: ReadonlyMap<string, Fate>): void {
  for (const [listingId, changes] of told) {
    const steps = new Map<string, string[]>();
    let before: Told = { available: 0, reserved: 0, sold: 0, reservationId: "" };
    for (const change of changes) {
      assert.ok(Math.min(change.available, change.reserved, change.sold) >= 0, "no counter is negative");
      if (change.reservationId === "") {
        assert.deepEqual([change.reserved, change.sold], [before.reserved, before.sold], "the seller moves only what is available");
      } else {
        const units = fates.get(change.reservationId)?.units.get(listingId);
        assert.ok(units !== undefined, "only a reservation of the listing moves its units");
        steps.set(change.reservationId, [...(steps.get(change.reservationId) ?? []), stepOf(before, change, units)]);
      }
      before = change;
    }
    for (const [reservationId, fate] of fates) {
      if (fate.units.has(listingId)) {
        assert.deepEqual(
          steps.get(reservationId) ?? [],
          expectedSteps[fate.state],
          `the units of a reservation that is ${fate.state}`,
        );
      }
    }
  }
  for (const fate of fates.values()) {
    assert.deepEqual(
      fate.answered.filter((state) => state !== fate.state),
      [],
      "whoever ended a reservation was told how it ended",
    );
  }
}

const expectedSteps = {
  PENDING: ["reserve"],
  COMMITTED: ["reserve", "commit"],
  RELEASED: ["reserve", "give back"],
  EXPIRED: ["reserve", "give back"],
};

function stepOf(before: Told, after: Told, units: number): string {
  const delta = [after.available - before.available, after.reserved - before.reserved, after.sold - before.sold].map(
    (change) => change / units,
  );
  const step = { "-1,1,0": "reserve", "0,-1,1": "commit", "1,-1,0": "give back" }[delta.join()];
  return step ?? assert.fail(`units were lost or made: ${JSON.stringify({ before, after, units })}`);
}
