import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { runOpenLoop } from "../../tools/load/open-loop.ts";
import { arrivals, expectedArrivals, type Schedule, seededRandom } from "../../tools/load/schedule.ts";

const schedule: Schedule = { shape: "constant", perSecond: 100, rampMs: 0, durationMs: 1000 };
const times = (over: Partial<Schedule>, seed = 1) => [...arrivals({ ...schedule, ...over }, seededRandom(seed))];

describe("Arrivals", () => {
  it("that are constant come evenly, as many as the rate says", () => {
    const all = times({});
    assert.equal(all.length, 100);
    for (const [index, time] of all.entries()) assert.ok(Math.abs(time - (5 + index * 10)) < 1e-6, `${time}`);
    assert.deepEqual(times({ perSecond: 0 }), []);
  });

  it("rise evenly during the ramp: a quarter of its arrivals comes in its first half", () => {
    const ramped = { rampMs: 2000, durationMs: 1000 };
    const all = times(ramped);
    assert.equal(all.length, expectedArrivals({ ...schedule, ...ramped }));
    assert.equal(all.filter((time) => time < 1000).length, 25);
    assert.equal(all.filter((time) => time < 2000).length, 100);
  });

  it("that are independent come as often on the average, at times that only the seed decides", () => {
    const poisson = { shape: "poisson", perSecond: 1000, durationMs: 20_000, rampMs: 1000 } as const;
    const all = times(poisson);
    const expected = expectedArrivals({ ...schedule, ...poisson });
    assert.ok(Math.abs(all.length - expected) < 5 * Math.sqrt(expected), `${all.length} of ${expected}`);
    assert.ok(all.every((time, index) => index === 0 || time >= (all[index - 1] as number)));
    assert.deepEqual(times(poisson), all);
    assert.notDeepEqual(times(poisson, 2), all);
    // Independent: the gaps spread as widely as they are long.
    const gaps = all.slice(1).map((time, index) => time - (all[index] as number));
    const mean = gaps.reduce((sum, gap) => sum + gap, 0) / gaps.length;
    const spread = Math.sqrt(gaps.reduce((sum, gap) => sum + (gap - mean) ** 2, 0) / gaps.length);
    assert.ok(spread > 0.9 * mean && spread < 1.3 * mean, `${spread} ${mean}`);
  });
});

describe("An open loop", () => {
  const never = new AbortController().signal;
  const run = async (begin: (intendedTime: number) => Promise<void>, over: Partial<Parameters<typeof runOpenLoop>[0]> = {}) => {
    await runOpenLoop({
      arrivals: times({}),
      hasRoom: () => true,
      onTurnedAway: () => {},
      startTime: performance.now(),
      signal: never,
      begin: ({ intendedTime }) => begin(intendedTime),
      ...over,
    });
  };

  it("shows a stall in the durations of all that arrive meanwhile, and they arrive all the same", async () => {
    const [stallFrom, stallUntil] = [300, 800];
    const startTime = performance.now();
    const durations: number[] = [];
    await run(
      async (intendedTime) => {
        const at = performance.now() - startTime;
        if (at >= stallFrom && at < stallUntil) await sleep(stallUntil - at);
        durations.push(performance.now() - intendedTime);
      },
      { startTime },
    );
    assert.equal(durations.length, 100);
    // Half of those who met the stall waited for half of it or longer. A closed loop of one would have met it once.
    const long = durations.filter((duration) => duration >= (stallUntil - stallFrom) / 2);
    assert.ok(long.length >= 20, `${long.length} waited`);
  });

  it("counts its own delay as well: what should have begun while the process was busy", async () => {
    const durations: number[] = [];
    let busy = false;
    await run(async (intendedTime) => {
      durations.push(performance.now() - intendedTime);
      if (busy) return;
      busy = true;
      for (const end = performance.now() + 400; performance.now() < end; );
    });
    assert.equal(durations.length, 100);
    assert.ok(durations.filter((duration) => duration >= 200).length >= 15, `${durations}`);
  });

  it("turns away those who find too many under way, and never more", async () => {
    let [underWay, most, turnedAway, begun] = [0, 0, 0, 0];
    await run(
      async () => {
        begun++;
        most = Math.max(most, ++underWay);
        await sleep(200);
        underWay--;
      },
      {
        hasRoom: () => underWay < 3,
        onTurnedAway() {
          turnedAway++;
        },
      },
    );
    assert.equal(most, 3);
    assert.equal(begun + turnedAway, 100);
    assert.ok(turnedAway > 50);
  });

  it("begins nothing more when it is told to end, and waits for what is under way", async () => {
    const ending = new AbortController();
    let [begun, ended] = [0, 0];
    await run(
      async () => {
        if (++begun === 5) ending.abort();
        await sleep(100);
        ended++;
      },
      { signal: ending.signal },
    );
    assert.deepEqual([begun, ended], [5, 5]);
  });

  it("ends with the error of a mistake", async () => {
    let begun = 0;
    const mistaken = run(async () => {
      if (++begun === 3) throw new Error("a mistake");
    });
    await assert.rejects(mistaken, /a mistake/);
    assert.ok(begun < 100);
  });
});
