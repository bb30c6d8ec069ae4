import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import type { Event } from "#gen/marketplace/event/v1/event_pb.ts";
import { StockChangedSchema } from "#gen/marketplace/inventory/v1/events_pb.ts";
import type { Database, TablesOf } from "#runtime/database/database.ts";
import type { Bus, Subscription } from "#runtime/events/bus.ts";
import { redisBus } from "#runtime/events/redis-bus.ts";
import { startRelay } from "#runtime/events/relay.ts";
import { newId } from "#runtime/ids.ts";
import { openRedis, type RedisClient, redisReady } from "#runtime/redis.ts";
import type { PrivateServer } from "../../tools/stores/private.ts";
import { startRedis } from "../../tools/stores/redis.ts";
import { memoryDatabase, quietLog } from "../support/database.ts";
import { Pot, potMigrations } from "./pots.ts";

type Tables = TablesOf<readonly [typeof Pot]>;

const CONSUMER = "test.index";
const SHARED = "test.shared";
const LEASE_MS = 300;
const REPLICA_MS = 900;

/** The last sequence of each aggregate: what a whole index would know. */
type Known = Map<string, bigint>;

/** A process with an index of its own, in a folder that outlives it. */
class Index {
  /** What is on its disk. */
  generation: string | undefined;
  begun: string | undefined;
  known: Known = new Map();
  rebuilds = 0;
  /** Whether it ends before what it makes anew is done. */
  dies = false;
  readonly #source: () => Known;
  #bus: Bus | undefined;

  constructor(source: () => Known) {
    this.#source = source;
  }

  start(open: () => Bus): void {
    this.#bus = open();
    this.#bus.subscribe({
      consumer: CONSUMER,
      service: "test",
      types: [StockChangedSchema.typeName],
      handle: async (events) => this.#apply(events),
      replica: {
        generation: async () => this.generation,
        unfinished: async () => (this.begun === this.generation ? undefined : this.begun),
        rebuild: async (generation) => {
          this.rebuilds++;
          this.begun = generation;
          if (this.dies) return;
          this.known = new Map([...this.#source(), ...newer(this.known, this.#source())]);
          this.generation = generation;
        },
      },
    });
  }

  async stop(): Promise<void> {
    await this.#bus?.close();
    this.#bus = undefined;
  }

  #apply(events: readonly Event[]): void {
    for (const { aggregateId, sequence } of events) {
      if (sequence > (this.known.get(aggregateId) ?? 0n)) this.known.set(aggregateId, sequence);
    }
  }
}

function newer(known: Known, source: Known): [string, bigint][] {
  return [...known].filter(([id, sequence]) => sequence > (source.get(id) ?? 0n));
}

describe("replicas on the bus", function () {
  this.timeout(40_000);
  let server: PrivateServer;
  let client: RedisClient;
  let prefix: string;
  let source: Database<Tables>;
  /** What the owner's tables say. */
  let truth: Known;
  const ends: (() => Promise<unknown>)[] = [];

  before(async () => {
    server = await startRedis();
    client = openRedis({ url: server.url, log: quietLog, name: "test" });
    await redisReady(client, 5_000);
  });
  after(async () => {
    client.disconnect();
    await server.stop();
  });
  beforeEach(async () => {
    prefix = `{test-${newId()}}`;
    truth = new Map();
    ({ database: source } = await memoryDatabase([Pot], potMigrations, { service: "source" }));
    ends.push(() => source.close());
  });
  afterEach(async () => {
    for (const end of ends.splice(0).reverse()) await end();
  });

  const open = (replicaMs = REPLICA_MS) =>
    redisBus({
      url: server.url,
      log: quietLog,
      prefix,
      consumers: [CONSUMER, SHARED],
      replicated: [CONSUMER],
      leaseMs: LEASE_MS,
      replicaMs,
    });

  /** The process of the source, and of a consumer whose processes share their events. */
  async function relayed(replicaMs = REPLICA_MS) {
    const bus = open(replicaMs);
    ends.push(() => bus.close());
    const shared: Subscription = { consumer: SHARED, service: "test", types: [], handle: async () => {} };
    bus.subscribe(shared);
    const relay = startRelay({ database: source, bus, pollMs: 50 });
    ends.push(() => relay.stop());
  }

  function index(): Index {
    const made = new Index(() => new Map(truth));
    ends.push(() => made.stop());
    return made;
  }

  async function append(count: number, aggregates = 20): Promise<void> {
    for (let i = 0; i < count; i++) {
      const aggregateId = `a${i % aggregates}`;
      await source.transaction(async (tx) => {
        const message = { stock: { listingId: aggregateId } };
        tx.append({ aggregateType: "stock", aggregateId, schema: StockChangedSchema, message });
      });
      truth.set(aggregateId, (truth.get(aggregateId) ?? 0n) + 1n);
    }
  }

  async function until(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
    for (const end = Date.now() + 15_000; !(await condition()); await sleep(10)) assert.ok(Date.now() < end, what);
  }

  const openRows = async () =>
    (await source.sql.selectFrom("outbox").select("position").where("publish_time", "is", null).execute()).length;
  const isWhole = ({ known }: Index) => [...truth].every(([id, sequence]) => known.get(id) === sequence);
  const whole = (...indexes: Index[]) => until(() => indexes.every(isWhole), "an index lacks events");

  it("each hear every event", async () => {
    await relayed();
    const [one, two] = [index(), index()];
    one.start(open);
    two.start(open);
    await append(200);
    await whole(one, two);
    await until(async () => (await openRows()) === 0, "rows stay open");
    assert.notEqual(one.generation, two.generation);
    assert.deepEqual([one.rebuilds, two.rebuilds], [1, 1]);
  });

  it("go on where they were when they come back soon, and are waited for meanwhile", async () => {
    await relayed();
    const one = index();
    one.start(open);
    await append(20);
    await whole(one);
    await one.stop();
    await append(20);
    assert.ok((await openRows()) > 0);
    one.start(open);
    await whole(one);
    assert.equal(one.rebuilds, 1);
  });

  it("hold no rows once they are silent for long, and begin anew when they come back all the same", async () => {
    await relayed();
    const one = index();
    one.start(open);
    await append(20);
    await whole(one);
    await one.stop();
    await append(40);
    await until(async () => (await openRows()) === 0, "rows wait for a replica that is gone");
    assert.equal((await client.keys(`${prefix}:replicas`)).length, 0);
    one.start(open);
    await whole(one);
    assert.equal(one.rebuilds, 2);
  });

  it("begin anew when Redis lost everything, although what they miss was confirmed without them", async () => {
    await relayed();
    const one = index();
    one.start(open);
    await append(20);
    await whole(one);
    await one.stop();
    await client.flushall();
    await append(40);
    await until(async () => (await openRows()) === 0, "rows stay open");
    one.start(open);
    await whole(one);
    assert.equal(one.rebuilds, 2);
    await client.flushall();
    await append(40);
    await whole(one);
    await until(() => one.rebuilds === 3, "it did not notice");
    await append(40);
    await whole(one);
  });

  it("begin anew when the making was not finished", async () => {
    await relayed();
    const one = index();
    one.start(open);
    await append(20);
    await whole(one);
    await one.stop();
    one.generation = undefined;
    one.known = new Map();
    one.start(open);
    await whole(one);
    assert.equal(one.rebuilds, 2);
  });

  it("hold no rows for a making that was interrupted", async () => {
    await relayed(3_600_000);
    const one = index();
    one.dies = true;
    one.start(() => open(3_600_000));
    await until(() => one.rebuilds === 1, "nothing is made");
    await append(20);
    assert.ok((await openRows()) > 0);
    await one.stop();
    await until(async () => (await openRows()) === 0, "rows wait for what was interrupted");
  });

  it("do not share what one of them hears when one lives on a copy of another's files", async () => {
    await relayed();
    const [one, copy] = [index(), index()];
    one.start(open);
    await append(20);
    await whole(one);
    copy.generation = one.generation;
    copy.known = new Map(one.known);
    copy.start(open);
    await append(20);
    await until(() => copy.rebuilds === 1, "the copy goes on as the original");
    await append(20);
    await whole(one, copy);
    assert.equal(one.rebuilds, 1);
    assert.notEqual(one.generation, copy.generation);
  });
});
