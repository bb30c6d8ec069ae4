import assert from "node:assert/strict";
import { Code } from "@connectrpc/connect";
import type { Event } from "#gen/marketplace/event/v1/event_pb.ts";
import { StockChangedSchema } from "#gen/marketplace/inventory/v1/events_pb.ts";
import type { ManualClock } from "#runtime/clock.ts";
import type { Database, TablesOf } from "#runtime/database/database.ts";
import { discardDeadLetter, listDeadLetters, retryDeadLetter } from "#runtime/database/dead-letters.ts";
import type { Transaction } from "#runtime/database/transaction.ts";
import { DEADLINE_EXCEEDED, fail, failure, reason, reasonOf, UNAVAILABLE } from "#runtime/errors.ts";
import { type Bus, inProcessBus, type Subscription } from "#runtime/events/bus.ts";
import { inboxConsumer, on } from "#runtime/events/inbox.ts";
import { startRelay } from "#runtime/events/relay.ts";
import { type Jobs, startJobs } from "#runtime/jobs/jobs.ts";
import { memoryDatabase, quietLog } from "../support/database.ts";
import { Pot, pot, potMigrations } from "./pots.ts";

const POISONED = reason("POISONED", Code.Internal, "The test cannot apply this.");
type Tables = TablesOf<readonly [typeof Pot]>;

/** Tells that a stock changed; the reservation's id says which change. */
function changed(tx: Transaction<Tables>, aggregateId: string, what: string) {
  tx.append({
    aggregateType: "stock",
    aggregateId,
    schema: StockChangedSchema,
    message: { stock: { listingId: aggregateId }, reservationId: what },
  });
}

const append = (database: Database<Tables>, aggregateId: string, ...what: string[]) =>
  database.transaction(async (tx) => {
    for (const each of what) {
      changed(tx, aggregateId, each);
    }
  });

const unpublished = async (database: Database<Tables>) =>
  (await database.sql.selectFrom("outbox").select("position").where("publish_time", "is", null).execute()).length;

describe("the outbox", () => {
  let database: Database<Tables>;

  beforeEach(async () => {
    ({ database } = await memoryDatabase([Pot], potMigrations, { service: "source" }));
  });
  afterEach(() => database.close());

  it("numbers the events of each aggregate from one without a gap, whatever rolls back", async () => {
    await append(database, "a", "1", "2");
    await database
      .transaction(async (tx) => {
        changed(tx, "a", "never");
        throw new Error("no");
      })
      .catch(() => {});
    await append(database, "b", "1");
    await Promise.all(["3", "4", "5", "6"].map((what) => append(database, "a", what)));
    const rows = await database.sql.selectFrom("outbox").select(["aggregate_id", "sequence"]).orderBy("position").execute();
    const sequences = (id: string) => rows.filter((row) => row.aggregate_id === id).map((row) => row.sequence);
    assert.deepEqual(sequences("a"), [1, 2, 3, 4, 5, 6]);
    assert.deepEqual(sequences("b"), [1]);
  });

  it("is published in order, at once after the commit, and marked", async () => {
    const got: Event[] = [];
    const bus = inProcessBus({ log: quietLog });
    bus.subscribe(subscription(async (events) => void got.push(...events)));
    const relay = startRelay({ database, bus, pollMs: 60_000, batchSize: 3 });
    await append(database, "a", "1", "2", "3", "4");
    await append(database, "b", "1");
    await relay.drain();
    assert.deepEqual(got.map(nameOf), ["a1", "a2", "a3", "a4", "b1"]);
    assert.equal(await unpublished(database), 0);
    assert.equal(got[0]?.source, "source");
    await relay.stop();
  });

  it("wakes the relay by itself", async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const bus = inProcessBus({ log: quietLog });
    bus.subscribe(subscription(async () => resolve()));
    const relay = startRelay({ database, bus, pollMs: 60_000 });
    await relay.drain();
    await append(database, "a", "1");
    await promise;
    await relay.stop();
  });

  it("is published again after a crash between publishing and marking", async () => {
    const got: string[] = [];
    const deaf: Bus = {
      publish: async (events) => {
        got.push(...events.map(nameOf));
        throw new Error("the process dies here");
      },
      subscribe: () => {},
      close: async () => {},
    };
    await append(database, "a", "1");
    const first = startRelay({ database, bus: deaf });
    await assert.rejects(first.drain(), /dies here/);
    await first.stop();
    assert.ok(got.length > 0);
    got.length = 0;
    const bus = inProcessBus({ log: quietLog });
    bus.subscribe(subscription(async (events) => void got.push(...events.map(nameOf))));
    const second = startRelay({ database, bus });
    await second.drain();
    assert.deepEqual(got, ["a1"]);
    await second.stop();
  });

  it("is served by one relay at a time, and by the next when the first is gone", async () => {
    const { database: db, clock } = await memoryDatabase([Pot], potMigrations);
    const { bus, got } = collectingBus();
    const { promise: never, resolve: giveUp } = Promise.withResolvers<void>();
    const stuck = startRelay({ database: db, bus: { ...bus, publish: () => never } });
    await append(db, "a", "1");
    while ((await db.sql.selectFrom("lease").select("name").execute()).length === 0) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    const second = startRelay({ database: db, bus });
    await second.drain();
    assert.deepEqual(got, []);
    clock.advance(15_001);
    await second.drain();
    assert.deepEqual(got, ["a1"]);
    await second.stop();
    giveUp();
    await stuck.stop();
    await db.close();
  });

  function subscription(handle: Subscription["handle"]): Subscription {
    return { consumer: "test.all", service: "test", types: [StockChangedSchema.typeName], handle };
  }

  function collectingBus() {
    const got: string[] = [];
    const bus = inProcessBus({ log: quietLog });
    bus.subscribe(subscription(async (events) => void got.push(...events.map(nameOf))));
    return { bus, got };
  }
});

describe("the in-process bus", () => {
  it("offers events again, in order, when a consumer cannot take them", async () => {
    const bus = inProcessBus({ log: quietLog });
    let tries = 0;
    bus.subscribe({
      consumer: "test.flaky",
      service: "test",
      types: [StockChangedSchema.typeName],
      handle: async () => {
        if (++tries < 2) {
          throw new Error("not now");
        }
      },
    });
    const { database } = await memoryDatabase([Pot], potMigrations);
    const relay = startRelay({ database, bus });
    await append(database, "a", "1");
    await relay.drain();
    assert.equal(tries, 2);
    await relay.stop();
    await database.close();
  });

  it("confirms nothing that a consumer had not taken when it closed", async () => {
    const bus = inProcessBus({ log: quietLog });
    const { promise: began, resolve } = Promise.withResolvers<void>();
    bus.subscribe({
      consumer: "test.down",
      service: "test",
      types: [StockChangedSchema.typeName],
      handle: async () => {
        resolve();
        throw new Error("not now");
      },
    });
    const { database } = await memoryDatabase([Pot], potMigrations);
    const relay = startRelay({ database, bus });
    await append(database, "a", "1");
    await began;
    await bus.close();
    await assert.rejects(relay.drain(), /closed/);
    assert.equal(await unpublished(database), 1);
    await relay.stop();
    await database.close();
  });

  it("refuses two consumers of one name", () => {
    const bus = inProcessBus({ log: quietLog });
    const twin = { consumer: "test.twin", service: "test", types: [], handle: async () => {} };
    bus.subscribe(twin);
    assert.throws(() => bus.subscribe(twin), /two consumers/);
  });
});

describe("the inbox", () => {
  let source: Database<Tables>;
  let sink: Database<Tables>;
  let clock: ManualClock;
  let consumer: Subscription;
  let jobs: Jobs;
  let poison: Set<string>;
  let transactions: Set<Transaction<Tables>>;

  beforeEach(async () => {
    poison = new Set();
    transactions = new Set();
    ({ database: source } = await memoryDatabase([Pot], potMigrations, { service: "source" }));
    ({ database: sink, clock } = await memoryDatabase([Pot], potMigrations, { service: "sink" }));
    consumer = inboxConsumer({
      database: sink,
      name: "sink.pots",
      maxAttempts: 3,
      on: [
        on(StockChangedSchema, async (tx: Transaction<Tables>, message, event) => {
          transactions.add(tx);
          // Through an entity, so that the failure of one event may show only when its entities are flushed.
          tx.em.create(Pot, {
            potId: nameOf(event),
            title: "",
            balanceMinor: 0n,
            createTime: event.sequence === 0n ? 0 : tx.now,
            note: null,
          });
          if (poison.has(message.reservationId)) {
            fail(POISONED);
          }
        }),
      ],
    });
    jobs = startJobs({ database: sink, handlers: [], consumers: [consumer], pollMs: 60_000 });
  });
  afterEach(async () => {
    await jobs.stop();
    await Promise.all([source.close(), sink.close()]);
  });

  async function eventsOf(...lists: [string, ...string[]][]): Promise<Event[]> {
    const got: Event[] = [];
    const bus = inProcessBus({ log: quietLog });
    bus.subscribe({
      consumer: "test.tap",
      service: "test",
      types: consumer.types,
      handle: async (events) => void got.push(...events),
    });
    const relay = startRelay({ database: source, bus });
    for (const [aggregateId, ...what] of lists) {
      await append(source, aggregateId, ...what);
    }
    await relay.drain();
    await relay.stop();
    return got;
  }
  const applied = async () =>
    (await sink.sql.selectFrom("pot").select("pot_id").orderBy("create_time").orderBy("pot_id").execute()).map((row) => row.pot_id);

  it("applies each event once, however often it comes", async () => {
    const events = await eventsOf(["a", "1", "2"], ["b", "1"]);
    await consumer.handle(events);
    await consumer.handle([...events, ...events]);
    assert.deepEqual(await applied(), ["a1", "a2", "b1"]);
  });

  it("applies a batch in one transaction", async () => {
    await consumer.handle(await eventsOf(["a", "1", "2"], ["b", "1"]));
    assert.equal(transactions.size, 1);
  });

  it("applies nothing twice when two processes take the same events at once", async () => {
    const events = await eventsOf(["a", "1", "2"]);
    await Promise.all([consumer.handle(events), consumer.handle(events)]);
    assert.deepEqual(await applied(), ["a1", "a2"]);
  });

  it("holds later events of a failed event's aggregate and lets other aggregates go on", async () => {
    poison.add("2");
    await consumer.handle(await eventsOf(["a", "1", "2", "3"], ["b", "1"]));
    await consumer.handle(await eventsOf(["a", "4"]));
    assert.deepEqual(await applied(), ["a1", "b1"]);
  });

  it("tries a failed event again after a pause, then goes on in order", async () => {
    poison.add("2");
    await consumer.handle(await eventsOf(["a", "1", "2", "3"]));
    poison.clear();
    await jobs.runDue();
    assert.deepEqual(await applied(), ["a1"]);
    clock.advance(1_000);
    await jobs.runDue();
    assert.deepEqual(await applied(), ["a1", "a2", "a3"]);
    await consumer.handle(await eventsOf(["a", "4"]));
    assert.deepEqual(await applied(), ["a1", "a2", "a3", "a4"]);
  });

  async function untilDead(): Promise<string> {
    for (let attempt = 0; attempt < 3; attempt++) {
      clock.advance(60_000);
      await jobs.runDue();
    }
    const [letter, ...more] = await listDeadLetters(sink.sql, { limit: 10 });
    assert.ok(letter);
    assert.equal(more.length, 0);
    assert.equal(letter.kind, "event");
    assert.equal(letter.handler, "sink.pots");
    assert.equal(letter.subject, "stock/a");
    assert.equal(letter.attempts, 3);
    assert.equal(letter.reason, "POISONED");
    assert.equal(letter.eventType, StockChangedSchema.typeName);
    assert.ok(letter.firstAttemptTime < letter.lastAttemptTime);
    return letter.deadLetterId;
  }

  it("asks a person after the attempts, and goes on with what waits once the person retries it", async () => {
    poison.add("2");
    await consumer.handle(await eventsOf(["a", "1", "2", "3"]));
    const id = await untilDead();
    poison.clear();
    await sink.transaction((tx) => retryDeadLetter(tx, id, "operator"));
    await jobs.runDue();
    assert.deepEqual(await applied(), ["a1", "a2", "a3"]);
    assert.deepEqual(await listDeadLetters(sink.sql, { limit: 10 }), []);
  });

  it("leaves an event that waits for a person alone, and what is behind it", async () => {
    poison.add("2");
    await consumer.handle(await eventsOf(["a", "1", "2", "3"]));
    await untilDead();
    poison.clear();
    await consumer.resume?.("stock/a");
    await consumer.handle(await eventsOf(["a", "4"]));
    await jobs.runDue();
    assert.deepEqual(await applied(), ["a1"]);
  });

  it("shows the effect of one event of a batch to the next, whether by entity or by Kysely", async () => {
    const seen: number[] = [];
    const counting = inboxConsumer({
      database: sink,
      name: "sink.counting",
      on: [
        on(StockChangedSchema, async (tx: Transaction<Tables>, _, event) => {
          seen.push((await tx.sql.selectFrom("pot").select("pot_id").execute()).length);
          tx.em.create(Pot, { potId: nameOf(event), title: "", balanceMinor: 0n, createTime: tx.now, note: null });
        }),
      ],
    });
    await counting.handle(await eventsOf(["a", "1", "2"], ["b", "1"]));
    assert.deepEqual(seen, [0, 1, 2]);
  });

  it("takes the events of a batch one by one when all of them together take too long", async () => {
    const seen = new Map<Transaction<Tables>, number>();
    const slow = inboxConsumer({
      database: sink,
      name: "sink.slow",
      on: [
        on(StockChangedSchema, async (tx: Transaction<Tables>, _, event) => {
          seen.set(tx, (seen.get(tx) ?? 0) + 1);
          if (seen.get(tx) === 3) {
            fail(DEADLINE_EXCEEDED);
          }
          tx.em.create(Pot, { potId: nameOf(event), title: "", balanceMinor: 0n, createTime: tx.now, note: null });
        }),
      ],
    });
    await slow.handle(await eventsOf(["a", "1", "2", "3"]));
    assert.deepEqual(await applied(), ["a1", "a2", "a3"]);
  });

  it("blames no event for a server that was out of reach meanwhile", async () => {
    let lost = 0;
    const flaky = Object.assign(Object.create(sink) as Database<Tables>, {
      transaction: (...given: Parameters<Database<Tables>["transaction"]>) =>
        lost-- > 0 ? Promise.reject(failure(UNAVAILABLE)) : sink.transaction(...given),
    });
    const away = inboxConsumer({
      database: flaky,
      name: "sink.away",
      on: [
        on(StockChangedSchema, async (tx: Transaction<Tables>, _, event) => {
          tx.em.create(Pot, { potId: nameOf(event), title: "", balanceMinor: 0n, createTime: tx.now, note: null });
        }),
      ],
    });
    const events = await eventsOf(["a", "1", "2"]);
    lost = 2;
    await assert.rejects(away.handle(events), (error) => reasonOf(error) === "UNAVAILABLE");
    await away.handle(events);
    assert.deepEqual(await applied(), ["a1", "a2"]);
  });

  it("goes on without an event that a person discards", async () => {
    poison.add("2");
    await consumer.handle(await eventsOf(["a", "1", "2", "3"]));
    const id = await untilDead();
    await sink.transaction((tx) => discardDeadLetter(tx, id, "operator", "it was a test"));
    await jobs.runDue();
    assert.deepEqual(await applied(), ["a1", "a3"]);
    const again = sink.transaction((tx) => discardDeadLetter(tx, id, "operator", "twice"));
    await assert.rejects(again, (error) => reasonOf(error) === "DEAD_LETTER_NOT_FOUND");
  });

  it("takes a failure that shows only at the flush for the failure of that event", async () => {
    const events = await eventsOf(["a", "1", "2"], ["b", "1"]);
    await sink.transaction((tx) => tx.sql.insertInto("pot").values(pot("a1")).execute());
    await consumer.handle(events);
    assert.deepEqual((await applied()).toSorted(), ["a1", "b1"]);
  });
});

function nameOf(event: Event): string {
  return `${event.aggregateId}${event.sequence}`;
}
