import assert from "node:assert/strict";
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { fromBinary } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { EventSchema } from "#gen/marketplace/event/v1/event_pb.ts";
import { StockChangedSchema } from "#gen/marketplace/inventory/v1/events_pb.ts";
import { systemClock } from "#runtime/clock.ts";
import { openDatabase } from "#runtime/database/database.ts";
import { newId } from "#runtime/ids.ts";
import { checkStock } from "../../../services/inventory/check.ts";
import { entities, type InventoryDatabase } from "../../../services/inventory/entities.ts";
import { migrations } from "../../../services/inventory/migrations/index.ts";
import { setUnits } from "../../../services/inventory/stock.ts";
import { quietLog } from "../../support/database.ts";
import { emptyDatabase } from "../../support/mariadb.ts";
import { audit, type Fate, type Told } from "../audit.ts";
import type { Ask, Place, Report } from "./contender.ts";
import type { Variant } from "./variants.ts";

/** Processes that contend. */
export const PROCESSES = 4;

/** Processes that wait to be asked. */
export interface Contenders {
  readonly children: readonly ChildProcess[];
  stop(): Promise<void>;
}

/** Starts them; resolves when all are ready. */
export async function startContenders(): Promise<Contenders> {
  const execArgv = ["--disable-warning=ExperimentalWarning"];
  const children = Array.from({ length: PROCESSES }, () => fork(new URL("contender.ts", import.meta.url), { execArgv }));
  const stop = async () => {
    await Promise.all(children.map(end));
  };
  try {
    await Promise.all(children.map(answerOf));
  } catch (error) {
    await stop();
    throw error;
  }
  return { children, stop };
}

/** One inventory on one database, run by all contenders, and a look at its tables. */
export interface Contest {
  readonly database: InventoryDatabase;
  /** Offers so many units of a new listing; gives its id. */
  offer(units: number): Promise<string>;
  /** Asks one process. */
  ask(index: number, what: Ask): Promise<Report>;
  /** Asks all at the same moment. */
  askAll(what: Ask): Promise<Report[]>;
  close(): Promise<void>;
}

/** Opens one on an empty database of its own. */
export async function openContest({ children }: Contenders, variant: Variant): Promise<Contest> {
  const { url, remove } = await emptyDatabase("inventory");
  const options = { service: "inventory", url, entities, migrations, clock: systemClock, log: quietLog };
  const database = await openDatabase(options);
  const ask: Contest["ask"] = async (index, what) => {
    const child = children[index] as ChildProcess;
    const answer = answerOf(child);
    child.send([{ variant, url } satisfies Place, what]);
    return (await answer) as Report;
  };
  const askAll: Contest["askAll"] = (what) => Promise.all(children.map((_, index) => ask(index, what)));
  return {
    database,
    async offer(units) {
      const listingId = newId();
      await database.transaction((tx) => setUnits(tx, [{ listingId, units }], { sellerId: newId(), mayCreate: true }));
      return listingId;
    },
    ask,
    askAll,
    async close() {
      await askAll({ kind: "close" });
      await database.close();
      await remove();
    },
  };
}

/** The next message of a process, which may also end instead. */
async function answerOf(child: ChildProcess): Promise<unknown> {
  const over = new AbortController();
  try {
    const options = { signal: over.signal };
    const [answer] = await Promise.race([
      once(child, "message", options),
      once(child, "exit", options).then(([code]) => Promise.reject(new Error(`a contender ended with ${code}`))),
    ]);
    return answer;
  } finally {
    over.abort();
  }
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exit = once(child, "exit");
  if (child.connected) child.disconnect();
  else child.kill("SIGKILL");
  await exit;
}

/**
 * The checker: reads all tables once the contenders are still, and knows of the calls only what their callers were told. No counter is negative and none
 * lost a unit; each reservation moved its units once and ended once; what is told of a listing has no gap; who was refused left nothing.
 */
export async function checkTables(database: InventoryDatabase, reports: readonly Report[]): Promise<void> {
  const { findings } = await checkStock(database.sql, AbortSignal.timeout(60_000));
  assert.deepEqual(findings, []);
  const stocks = await database.sql.selectFrom("stock").selectAll().execute();
  for (const stock of stocks) {
    const counters = [stock.available_units, stock.reserved_units, stock.sold_units];
    assert.ok(Math.min(...counters) >= 0, "no counter is negative");
    assert.equal(
      counters.reduce((sum, units) => sum + units),
      stock.offered_units,
    );
  }
  audit(await toldOf(database), await fatesOf(database, reports));
  await checkAnswers(database, reports);
}

/** What was told of each listing, without a gap, up to the number that the listing's stock has. */
async function toldOf(database: InventoryDatabase): Promise<Map<string, Told[]>> {
  const rows = await database.sql
    .selectFrom("outbox")
    .select(["aggregate_id", "sequence", "event"])
    .orderBy("aggregate_id")
    .orderBy("sequence")
    .execute();
  const told = new Map<string, Told[]>();
  for (const { aggregate_id: listingId, sequence, event } of rows) {
    const changes = told.get(listingId) ?? [];
    assert.equal(sequence, changes.length + 1, "events of a listing are numbered without gaps");
    const { payload } = fromBinary(EventSchema, event);
    const change = payload && anyUnpack(payload, StockChangedSchema);
    const { availableUnits = -1, reservedUnits = -1, soldUnits = -1 } = change?.stock ?? {};
    changes.push({
      available: availableUnits,
      reserved: reservedUnits,
      sold: soldUnits,
      reservationId: change?.reservationId ?? "",
    });
    told.set(listingId, changes);
  }
  const counted = await database.sql.selectFrom("sequence").select(["aggregate_id", "value"]).execute();
  const counts = new Map(counted.map((row) => [row.aggregate_id, row.value]));
  const numbers = await database.sql.selectFrom("stock").select(["listing_id", "event_sequence"]).execute();
  assert.deepEqual(
    new Map(numbers.map((row) => [row.listing_id, row.event_sequence ?? counts.get(row.listing_id)])),
    new Map([...told].map(([id, changes]) => [id, changes.length])),
  );
  return told;
}

async function fatesOf(database: InventoryDatabase, reports: readonly Report[]): Promise<Map<string, Fate>> {
  const answered = new Map(reports.flatMap((report) => Object.entries(report.ended)));
  const reservations = await database.sql.selectFrom("reservation").selectAll().execute();
  const lines = await database.sql.selectFrom("reservation_line").selectAll().execute();
  const fates = new Map<string, Fate & { units: Map<string, number> }>();
  for (const { reservation_id: id, state } of reservations) {
    const end = answered.get(id);
    fates.set(id, { units: new Map(), state, answered: end === undefined ? [] : [end] });
  }
  for (const line of lines) fates.get(line.reservation_id)?.units.set(line.listing_id, line.units);
  return fates;
}

/** Who was told that he has a reservation has one, nobody else has, and a call that was refused left no answer behind. */
async function checkAnswers(database: InventoryDatabase, reports: readonly Report[]): Promise<void> {
  const won = reports.flatMap((report) => report.won);
  const rows = await database.sql.selectFrom("reservation").select("reservation_id").execute();
  assert.deepEqual(rows.map((row) => row.reservation_id).sort(), [...won].sort());
  const answers = await database.sql.selectFrom("replay").select("state").execute();
  const ended = reports.reduce((sum, report) => sum + Object.keys(report.ended).length, 0);
  assert.equal(answers.length, won.length + ended);
  assert.ok(answers.every((answer) => answer.state === "answered"));
}
