// `npm run bench -- events`: how long an event takes from its commit until it is applied, and how many a second a backlog is worked off with.

import { setTimeout as sleep } from "node:timers/promises";
import { StockChangedSchema } from "#gen/marketplace/inventory/v1/events_pb.ts";
import { systemClock } from "#runtime/clock.ts";
import { type Database, openDatabase } from "#runtime/database/database.ts";
import type { Transaction } from "#runtime/database/transaction.ts";
import type { Bus } from "#runtime/events/bus.ts";
import { inboxConsumer, on } from "#runtime/events/inbox.ts";
import { redisBus } from "#runtime/events/redis-bus.ts";
import { startRelay } from "#runtime/events/relay.ts";
import { newId } from "#runtime/ids.ts";
import { createLog } from "#runtime/log.ts";
import { startMariadb } from "../tools/stores/mariadb.ts";
import { startRedis } from "../tools/stores/redis.ts";
import { ensureDatabase } from "../tools/stores/stores.ts";
import { cpuUsOf } from "./production.ts";

const BACKLOG = Number(process.env.SOUK_BENCH_BACKLOG ?? 50_000);
const PACED = 5_000;
const PER_SECOND = 1_000;
/** Events of one transaction. */
const PER_COMMIT = 5;

const log = createLog({ level: "warn", format: "json" });

interface Parts {
  readonly source: Database;
  readonly target: Database;
  readonly redisUrl: string;
  readonly mariadbPid: number;
}

/** The consumer's effect is its inbox row alone: what is measured is the way there. */
function consumerOf(target: Database, name: string, applied: (ids: string) => void) {
  const effect = async (tx: Transaction, message: { reservationId: string }) => {
    tx.afterCommit(() => applied(message.reservationId));
  };
  return inboxConsumer({ database: target, name, batchSize: 500, on: [on<typeof StockChangedSchema>(StockChangedSchema, effect)] });
}

function append(tx: Transaction, aggregateId: string, mark: string): void {
  const message = { stock: { listingId: aggregateId, availableUnits: 1 }, reservationId: mark };
  tx.append({ aggregateType: "stock", aggregateId, schema: StockChangedSchema, message });
}

async function fill(source: Database, count: number): Promise<void> {
  for (let done = 0; done < count; done += 500) {
    await source.transaction(async (tx) => {
      for (let i = 0; i < Math.min(500, count - done); i++) append(tx, newId(), "");
    });
  }
}

function busOf(redisUrl: string, round: string, consumer: string): Bus {
  return redisBus({ url: redisUrl, log, consumers: [consumer], prefix: `{bench.${round}}` });
}

/** Events a second from a backlog: sent to Redis, and applied by a consumer; each is whole when it is committed. */
async function backlog({ source, target, redisUrl, mariadbPid }: Parts, round: string) {
  await fill(source, BACKLOG);
  const consumer = `bench.backlog${round}`;
  const bus = busOf(redisUrl, `b${round}`, consumer);
  await sleep(300);
  let applied = 0;
  let appliedTime = 0;
  bus.subscribe(
    consumerOf(target, consumer, () => {
      if (++applied === BACKLOG) appliedTime = performance.now();
    }),
  );
  const before = { cpu: process.cpuUsage(), database: cpuUsOf(mariadbPid) ?? 0 };
  const startTime = performance.now();
  const relay = startRelay({ database: source, bus, log });
  while (appliedTime === 0) await sleep(5);
  const cpu = process.cpuUsage(before.cpu);
  const database = (cpuUsOf(mariadbPid) ?? 0) - before.database;
  await relay.drain();
  await relay.stop();
  await bus.close();
  return {
    perSecond: (BACKLOG / (appliedTime - startTime)) * 1000,
    processUs: (cpu.user + cpu.system) / BACKLOG,
    databaseUs: database / BACKLOG,
  };
}

/** The relay alone: rows of the outbox into Redis and marked, with a consumer that does nothing. */
async function relayOnly({ source, redisUrl }: Parts, round: string): Promise<number> {
  await fill(source, BACKLOG);
  const consumer = `bench.relay${round}`;
  const bus = busOf(redisUrl, `r${round}`, consumer);
  await sleep(300);
  bus.subscribe({ consumer, service: "bench", types: [], batchSize: 1_000, handle: async () => {} });
  const startTime = performance.now();
  const relay = startRelay({ database: source, bus, log });
  await relay.drain();
  const perSecond = (BACKLOG / (performance.now() - startTime)) * 1000;
  await relay.stop();
  await bus.close();
  return perSecond;
}

/** From commit to applied, at a pace that waits for nothing. */
async function paced({ source, target, redisUrl }: Parts, round: string) {
  const consumer = `bench.paced${round}`;
  const bus = busOf(redisUrl, `p${round}`, consumer);
  await sleep(300);
  const committed = new Map<string, number>();
  const early = new Map<string, number>();
  const latencies: number[] = [];
  bus.subscribe(
    consumerOf(target, consumer, (mark) => {
      const now = performance.now();
      const at = committed.get(mark);
      // The commit's answer may arrive here after the event did.
      if (at === undefined) early.set(mark, now);
      else latencies.push(now - at);
    }),
  );
  const relay = startRelay({ database: source, bus, log });
  const startTime = performance.now();
  const commits: Promise<void>[] = [];
  for (let i = 0; i < PACED / PER_COMMIT; i++) {
    const due = startTime + (i * PER_COMMIT * 1000) / PER_SECOND;
    if (due > performance.now()) await sleep(due - performance.now());
    const marks = Array.from({ length: PER_COMMIT }, (_, index) => `${i}/${index}`);
    const work = source.transaction(async (tx) => {
      for (const mark of marks) append(tx, newId(), mark);
    });
    commits.push(
      work.then(() => {
        const now = performance.now();
        for (const mark of marks) {
          committed.set(mark, now);
          if (early.has(mark)) latencies.push(0);
        }
      }),
    );
  }
  await Promise.all(commits);
  const rate = (PACED / (performance.now() - startTime)) * 1000;
  const end = Date.now() + 60_000;
  while (latencies.length < PACED && Date.now() < end) await sleep(10);
  await relay.drain();
  await relay.stop();
  await bus.close();
  latencies.sort((a, b) => a - b);
  const at = (share: number) => latencies[Math.floor((latencies.length - 1) * share)] ?? Number.NaN;
  return { rate, p50: at(0.5), p99: at(0.99), applied: latencies.length };
}

/** Runs the benchmark. */
export async function events({ rounds }: { rounds: number }): Promise<void> {
  const [mariadb, redis] = await Promise.all([startMariadb(), startRedis()]);
  const open = async (service: string): Promise<Database> => {
    const url = await ensureDatabase(mariadb.url, { name: `souk_${service}`, password: "bench" });
    return openDatabase({ service, url, entities: [], migrations: [], clock: systemClock, log }) as Promise<Database>;
  };
  const source = await open("source");
  const target = await open("target");
  const parts: Parts = { source, target, redisUrl: redis.url, mariadbPid: mariadb.pid };
  try {
    for (let round = 1; round <= rounds; round++) {
      const relayed = await relayOnly(parts, String(round));
      const all = await backlog(parts, String(round));
      const pace = await paced(parts, String(round));
      console.log(
        [
          `round ${round}: relay alone ${relayed.toFixed(0)} a second`,
          `to applied ${all.perSecond.toFixed(0)} a second (process ${all.processUs.toFixed(0)} µs, database ${all.databaseUs.toFixed(0)} µs each)`,
          `at ${pace.rate.toFixed(0)} a second from commit to applied p50 ${pace.p50.toFixed(1)} ms, p99 ${pace.p99.toFixed(1)} ms, ${pace.applied} of ${PACED} applied`,
        ].join("; "),
      );
    }
  } finally {
    await source.close();
    await target.close();
    await Promise.all([mariadb.stop(), redis.stop()]);
  }
}
