import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import type { Event } from "#gen/marketplace/event/v1/event_pb.ts";
import { StockChangedSchema } from "#gen/marketplace/inventory/v1/events_pb.ts";
import type { Database, TablesOf } from "#runtime/database/database.ts";
import { statements } from "#runtime/database/statements.ts";
import type { Bus } from "#runtime/events/bus.ts";
import { redisBus } from "#runtime/events/redis-bus.ts";
import { startRelay } from "#runtime/events/relay.ts";
import { Gaps } from "#runtime/events/relay-gaps.ts";
import { newId } from "#runtime/ids.ts";
import { memoryDatabase, quietLog } from "../support/database.ts";
import { testStores } from "../support/stores.ts";
import { Pot, potMigrations } from "./pots.ts";

const at = (...positions: number[]) => positions.map((position) => ({ position }));
const ends = (gaps: Gaps, now: number) => gaps.open(now).map(({ from, to }) => [from, to]);

describe("positions that were passed over", () => {
  it("are looked for until they have a row, or two seconds are over", () => {
    const gaps = new Gaps();
    gaps.note(10, at(11, 15, 16, 20), 0);
    assert.deepEqual(ends(gaps, 0), [
      [12, 14],
      [17, 19],
    ]);
    gaps.filled(at(13, 17, 18, 19));
    assert.deepEqual(ends(gaps, 0), [
      [12, 12],
      [14, 14],
    ]);
    gaps.note(20, at(22), 1_000);
    assert.deepEqual(ends(gaps, 2_500), [[21, 21]]);
  });

  it("are asked for by few ranges, however many there are, and the newest where they are too many", () => {
    const gaps = new Gaps();
    const rows = Array.from({ length: 1_000 }, (_, index) => ({ position: 2 * index + 2 }));
    gaps.note(0, rows, 0);
    const asked = gaps.open(0);
    assert.ok(asked.length <= 64);
    assert.ok(rows.every(({ position }) => asked.some(({ from, to }) => from <= position - 1 && position - 1 <= to)));
    gaps.filled(rows);
    assert.equal(ends(gaps, 0).length, 1_000);
    gaps.note(2_000, at(1_000_000), 0);
    assert.deepEqual(ends(gaps, 0), [[998_000, 999_999]]);
  });
});

describe("a relay beside transactions that commit late", () => {
  let source: Database<TablesOf<readonly [typeof Pot]>>;
  let bus: Bus;
  let got: Event[];
  let stop: () => Promise<void>;
  const has = (aggregateId: string) => got.some((event) => event.aggregateId === aggregateId);
  const sequences = (aggregateId: string) =>
    got.filter((event) => event.aggregateId === aggregateId).map(({ sequence }) => Number(sequence));

  beforeEach(async () => {
    ({ database: source } = await memoryDatabase([Pot], potMigrations, { service: "source" }));
    const { redisUrl: url } = await testStores();
    // One consumer is never there, so that all rows stay under way.
    bus = redisBus({ url, log: quietLog, prefix: `{test-${newId()}}`, consumers: ["test.here", "test.away"] });
    got = [];
    const types = [StockChangedSchema.typeName];
    bus.subscribe({ consumer: "test.here", service: "test", types, handle: async (events) => void got.push(...events) });
    stop = async () => {};
  });
  afterEach(async () => {
    await stop();
    await bus.close();
    await source.close();
  });

  const tell = (...aggregateIds: string[]) =>
    source.transaction(async (tx) => {
      for (const aggregateId of aggregateIds) {
        tx.append({
          aggregateType: "stock",
          aggregateId,
          schema: StockChangedSchema,
          message: { stock: { listingId: aggregateId } },
        });
      }
    });
  /** Tells, and takes it back: gives what commits it, late. */
  const toldLate = async (...aggregateIds: string[]) => {
    await tell(...aggregateIds);
    const rows = await source.sql.selectFrom("outbox").selectAll().where("aggregate_id", "in", aggregateIds).execute();
    await source.sql.deleteFrom("outbox").where("aggregate_id", "in", aggregateIds).execute();
    return () => source.sql.insertInto("outbox").values(rows).execute();
  };
  const start = () => {
    const relay = startRelay({ database: source, bus, pollMs: 60_000 });
    stop = () => relay.stop();
  };
  async function until(condition: () => boolean): Promise<void> {
    for (const end = Date.now() + 15_000; !condition(); await sleep(5)) assert.ok(Date.now() < end, "waited for 15 s");
  }

  /** Of each of these two events came, the first one first. */
  async function bothInOrder(...aggregateIds: string[]): Promise<void> {
    await until(() => aggregateIds.every((id) => sequences(id).length === 2));
    for (const id of aggregateIds) assert.deepEqual(sequences(id), [1, 2], id);
  }

  it("sends 250 events of one of them before what follows in the same aggregates", async () => {
    const many = Array.from({ length: 250 }, (_, index) => `many-${index}`);
    await tell("first");
    const commit = await toldLate(...many);
    start();
    await until(() => has("first"));
    await tell("above");
    await until(() => has("above"));
    await commit();
    await tell("many-0", "many-249");
    await bothInOrder("many-0", "many-249");
    assert.equal(got.length, 254);
  });

  it("does so with what the very first look passed over, below all rows too", async () => {
    const lowest = await toldLate("lowest");
    await tell("first");
    const between = await toldLate("between");
    await tell("above");
    start();
    await until(() => has("above"));
    await lowest();
    await between();
    await tell("lowest", "between");
    await bothInOrder("lowest", "between");
  });

  it("rests while as much is under way as may be", async function () {
    this.timeout(60_000);
    for (let told = 0; told < 101_000; told += 1_000)
      await tell(...Array.from({ length: 1_000 }, (_, index) => `many-${index % 100}`));
    start();
    for (const end = Date.now() + 40_000; got.length < 100_000; await sleep(20)) assert.ok(Date.now() < end, "waited for 40 s");
    await sleep(200);
    let sent = 0;
    const count = () => void sent++;
    statements.subscribe(count);
    await sleep(500);
    statements.unsubscribe(count);
    assert.ok(sent < 20, `${sent} statements`);
  });

  it("sends nothing again that was published before, between rows that were not", async () => {
    for (let index = 0; index < 700; index += 100) {
      await tell(...Array.from({ length: 100 }, (_, offset) => `aggregate-${(index + offset) % 35}`));
    }
    const rows = await source.sql.selectFrom("outbox").select(["position", "event_id"]).orderBy("position").execute();
    const published = rows.filter((_, index) => index >= 500 && index % 2 === 0);
    const positions = published.map(({ position }) => position);
    await source.sql.updateTable("outbox").set({ publish_time: 1 }).where("position", "in", positions).execute();
    start();
    await until(() => got.length >= 600);
    await tell("last");
    await until(() => has("last"));
    await sleep(50);
    const ids = new Set(published.map(({ event_id }) => event_id));
    assert.equal(got.filter((event) => ids.has(event.eventId)).length, 0);
    assert.equal(got.length, 601);
  });
});
