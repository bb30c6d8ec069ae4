import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { OpsService } from "#gen/marketplace/ops/v1/ops_pb.ts";
import { newId } from "#runtime/ids.ts";
import { motionStates } from "../../services/order/states.ts";
import { type Fleet, startFleet } from "../support/processes.ts";
import { chanceOf } from "./chance.ts";
import { Ledger } from "./ledger.ts";
import { checkCache, checkIndex, checkRatings, checkUnits } from "./rebuilt.ts";
import { checkAcknowledged, checkEnds, checkEvents } from "./reckoning.ts";
import { type AllTables, eachOf, openTables } from "./tables.ts";
import { TAMPERINGS } from "./tampering.ts";
import { type Market, openMarket, Trader } from "./traders.ts";
import { type MortalStores, Reaper, startMortalStores, tail } from "./victims.ts";

/** `npm run prove` sets 100. */
const ROUNDS = Number(process.env.SOUK_PROOF_ROUNDS ?? 4);
const SEED = Number(process.env.SOUK_PROOF_SEED ?? Math.floor(Math.random() * 2 ** 31));
const IS_LONG = ROUNDS > 4;
const TRADERS = 16;
/** Between one recovery and the next kill. */
const PAUSE_MS = IS_LONG ? { least: 300, most: 3_000 } : { least: 200, most: 800 };
/** More than any lease, and than the longest pause of a job: so much ahead is the clock of those who finish what the dead left. */
const AHEAD_MS = 120_000;
const FINDINGS_SHOWN = 30;
/** Until all is done. */
const SETTLE_MS = 120_000;
/** How long a cache may show what every word of was lost, and some to spare. */
const CACHE_MS = 75_000;

const PROCESSES = [
  ["catalog", "account", "ops", "search"],
  ["catalog", "inventory", "order", "payment"],
  ["inventory", "order", "payment", "search"],
];
const running = (service: string) => PROCESSES.flatMap((services, index) => (services.includes(service) ? [index] : []));

describe("A marketplace of several processes on MariaDB and Redis, any of which is killed in the middle of purchases", function () {
  this.timeout(240_000 + ROUNDS * 15_000);
  const chance = chanceOf(SEED);
  let stores: MortalStores;
  let fleet: Fleet;
  let aheadMs = 0;
  let market: Market;
  let reaper: Reaper | undefined;
  let tables: (AllTables & { close(): Promise<void> }) | undefined;
  before(async () => {
    stores = await startMortalStores();
    fleet = await startFleet({
      processes: PROCESSES,
      mysqlAdminUrl: stores.mysqlAdminUrl,
      redisUrl: stores.redisUrl,
      program: () => (aheadMs === 0 ? [] : ["tests/crash/clock-ahead.ts", String(aheadMs)]),
    });
    market = openMarket(fleet, new Ledger(fleet));
  });
  afterEach(function () {
    if (this.currentTest?.state !== "failed") return;
    const outputs = PROCESSES.map((_, index) => `process ${index}:\n${tail(fleet.output(index))}`);
    say([`SOUK_PROOF_SEED=${SEED}`, `killed: ${reaper?.killed.join(", ")}`, ...outputs].join("\n"));
  });
  after(async () => {
    market?.ledger.close();
    await tables?.close();
    await fleet?.stop();
    await stores?.stop();
  });

  /** Ends the processes in order and starts them where every lease of the dead has run out. */
  async function startAhead(): Promise<void> {
    aheadMs = AHEAD_MS;
    await Promise.all(
      PROCESSES.map(async (_, index) => {
        assert.equal(await fleet.kill(index, "SIGTERM"), 0, tail(fleet.output(index)));
        await fleet.restart(index);
      }),
    );
  }

  it(`keeps what it acknowledged, ends everything once, and every consumer knows what its owner does, after ${ROUNDS} kills`, async () => {
    const traders = Array.from({ length: TRADERS }, (_, index) => new Trader(market, SEED + index));
    await Promise.all(traders.map((trader) => trader.open()));
    const stop = new AbortController();
    const trading = Promise.all(traders.map((trader) => trader.trade(stop.signal)));
    reaper = new Reaper({ fleet, processes: PROCESSES.length, stores, chance });
    for (let round = 1; round <= ROUNDS; round++) {
      await sleep(chance.between(PAUSE_MS.least, PAUSE_MS.most));
      await reaper.strike();
      if (IS_LONG && round % 10 === 0) say(`${round} kills, ${market.ledger.acknowledged.length} commands answered`);
    }
    stop.abort();
    await startAhead();
    await trading;
    tables = await openTables(fleet);
    await settle(tables);
    const summary = `${reaper.killed.length} killed; ${market.ledger.acknowledged.length} commands answered, ${market.ledger.repeats} times sent again`;
    if (IS_LONG) say(summary);

    const findings = [...(await reckoned(tables)), ...(await rebuilt(tables, Date.now() + CACHE_MS))];
    assert.deepEqual(findings.slice(0, FINDINGS_SHOWN), [], `${findings.length} findings`);
    assert.ok(market.orders.size > ROUNDS, `only ${market.orders.size} orders were placed`);
  });

  it("is judged by a reckoning that notices whatever is amiss", async () => {
    assert.ok(tables !== undefined, "nothing was reckoned");
    // By what is found and not by how much: the marketplace goes on working, and its jobs end some of what was tampered with.
    const known = new Set<string>();
    for (const [what, tamper] of Object.entries(TAMPERINGS)) {
      await tamper(tables);
      const found: string[] = [...(await reckoned(tables)), ...(await rebuilt(tables))];
      assert.ok(
        found.some((each) => !known.has(each)),
        `nobody notices ${what}`,
      );
      for (const each of found) known.add(each);
    }
  });

  async function reckoned(all: AllTables): Promise<string[]> {
    const checks = [checkEnds, checkEvents, checkRatings, checkUnits].map((check) => check(all));
    return (await Promise.all([checkAcknowledged(market, all), ...checks, checkBooks()])).flat();
  }

  async function checkBooks(): Promise<string[]> {
    const { checks, balanced } = await fleet.client(OpsService, { account: newId(), operator: true }, "ops").checkBooks({});
    const findings = checks.flatMap((check) => check.findings);
    return balanced || findings.length > 0 ? findings : ["The books are not balanced."];
  }

  /** Indexes and caches, which nobody can ask whether they have heard everything: looked at until they are right, or too late. */
  async function rebuilt(all: AllTables, end = 0): Promise<string[]> {
    for (; ; await sleep(200)) {
      const checks = [
        ...running("search").map((index) => checkIndex(fleet, index, all)),
        ...running("catalog").map((index) => checkCache(fleet, index, all)),
      ];
      const findings = (await Promise.all(checks.map((check) => check.catch((error: unknown) => [String(error)])))).flat();
      if (findings.length === 0 || Date.now() > end) return findings;
    }
  }

  async function settle(all: AllTables): Promise<void> {
    for (const end = Date.now() + SETTLE_MS; ; await sleep(100)) {
      const open = await unfinished(all);
      if (open.length === 0) return;
      if (Date.now() > end) return say(`not settled: ${open.join(", ")}`);
    }
  }
});

/** What is still to be done, and will be done by itself. */
async function unfinished(all: AllTables): Promise<string[]> {
  const moving = await all.order.sql.selectFrom("orders").select("order_id").where("state", "in", motionStates).execute();
  const reserved = await all.inventory.sql
    .selectFrom("reservation")
    .select("reservation_id")
    .where("state", "=", "PENDING")
    .execute();
  const payouts = await all.payment.sql.selectFrom("payout").select("payout_id").where("state", "=", "PENDING").execute();
  const payments = await all.payment.sql.selectFrom("payment").select("payment_id").where("step", "<>", "").execute();
  const counts: [string, number][] = [
    ["orders in motion", moving.length],
    ["reservations", reserved.length],
    ["payouts", payouts.length],
    ["payments", payments.length],
  ];
  for (const { service, sql } of eachOf(all)) {
    const events = await sql.selectFrom("outbox").select("position").where("publish_time", "is", null).execute();
    const letters = await sql.selectFrom("dead_letter").select("handler").where("state", "in", ["retrying", "held"]).execute();
    const commands = await sql.selectFrom("replay").select("request_key").where("state", "=", "pending").execute();
    counts.push([`events of ${service}`, events.length], [`letters of ${service}`, letters.length]);
    counts.push([`commands of ${service}`, commands.length]);
  }
  return counts.filter(([, count]) => count > 0).map(([what, count]) => `${count} ${what}`);
}

function say(sentence: string): void {
  process.stderr.write(`      ${sentence}\n`);
}
