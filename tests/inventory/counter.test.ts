import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { newId } from "#runtime/ids.ts";
import { type Counter, type Lack, openCounter, type Place } from "../../services/inventory/counter.ts";
import { moveUnits, setUnits } from "../../services/inventory/stock.ts";
import { refused } from "../support/refused.ts";
import { openStorehouse, type Storehouse } from "./storehouse.ts";

describe("the counter before units are taken", () => {
  let house: Storehouse;
  let counter: Counter;
  const patient = { signal: new AbortController().signal };
  before(async () => {
    house = await openStorehouse();
  });
  beforeEach(() => {
    counter = openCounter(house.database);
  });
  after(() => house.close());

  async function offered(units: number): Promise<string> {
    const listingId = newId();
    await house.database.transaction((tx) => setUnits(tx, [{ listingId, units }], { sellerId: newId(), mayCreate: true }));
    return listingId;
  }
  const take = (listingId: string, units: number) =>
    house.database.transaction((tx) => moveUnits(tx, "reserve", { listingId, units }));
  const enter = (...lines: [listingId: string, units: number][]) =>
    counter.enter(
      lines.map(([listingId, units]) => ({ listingId, units })),
      patient,
    );
  const entered = async (...lines: [string, number][]) => {
    const place = await enter(...lines);
    assert.ok("leave" in place, "the buyer is let in");
    return place as Place;
  };

  it("lets in as many as there are units, and the others when one has ended", async () => {
    const a = await offered(3);
    const first = await entered([a, 2]);
    const second = await entered([a, 1]);
    const outcomes: string[] = [];
    const waiting = enter([a, 1]).then((place) => outcomes.push("leave" in place ? "let in" : "lacking"));
    await sleep(20);
    assert.deepEqual(outcomes, []);
    second.leave();
    await waiting;
    assert.deepEqual(outcomes, ["let in"]);
    first.leave();
  });

  it("tells who waited what is lacking once the units are taken", async () => {
    const a = await offered(1);
    const first = await entered([a, 1]);
    const waiting = Promise.all([enter([a, 1]), enter([a, 1])]);
    assert.ok(await take(a, 1));
    first.leave();
    const lack: Lack = { line: { listingId: a, units: 1 }, availableUnits: 0 };
    assert.deepEqual(await waiting, [lack, lack]);
  });

  it("tells at once what is lacking, also while others take what is there", async () => {
    const a = await offered(1);
    const first = await entered([a, 1]);
    assert.deepEqual(await enter([a, 2]), { line: { listingId: a, units: 2 }, availableUnits: 1 });
    const nowhere = newId();
    assert.deepEqual(await enter([a, 1], [nowhere, 1]), { line: { listingId: nowhere, units: 1 }, availableUnits: undefined });
    first.leave();
  });

  it("holds nothing for who waits, so that two who want the same listings never wait for each other", async () => {
    const [a, b] = [await offered(1), await offered(1)];
    const first = await entered([a, 1]);
    const both = entered([a, 1], [b, 1]);
    const second = await entered([b, 1]);
    first.leave();
    second.leave();
    (await both).leave();
  });

  it("lets who waits give up when the call ends", async () => {
    const a = await offered(1);
    const first = await entered([a, 1]);
    const call = new AbortController();
    const waiting = counter.enter([{ listingId: a, units: 1 }], call);
    await sleep(20);
    call.abort();
    await refused(waiting, "DEADLINE_EXCEEDED");
    first.leave();
    (await entered([a, 1])).leave();
  });
});
