import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import type { ManualClock } from "#runtime/clock.ts";
import type { Database } from "#runtime/database/database.ts";
import { holdLeases } from "#runtime/database/leases.ts";
import { memoryDatabase } from "../support/database.ts";

describe("leases", () => {
  let database: Database;
  let clock: ManualClock;
  const names = ["one", "two"];
  const hold = (owner: string, leaseMs = 1_000) => holdLeases(database, { owner, leaseMs, names });

  beforeEach(async () => {
    ({ database, clock } = await memoryDatabase([], []));
  });
  afterEach(() => database.close());

  it("are held by one owner until they expire", async () => {
    const [first, second] = [hold("first"), hold("second")];
    assert.deepEqual([...(await first.take())], names);
    assert.deepEqual([...(await second.take())], []);
    clock.advance(1_000);
    assert.deepEqual([...(await second.take())], names);
    assert.deepEqual([...(await first.take())], []);
  });

  it("are renewed while the work lasts", async () => {
    const first = hold("first", 9);
    await first.take();
    await first.during(async () => {
      for (let moment = 0; moment < 10; moment++) {
        clock.advance(4);
        await sleep(8);
      }
    });
    assert.deepEqual([...(await hold("second").take())], []);
  });

  it("stay given back, even by work that goes on", async () => {
    const first = hold("first", 9);
    await first.take();
    const { promise, resolve } = Promise.withResolvers<void>();
    const work = first.during(() => promise);
    await first.release();
    await sleep(20);
    assert.deepEqual([...(await hold("second").take())], names);
    resolve();
    await work;
  });
});
