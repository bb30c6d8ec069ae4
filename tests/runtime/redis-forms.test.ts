import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import type { Event } from "#gen/marketplace/event/v1/event_pb.ts";
import { StockChangedSchema } from "#gen/marketplace/inventory/v1/events_pb.ts";
import type { Database, TablesOf } from "#runtime/database/database.ts";
import { inboxConsumer, on } from "#runtime/events/inbox.ts";
import { redisBus } from "#runtime/events/redis-bus.ts";
import { startRelay } from "#runtime/events/relay.ts";
import { newId } from "#runtime/ids.ts";
import { openRedis, redisReady } from "#runtime/redis.ts";
import { testAuthority } from "../support/certificates.ts";
import { memoryDatabase, quietLog, temporaryFolder } from "../support/database.ts";
import {
  clusterWhole,
  type Node,
  PASSWORD,
  primaryPort,
  replicaSeen,
  startCluster,
  startNode,
  startSentinel,
  until,
} from "../support/redis-forms.ts";
import { Pot, potMigrations } from "./pots.ts";
import { reach, useCache } from "./redis-user.ts";

const AGGREGATES = 40;

describe("Redis in its other forms", function () {
  this.timeout(60_000);
  const ends: (() => unknown)[] = [];

  afterEach(async () => {
    for (const end of ends.splice(0).reverse()) await end();
  });

  /** Appends events while the trouble lasts; then every consumer has each of them, once and in order. */
  async function survives(url: string, prefix: string, trouble: (went: () => Promise<void>) => Promise<void>): Promise<void> {
    const { database: source } = await memoryDatabase([Pot], potMigrations, { service: "source" });
    ends.push(() => source.close());
    const bus = redisBus({ url, log: quietLog, prefix, consumers: ["test.one", "test.two"], leaseMs: 1_000 });
    const sinks: Event[][] = [];
    for (const name of ["test.one", "test.two"]) {
      const { database } = await memoryDatabase([Pot], potMigrations, { service: "sink" });
      ends.push(() => database.close());
      const applied: Event[] = [];
      const effect = async (tx: { afterCommit(work: () => void): void }, _: unknown, event: Event) =>
        tx.afterCommit(() => void applied.push(event));
      bus.subscribe(inboxConsumer({ database, name, on: [on(StockChangedSchema, effect)] }));
      sinks.push(applied);
    }
    const relay = startRelay({ database: source, bus });
    ends.push(() => bus.close());
    ends.push(() => relay.stop());
    let ended = false;
    let count = 0;
    const appending = (async () => {
      for (; !ended; count += AGGREGATES) {
        await append(source);
        await sleep(40);
      }
    })();
    const went = async () => {
      const goal = count + 5 * AGGREGATES;
      await until(() => sinks.every((applied) => applied.length >= goal));
    };
    try {
      await went();
      await trouble(went);
    } finally {
      ended = true;
      await appending;
    }
    await relay.drain();
    for (const applied of sinks) checkAll(applied, count);
    const open = await source.sql.selectFrom("outbox").select("position").where("publish_time", "is", null).execute();
    assert.equal(open.length, 0);
  }

  it("over TLS, brings events and remembers what was read where the CA is named, and says what to do where it is not", async () => {
    const folder = temporaryFolder();
    ends.push(() => folder.remove());
    const authority = testAuthority("Test CA");
    const file = join(folder.path, "ca.pem");
    writeFileSync(file, authority.certificate);
    const other = join(folder.path, "other.pem");
    writeFileSync(other, testAuthority("Test CA").certificate);
    const tls = authority.issue(["127.0.0.1"]);
    const [right, elsewhere] = await Promise.all([startNode({ tls }), startNode({ tls: authority.issue(["redis.internal"]) })]);
    ends.push(() => Promise.all([right.stop(), elsewhere.stop()]));
    const monitor = [`sentinel monitor souk 127.0.0.1 ${right.server.port} 1`, `sentinel auth-pass souk ${PASSWORD}`];
    const sentinel = await startNode({ tls, sentinel: true, settings: monitor });
    ends.push(() => sentinel.stop());
    const cluster = await startCluster(authority.issue(["localhost"]));
    ends.push(() => cluster.stop());
    const urlOf = (node: Node) => `rediss://:${PASSWORD}@127.0.0.1:${node.server.port}`;
    const named = `rediss+sentinel://:${PASSWORD}@127.0.0.1:${sentinel.server.port}/souk`;
    const urls = [urlOf(right), named, cluster.url, urlOf(elsewhere)];
    const [trusting = [], doubting = []] = await Promise.all([file, other].map((each) => use(urls, { NODE_EXTRA_CA_CERTS: each })));
    assert.deepEqual(trusting.slice(0, 3), ["works", "works", "works"]);
    assert.match(trusting[3] ?? "", /certificate of Redis.*altnames.*SOUK_REDIS_URL/);
    for (const said of doubting.slice(0, 3)) assert.match(said, /certificate of Redis.*NODE_EXTRA_CA_CERTS/);
  });

  it("under a Sentinel, loses no event and doubles no effect when a primary is killed, and when the next one hangs", async () => {
    const { url, sentinel, nodes, stop } = await startSentinel();
    ends.push(stop);
    await assert.rejects(reach(url.replace(PASSWORD, "wrong")), /refuses the password: WRONGPASS/);
    await reach(url);
    await useCache(url);
    const [first, second] = nodes;
    await survives(url, `{test-${newId()}}`, async (went) => {
      await replicaSeen(sentinel);
      await first.kill();
      await until(async () => (await primaryPort(sentinel)) === second.server.port);
      await went();
      await first.restart([`replicaof 127.0.0.1 ${second.server.port}`]);
      await replicaSeen(sentinel);
      process.kill(second.server.pid, "SIGSTOP");
      ends.push(() => process.kill(second.server.pid, "SIGCONT"));
      await until(async () => (await primaryPort(sentinel)) === first.server.port);
      await went();
      process.kill(second.server.pid, "SIGCONT");
      await went();
    });
    await useCache(url);
  });

  it("in a Cluster, loses no event and doubles no effect when the node that has the events comes back empty", async () => {
    const { url, nodes, stop } = await startCluster();
    ends.push(stop);
    await assert.rejects(reach(url.replace(PASSWORD, "wrong")), /refuses the password: WRONGPASS/);
    await reach(url);
    await useCache(url);
    const prefix = `{test-${newId()}}`;
    const slot = Number(await nodes[0]?.ask("CLUSTER", "KEYSLOT", prefix));
    const holder = nodes[Math.floor((slot * nodes.length) / 16_384)] as Node;
    await breaksOnce(url, `${prefix}:list`, holder);
    await survives(url, prefix, async (went) => {
      assert.ok(Number(await holder.ask("EXISTS", `${prefix}:members:test.one`)) > 0);
      await holder.kill({ lose: true });
      await holder.restart();
      for (const node of nodes) await clusterWhole(node);
      await went();
    });
    await useCache(url);
  });
});

/** A command whose connection broke fails, and is not sent again: it may have been done. */
async function breaksOnce(url: string, key: string, holder: Node): Promise<void> {
  const client = openRedis({ url, log: quietLog, name: "test" });
  try {
    await redisReady(client, 5_000);
    const broken = assert.rejects(client.blpop(key, 0));
    await until(async () => /blocked_clients:1/.test(String(await holder.ask("INFO", "clients"))));
    await holder.ask("CLIENT", "KILL", "TYPE", "normal");
    await broken;
    await holder.ask("LPUSH", key, "nobody waits for this");
    assert.equal(await holder.ask("LLEN", key), 1);
  } finally {
    client.disconnect();
  }
}

async function append(source: Database<TablesOf<readonly [typeof Pot]>>): Promise<void> {
  await source.transaction(async (tx) => {
    for (let i = 0; i < AGGREGATES; i++) {
      const aggregateId = `a${i}`;
      tx.append({
        aggregateType: "stock",
        aggregateId,
        schema: StockChangedSchema,
        message: { stock: { listingId: aggregateId } },
      });
    }
  });
}

/** Each aggregate's events are there once each, in order, without a gap. */
function checkAll(applied: readonly Event[], count: number): void {
  assert.equal(applied.length, count);
  for (const [aggregateId, events] of Map.groupBy(applied, (event) => event.aggregateId)) {
    const got = events.map(({ sequence }) => Number(sequence));
    assert.deepEqual(
      got,
      Array.from({ length: count / AGGREGATES }, (_, index) => index + 1),
      aggregateId,
    );
  }
}

/** What another process says of each URL that it uses. */
async function use(urls: readonly string[], env: NodeJS.ProcessEnv): Promise<string[]> {
  const program = join(import.meta.dirname, "redis-user.ts");
  const { stdout } = await promisify(execFile)(process.execPath, [program, ...urls], { env: { ...process.env, ...env } });
  return stdout.trim().split("\n");
}
