import assert from "node:assert/strict";
import type { Report } from "./contender.ts";
import { type Contenders, type Contest, checkTables, openContest, PROCESSES, startContenders } from "./contest.ts";

/** `npm run prove` sets 100. */
const ROUNDS = Number(process.env.SOUK_PROOF_ROUNDS ?? 3);
const BUYERS = 512;
/** How often the naive variant is given the chance to oversell. */
const NAIVE_RACES = 20;

/** Who won, and how often each reason was given to the others. */
function outcomeOf(reports: readonly Report[]): { won: string[]; refused: Record<string, number> } {
  const refused: Record<string, number> = {};
  for (const report of reports) {
    for (const [reason, times] of Object.entries(report.refused)) refused[reason] = (refused[reason] ?? 0) + times;
  }
  return { won: reports.flatMap((report) => report.won), refused };
}

/** All processes race for one unit at the same moment. */
function race(contest: Contest, listingId: string, buyers = BUYERS): Promise<Report[]> {
  return contest.askAll({ kind: "race", listingId, buyers: buyers / PROCESSES });
}

describe(`Buyers in ${PROCESSES} processes`, function () {
  this.timeout(60_000 + ROUNDS * 10_000);
  let contenders: Contenders;
  let contest: Contest;
  before(async () => {
    contenders = await startContenders();
  });
  afterEach(() => contest?.close());
  after(() => contenders?.stop());

  it(`who want one unit, ${BUYERS} at once, have one winner in each of ${ROUNDS} rounds, and the next call on any process gets it when it is released`, async () => {
    contest = await openContest(contenders, "ours");
    const listingId = await contest.offer(1);
    const all: Report[] = [];
    const ask = async (...args: Parameters<Contest["ask"]>) => {
      const report = await contest.ask(...args);
      all.push(report);
      return report;
    };
    for (let round = 0; round < ROUNDS; round++) {
      const reports = await race(contest, listingId);
      all.push(...reports);
      const { won, refused } = outcomeOf(reports);
      assert.equal(won.length, 1);
      assert.deepEqual(refused, { OUT_OF_STOCK: BUYERS - 1 });
      let reservationId = won[0] as string;
      for (let process = 0; process < PROCESSES; process++) {
        const released = await ask((process + round) % PROCESSES, { kind: "end", reservationId, how: "release" });
        assert.deepEqual(released.ended, { [reservationId]: "RELEASED" });
        const next = await ask((process + 2 * round + 1) % PROCESSES, { kind: "race", listingId, buyers: 1 });
        assert.deepEqual([next.won.length, next.refused], [1, {}]);
        reservationId = next.won[0] as string;
      }
      const isLast = round === ROUNDS - 1;
      await ask(round % PROCESSES, { kind: "end", reservationId, how: isLast ? "commit" : "release" });
    }
    const late = await race(contest, listingId);
    assert.deepEqual(outcomeOf(late), { won: [], refused: { OUT_OF_STOCK: BUYERS } });
    await checkTables(contest.database, [...all, ...late]);
  });

  it("who are served by a naive inventory are oversold, and the checker sees it", async () => {
    contest = await openContest(contenders, "naive");
    const alone = await contest.ask(0, { kind: "race", listingId: await contest.offer(1), buyers: 1 });
    await checkTables(contest.database, [alone]);
    const all: Report[] = [alone];
    // Whether two of them read before one has written is chance: one race of several is enough.
    let seen: unknown;
    for (let tried = 0; tried < NAIVE_RACES && seen === undefined; tried++) {
      all.push(...(await race(contest, await contest.offer(1), 64)));
      seen = await checkTables(contest.database, all).then(
        () => undefined,
        (error: unknown) => error,
      );
    }
    assert.ok(seen instanceof assert.AssertionError, String(seen));
  });

  async function shop(baskets: number, atOnce: number): Promise<Report[]> {
    const listingIds = await Promise.all(Array.from({ length: 6 }, () => contest.offer(baskets * 3)));
    const reports = await contest.askAll({ kind: "shop", listingIds, baskets, atOnce });
    // Neither contention nor, after the three seconds that the method's policy gives, DEADLINE_EXCEEDED.
    assert.deepEqual(
      Object.keys(outcomeOf(reports).refused).filter((reason) => reason !== "OUT_OF_STOCK"),
      [],
    );
    await checkTables(contest.database, reports);
    return reports;
  }

  const retriesOf = (reports: readonly Report[]) => reports.reduce((sum, report) => sum + report.retries, 0);

  it("who take several listings in any order never fail and never deadlock, because locks are taken in key order", async () => {
    contest = await openContest(contenders, "ours");
    const reports = await shop(Math.min(6 * ROUNDS, 200), 8);
    assert.equal(retriesOf(reports), 0);
  });

  it("who take several listings deadlock when these are locked in the order of the request, and are tried again within the deadline until all come through", async () => {
    contest = await openContest(contenders, "unordered");
    const reports = await shop(20, 3);
    assert.ok(retriesOf(reports) > 0);
  });
});
