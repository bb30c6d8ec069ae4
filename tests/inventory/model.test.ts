import assert from "node:assert/strict";
import fc from "fast-check";
import { InventoryService } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import { overBothTransports } from "../support/server.ts";
import { audit, type Fate } from "./audit.ts";
import { type End, type Keeper, naiveKeeper, realKeeper, SHORT, wants } from "./keepers.ts";
import { openStorehouse, type Storehouse } from "./storehouse.ts";

type Command =
  | { readonly kind: "set"; readonly listing: number; readonly units: number }
  | { readonly kind: "reserve" | "commit" | "release"; readonly reservation: number }
  | { readonly kind: "expire" };

const reservation = fc.nat(wants.length - 1);
const command: fc.Arbitrary<Command> = fc.oneof(
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("set" as const), listing: fc.nat(1), units: fc.nat(3) }) },
  { weight: 5, arbitrary: fc.record({ kind: fc.constant("reserve" as const), reservation }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constantFrom("commit" as const, "release" as const), reservation }) },
  { weight: 1, arbitrary: fc.constant({ kind: "expire" as const }) },
);

/** The simplest right inventory: what one caller at a time must see. */
class Model {
  readonly units = [0, 0].map(() => ({ available: 0, reserved: 0, sold: 0 }));
  readonly states: (Fate["state"] | undefined)[] = wants.map(() => undefined);
  readonly tombstones = new Set<number>();
  expired = false;

  apply(command: Command): true | End | undefined {
    switch (command.kind) {
      case "set":
        this.#unitsOf(command.listing).available = command.units;
        return true;
      case "reserve":
        return this.#reserve(command.reservation);
      case "expire":
        this.expired = true;
        if (this.states[SHORT] === "PENDING") this.#end(SHORT, "EXPIRED");
        return true;
      default:
        return this.#endBy(command.reservation, command.kind === "commit" ? "COMMITTED" : "RELEASED");
    }
  }

  #unitsOf(listing: number) {
    return this.units[listing] as { available: number; reserved: number; sold: number };
  }

  #reserve(index: number): true | undefined {
    if (this.states[index] !== undefined) {
      return this.tombstones.has(index) ? undefined : true;
    }
    const lines = wants[index] ?? [];
    if ((index === SHORT && this.expired) || lines.some(([listing, units]) => this.#unitsOf(listing).available < units)) {
      return undefined;
    }
    for (const [listing, units] of lines) {
      this.#unitsOf(listing).available -= units;
      this.#unitsOf(listing).reserved += units;
    }
    this.states[index] = "PENDING";
    return true;
  }

  #endBy(index: number, end: "COMMITTED" | "RELEASED"): End | undefined {
    const state = this.states[index];
    if (state === undefined && end === "RELEASED") {
      this.states[index] = end;
      this.tombstones.add(index);
      return end;
    }
    if (state === "PENDING") {
      this.#end(index, end);
      return end;
    }
    const repeated = state === end || (end === "RELEASED" && state === "EXPIRED");
    return repeated ? state : undefined;
  }

  #end(index: number, end: End): void {
    for (const [listing, units] of wants[index] ?? []) {
      this.#unitsOf(listing).reserved -= units;
      this.#unitsOf(listing)[end === "COMMITTED" ? "sold" : "available"] += units;
    }
    this.states[index] = end;
  }
}

async function perform(keeper: Keeper, command: Command): Promise<true | End | undefined> {
  switch (command.kind) {
    case "set":
      await keeper.setUnits(command.listing, command.units);
      return true;
    case "reserve":
      return keeper.reserve(command.reservation);
    case "expire":
      await keeper.expire();
      return true;
    default:
      return keeper.end(command.reservation, command.kind);
  }
}

/** Runs rounds of commands that start together, and audits what came of them. */
async function concurrently(keeper: Keeper, rounds: readonly (readonly Command[])[]): Promise<void> {
  const answered = wants.map(() => [] as string[]);
  const tombstones = new Set<number>();
  for (const round of rounds) {
    await Promise.all(
      round.map(async (one) => {
        const outcome = await perform(keeper, one);
        if ("reservation" in one && one.kind !== "reserve" && outcome !== undefined) {
          answered[one.reservation]?.push(String(outcome));
        }
      }),
    );
  }
  const { told, states, check } = await keeper.facts();
  const fates = new Map<string, Fate>();
  for (const [index, state] of states.entries()) {
    const moved = [...told.values()].flat().some((change) => change.reservationId === String(index));
    if (state === "RELEASED" && !moved) tombstones.add(index);
    if (state !== undefined && !tombstones.has(index)) {
      const units = new Map((wants[index] ?? []).map(([listing, count]) => [String(listing), count]));
      fates.set(String(index), { state, units, answered: answered[index] ?? [] });
    }
  }
  audit(told, fates);
  assert.deepEqual(check, []);
}

const rounds = fc.array(fc.array(command, { minLength: 1, maxLength: 10 }), { maxLength: 4 });
let house: Storehouse;

overBothTransports(
  "inventory against a model",
  async () => {
    house = await openStorehouse();
    return [house.module];
  },
  (subject) => {
    let open: () => Keeper;
    before(() => {
      const as = (service: string) => subject().client(InventoryService, { service });
      const clients = { order: as("order"), catalog: as("catalog"), ops: as("ops") };
      open = () => realKeeper(house, clients);
    });
    after(() => house.close());

    it("answers any sequence of commands as the model does, and keeps the same units", async () => {
      await fc.assert(
        fc.asyncProperty(fc.array(command, { maxLength: 25 }), async (commands) => {
          const keeper = open();
          const model = new Model();
          for (const one of commands) {
            assert.equal(await perform(keeper, one), model.apply(one), JSON.stringify(one));
          }
          const { told, states, check } = await keeper.facts();
          assert.deepEqual(states, model.states);
          for (const [listing, { available, reserved, sold }] of model.units.entries()) {
            const last = told.get(String(listing))?.at(-1) ?? { available: 0, reserved: 0, sold: 0 };
            assert.deepEqual([last.available, last.reserved, last.sold], [available, reserved, sold]);
          }
          assert.deepEqual(check, []);
        }),
        { numRuns: 25 },
      );
    });

    it("never oversells, loses a unit or ends a reservation twice, whatever happens at once", async () => {
      await fc.assert(
        fc.asyncProperty(rounds, (commands) => concurrently(open(), commands)),
        { numRuns: 40 },
      );
    });
  },
  ["Connect JSON"],
);

describe("an inventory that reads first and writes then", () => {
  it("is caught", async () => {
    const result = await fc.check(
      fc.asyncProperty(rounds, (commands) => concurrently(naiveKeeper(), commands)),
      { numRuns: 500 },
    );
    assert.ok(result.failed);
  });
});
