import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, rmSync, statSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Event } from "#gen/marketplace/event/v1/event_pb.ts";
import { StockChangedSchema } from "#gen/marketplace/inventory/v1/events_pb.ts";
import type { Database, TablesOf } from "#runtime/database/database.ts";
import type { Bus, Subscription } from "#runtime/events/bus.ts";
import { inboxConsumer, on } from "#runtime/events/inbox.ts";
import { redisBus } from "#runtime/events/redis-bus.ts";
import { type Relay, startRelay } from "#runtime/events/relay.ts";
import { newId } from "#runtime/ids.ts";
import { openRedis, type RedisClient, redisProblems, redisReady } from "#runtime/redis.ts";
import type { PrivateServer } from "../../tools/stores/private.ts";
import { startRedis } from "../../tools/stores/redis.ts";
import { memoryDatabase, quietLog, temporaryFolder } from "../support/database.ts";
import { testStores } from "../support/stores.ts";
import { Pot, potMigrations } from "./pots.ts";

type Tables = TablesOf<readonly [typeof Pot]>;

/** Appends `count` events over `aggregates` aggregates, 100 in a transaction. */
async function append(source: Database<Tables>, count: number, aggregates: number): Promise<void> {
  for (let start = 0; start < count; start += 100) {
    await source.transaction(async (tx) => {
      for (let i = start; i < Math.min(count, start + 100); i++) {
        const aggregateId = `a${i % aggregates}`;
        tx.append({
          aggregateType: "stock",
          aggregateId,
          schema: StockChangedSchema,
          message: { stock: { listingId: aggregateId } },
        });
      }
    });
  }
}

/** Each aggregate's events are there once each, in order, without a gap. */
function checkAll(applied: readonly Event[], count: number, aggregates: number): void {
  assert.equal(applied.length, count);
  for (const [aggregateId, events] of Map.groupBy(applied, (event) => event.aggregateId)) {
    const got = events.map(({ sequence }) => Number(sequence));
    assert.deepEqual(
      got,
      got.map((_, index) => index + 1),
      aggregateId,
    );
  }
  assert.equal(new Set(applied.map(({ aggregateId }) => aggregateId)).size, aggregates);
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (const end = Date.now() + 60_000; !(await condition()); await sleep(5)) assert.ok(Date.now() < end, "waited for a minute");
}

describe("the bus on Redis", () => {
  let url: string;
  let prefix: string;
  let source: Database<Tables>;
  const ends: (() => Promise<unknown>)[] = [];

  before(async function () {
    this.timeout(120_000);
    url = (await testStores()).redisUrl;
  });
  beforeEach(async () => {
    prefix = `{test-${newId()}}`;
    ({ database: source } = await memoryDatabase([Pot], potMigrations, { service: "source" }));
    ends.push(() => source.close());
  });
  afterEach(async () => {
    for (const end of ends.splice(0).reverse()) await end();
  });

  /** A process: its bus, and its connection being up. */
  async function open(consumers: string[], options: { url?: string; maxLength?: number; leaseMs?: number } = {}): Promise<Bus> {
    const bus = redisBus({ url, log: quietLog, prefix, consumers, leaseMs: 600, ...options });
    ends.push(() => bus.close());
    const probe = openRedis({ url: options.url ?? url, log: quietLog, name: "probe" });
    await redisReady(probe, 10_000);
    probe.disconnect();
    return bus;
  }

  function relayTo(bus: Bus): Relay {
    const relay = startRelay({ database: source, bus });
    ends.push(() => relay.stop());
    return relay;
  }

  /** A consumer with a database of its own; what it has applied for good. */
  async function sink(name: string): Promise<{ consumer: Subscription; applied: Event[] }> {
    const { database } = await memoryDatabase([Pot], potMigrations, { service: "sink" });
    ends.unshift(() => database.close());
    const applied: Event[] = [];
    const effect = async (tx: { afterCommit(work: () => void): void }, _: unknown, event: Event) =>
      tx.afterCommit(() => void applied.push(event));
    return { consumer: inboxConsumer({ database, name, on: [on(StockChangedSchema, effect)] }), applied };
  }

  const plain = (consumer: string, handle: Subscription["handle"]): Subscription => ({
    consumer,
    service: "test",
    types: [StockChangedSchema.typeName],
    handle,
  });

  const openRows = async () =>
    (await source.sql.selectFrom("outbox").select("position").where("publish_time", "is", null).execute()).length;

  it("brings every event to every consumer, in order, and marks rows when all passed them", async () => {
    const bus = await open(["test.one", "test.two"]);
    const [one, two] = [await sink("test.one"), await sink("test.two")];
    bus.subscribe(one.consumer);
    bus.subscribe(two.consumer);
    const relay = relayTo(bus);
    await append(source, 1_000, 20);
    await relay.drain();
    checkAll(one.applied, 1_000, 20);
    checkAll(two.applied, 1_000, 20);
    assert.equal(await openRows(), 0);
  });

  it("keeps the rows open while one consumer has never been there, and brings it everything later", async () => {
    const bus = await open(["test.here", "test.away"]);
    const [here, away] = [await sink("test.here"), await sink("test.away")];
    bus.subscribe(here.consumer);
    const relay = relayTo(bus);
    await append(source, 300, 10);
    await until(() => here.applied.length === 300);
    assert.equal(await openRows(), 300);
    bus.subscribe(away.consumer);
    await relay.drain();
    checkAll(away.applied, 300, 10);
    assert.equal(await openRows(), 0);
  });

  it("does not let a slow consumer hold up another", async () => {
    const bus = await open(["test.slow", "test.fast"]);
    const { promise: never, resolve: goOn } = Promise.withResolvers<void>();
    const fast = await sink("test.fast");
    bus.subscribe(plain("test.slow", () => never));
    bus.subscribe(fast.consumer);
    const relay = relayTo(bus);
    await append(source, 2_000, 20);
    await until(() => fast.applied.length === 2_000);
    assert.equal(await openRows(), 2_000);
    goOn();
    await relay.drain();
    assert.equal(await openRows(), 0);
  });

  it("sends what is committed after what has higher positions: at once, and when it was for long before all is through", async () => {
    const bus = await open(["test.here", "test.away"]);
    const [here, away] = [await sink("test.here"), await sink("test.away")];
    const has = (aggregateId: string) => here.applied.some((event) => event.aggregateId === aggregateId);
    const of = (aggregateId: string) =>
      source.transaction(async (tx) =>
        tx.append({
          aggregateType: "stock",
          aggregateId,
          schema: StockChangedSchema,
          message: { stock: { listingId: aggregateId } },
        }),
      );
    for (const aggregateId of ["first", "late", "later", "above"]) await of(aggregateId);
    const [, late, later, above] = await source.sql.selectFrom("outbox").selectAll().orderBy("position").execute();
    const rows = [late, later, above].map((row) => row as NonNullable<typeof row>);
    const commit = (row: (typeof rows)[number] | undefined) =>
      source.sql
        .insertInto("outbox")
        .values(row as (typeof rows)[number])
        .execute();
    for (const { position } of rows) await source.sql.deleteFrom("outbox").where("position", "=", position).execute();
    bus.subscribe(here.consumer);
    const relay = startRelay({ database: source, bus, pollMs: 60_000 });
    ends.push(() => relay.stop());
    await until(() => has("first"));
    await commit(above);
    await of("wake");
    await until(() => has("above") && has("wake"));
    await commit(late);
    await of("again");
    await until(() => has("late"));
    await sleep(2_100);
    await commit(later);
    await of("last");
    await until(() => has("last"));
    assert.equal(has("later"), false);
    bus.subscribe(away.consumer);
    await relay.drain();
    assert.equal(here.applied.length, 7);
    assert.equal(away.applied.length, 7);
    assert.equal(await openRows(), 0);
  });

  it("gives a consumer's events to two processes, each aggregate to one of them at a time", async () => {
    const { consumer, applied } = await sink("test.shared");
    const shares = [0, 0];
    for (const index of shares.keys()) {
      const bus = await open(["test.shared"]);
      bus.subscribe({
        ...consumer,
        handle: async (events) => {
          await consumer.handle(events);
          shares[index] = (shares[index] as number) + events.length;
        },
      });
    }
    const relay = relayTo(await open(["test.shared"]));
    for (let total = 500; !shares.every((share) => share > 0); total += 500) {
      await append(source, 500, 50);
      await relay.drain();
      checkAll(applied, total, 50);
    }
  });

  it("hands what a dead process held to another, before anything newer", async () => {
    const { consumer, applied } = await sink("test.heir");
    const relay = relayTo(await open(["test.heir"]));
    const program = join(import.meta.dirname, "dying-consumer.ts");
    const dying = spawn(process.execPath, [program, url, prefix, "test.heir"], { stdio: ["ignore", "pipe", "inherit"] });
    await append(source, 200, 10);
    await once(dying.stdout, "data");
    const heir = await open(["test.heir"]);
    heir.subscribe(consumer);
    await append(source, 200, 10);
    dying.kill("SIGKILL");
    await relay.drain();
    checkAll(applied, 400, 10);
  });

  it("hands what a dead process held to one that is busy meanwhile, before anything newer", async () => {
    const { consumer, applied } = await sink("test.busy");
    const relay = relayTo(await open(["test.busy"]));
    const [entered, gate] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const busy = await open(["test.busy"]);
    busy.subscribe({
      ...consumer,
      async handle(events) {
        entered.resolve();
        await gate.promise;
        await consumer.handle(events);
      },
    });
    const program = join(import.meta.dirname, "dying-consumer.ts");
    const dying = spawn(process.execPath, [program, url, prefix, "test.busy"], { stdio: ["ignore", "pipe", "inherit"] });
    const client = openRedis({ url, log: quietLog, name: "probe" });
    ends.push(async () => client.disconnect());
    ends.push(async () => dying.kill("SIGKILL"));
    await redisReady(client, 10_000);
    const leases = Array.from({ length: 16 }, (_, partition) => `${prefix}:${partition}:lease:test.busy`);
    const owners = async () => (await client.mget(...leases)).filter((owner) => owner !== null);
    await until(async () => {
      const held = Object.values(Object.groupBy(await owners(), (owner) => owner));
      return held.length === 2 && held.every((each) => each?.length === 8);
    });
    await append(source, 200, 10);
    await Promise.all([entered.promise, once(dying.stdout, "data")]);
    dying.kill("SIGKILL");
    await until(async () => new Set(await owners()).size === 1);
    await sleep(500);
    await append(source, 200, 10);
    await sleep(300);
    gate.resolve();
    await relay.drain();
    checkAll(applied, 400, 10);
  });

  it("begins again when a consumer cannot take events, and in order", async () => {
    const { consumer, applied } = await sink("test.flaky");
    let tries = 0;
    const bus = await open(["test.flaky"]);
    bus.subscribe({
      ...consumer,
      handle: async (events) => {
        if (++tries % 3 === 1) throw new Error("not now");
        await consumer.handle(events);
      },
    });
    const relay = relayTo(bus);
    await append(source, 300, 10);
    await relay.drain();
    checkAll(applied, 300, 10);
  });

  it("refuses events when a stream is full, and goes on when there is room", async () => {
    const bus = await open(["test.late"], { maxLength: 50 });
    const relay = relayTo(bus);
    await append(source, 1_000, 1);
    const client = openRedis({ url, log: quietLog, name: "test" });
    ends.push(async () => client.disconnect());
    await redisReady(client, 5_000);
    const late = await sink("test.late");
    const lengths = async () =>
      Math.max(...(await Promise.all(Array.from({ length: 16 }, (_, p) => client.xlen(`${prefix}:${p}`)))));
    await until(async () => (await lengths()) > 0);
    bus.subscribe(late.consumer);
    await relay.drain();
    checkAll(late.applied, 1_000, 1);
    assert.ok((await lengths()) <= 700, "what all passed is trimmed");
  });

  it("refuses a consumer it was not told of, and two of one name", async () => {
    const bus = await open(["test.known"]);
    assert.throws(() => bus.subscribe(plain("test.unknown", async () => {})), /not told of the consumer/);
    bus.subscribe(plain("test.known", async () => {}));
    assert.throws(() => bus.subscribe(plain("test.known", async () => {})), /two consumers/);
  });

  describe("when Redis loses what it holds", () => {
    let folder: ReturnType<typeof temporaryFolder>;
    let server: PrivateServer;
    let client: RedisClient;

    beforeEach(async () => {
      folder = temporaryFolder();
      server = await startRedis({ folder: folder.path });
      client = openRedis({ url: server.url, log: quietLog, name: "test" });
      await redisReady(client, 5_000);
    });
    afterEach(async () => {
      client.disconnect();
      await server.stop();
      folder.remove();
    });

    /** Kills the server and starts it again with nothing, or with the file as it was some thousand writes ago. */
    async function kill(keep: boolean): Promise<void> {
      process.kill(server.pid, "SIGKILL");
      await server.exited;
      const written = join(folder.path, "appendonlydir");
      if (!keep) rmSync(written, { recursive: true, force: true });
      // What a killed process wrote is safe with the system; what a lost machine had not synced is not.
      for (const name of keep ? readdirSync(written).filter((each) => each.endsWith(".incr.aof")) : []) {
        truncateSync(join(written, name), Math.floor(statSync(join(written, name)).size * 0.6));
      }
      const password = decodeURIComponent(new URL(server.url).password);
      server = await startRedis({ folder: folder.path, port: server.port, password });
    }

    async function survives(trouble: (round: number) => Promise<unknown>): Promise<void> {
      const bus = await open(["test.one", "test.two"], { url: server.url });
      const [one, two] = [await sink("test.one"), await sink("test.two")];
      bus.subscribe(one.consumer);
      bus.subscribe(two.consumer);
      const relay = relayTo(bus);
      const appended = append(source, 10_000, 50);
      for (let round = 1; round <= 3; round++) {
        await until(() => Math.min(one.applied.length, two.applied.length) >= round * 1_500);
        await trouble(round);
      }
      await appended;
      await relay.drain();
      checkAll(one.applied, 10_000, 50);
      checkAll(two.applied, 10_000, 50);
      assert.equal(await openRows(), 0);
    }

    it("everything by a flush, each consumer still gets 10,000 events once and in order", () =>
      survives(() => client.flushall())).timeout(60_000);

    it("everything by being killed and started empty, each consumer still gets 10,000 events once and in order", () =>
      survives(() => kill(false))).timeout(60_000);

    it("its last writes by being killed and started from an older file, each consumer still gets 10,000 events once and in order", () =>
      survives(() => kill(true))).timeout(60_000);

    it("sends everything again that was lost, although another service has made the streams anew meanwhile", async () => {
      const bus = await open(["test.one"], { url: server.url });
      const first = relayTo(bus);
      await append(source, 500, 10);
      await until(async () => (await client.keys("*:writers")).length === (await partitions()).length);
      await sleep(50);
      await client.flushall();
      // Makes the streams and their groups, as another source does that begins to send.
      for (let partition = 0; partition < 16; partition++) {
        await client.xgroup("CREATE", `${prefix}:${partition}`, "test.one", "0", "MKSTREAM");
      }
      const one = await sink("test.one");
      bus.subscribe(one.consumer);
      await append(source, 500, 10);
      await first.drain();
      checkAll(one.applied, 1_000, 10);
    });

    const partitions = async () =>
      (await source.sql.selectFrom("outbox").select("partition_no").distinct().execute()).map((row) => row.partition_no);

    it("sends again what was sent and lost before anybody had seen it", async () => {
      const bus = await open(["test.one"], { url: server.url });
      const relay = relayTo(bus);
      await append(source, 500, 10);
      await until(async () => (await client.keys("*")).length > 0);
      await sleep(50);
      await client.flushall();
      const one = await sink("test.one");
      bus.subscribe(one.consumer);
      await relay.drain();
      checkAll(one.applied, 500, 10);
    });
  });

  it("names what is wrong with the URL and the server", async () => {
    const refused = (text: string, expected: RegExp) =>
      assert.throws(() => openRedis({ url: text, log: quietLog, name: "test" }), expected);
    refused("http://localhost", /not understood/);
    refused("redis://a:1,b:2", /several hosts/);
    refused("redis+sentinel://a:1", /names no primary/);
    refused("redis://localhost/x", /database "x"/);
    refused("redis://:secret@local host", /^(?!.*secret).*not understood/);
    const client = openRedis({ url, log: quietLog, name: "test" });
    await redisReady(client, 5_000);
    await client.info();
    assert.ok((await redisProblems(client)).every((problem) => !problem.includes("evicts")));
    client.disconnect();
    const nobody = openRedis({ url: "redis://127.0.0.1:1", log: quietLog, name: "test" });
    await assert.rejects(redisReady(nobody, 200), /cannot be reached.*SOUK_REDIS_URL/);
    nobody.disconnect();
  });
});
