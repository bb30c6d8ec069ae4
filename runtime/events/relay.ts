import { fromBinary } from "@bufbuild/protobuf";
import { type Event, EventSchema } from "#gen/marketplace/event/v1/event_pb.ts";
import type { Database } from "#runtime/database/database.ts";
import { holdLeases, type Leases } from "#runtime/database/leases.ts";
import { PARTITIONS } from "#runtime/database/transaction.ts";
import { newId } from "#runtime/ids.ts";
import { type Loop, startLoop } from "#runtime/jobs/loop.ts";
import type { Log } from "#runtime/log.ts";
import type { Bus } from "./bus.ts";
import { SendAhead } from "./relay-ahead.ts";

const BATCH_SIZE = 500;
const POLL_MS = 1_000;
const LEASE_MS = 15_000;
const STOP_GRACE_MS = 10_000;

/** What a relay is started with. */
export interface RelayOptions {
  readonly database: Database;
  readonly bus: Bus;
  /** The database's log unless given. */
  readonly log?: Log;
  /** Events published at once; 500 unless given. */
  readonly batchSize?: number;
  /** How often the outbox is looked at when nothing in this process wakes the relay; 1 s unless given. */
  readonly pollMs?: number;
}

/** Publishes the events of one service's outbox. */
export interface Relay {
  /** Publishes what is there now; resolves when nothing this process may publish is left. */
  drain(): Promise<void>;
  /**
   * Ends after the batch under way; gives that up after `graceMs` (10 s unless given), when a consumer cannot take it: it is published again
   * by the next process.
   */
  stop(graceMs?: number): Promise<void>;
}

/**
 * Starts the relay of a service. It is woken by each commit that appended, publishes in batches in the order of the outbox, and marks the rows.
 * One process at a time serves a partition, under a lease; a process that dies is followed by another when its lease expires.
 */
export function startRelay(options: RelayOptions): Relay {
  const { database } = options;
  const owner = newId();
  const partitions = Array.from({ length: PARTITIONS }, (_, index) => index);
  const leases = holdLeases(database, { owner, leaseMs: LEASE_MS, names: partitions.map(leaseName) });
  const { batchSize = BATCH_SIZE, pollMs = POLL_MS, log = database.log, bus } = options;
  const openLane = bus.lane?.bind(bus);
  const ahead = openLane && new SendAhead({ database, openLane, leases, partitions, leaseName, batchSize, pollMs, log });
  const loop = startLoop({
    name: `relay of ${database.service}`,
    log,
    pollMs,
    turn: () => (ahead ? ahead.turn() : publishBatch(options, leases, partitions)),
  });
  const unlisten = database.onCommit((committed) => {
    if (committed.appended) {
      loop.wake();
      ahead?.appended();
    }
  });
  return {
    drain: () => loop.drain(),
    async stop(graceMs = STOP_GRACE_MS) {
      ahead?.stop();
      await stop(unlisten, loop, leases, graceMs);
      ahead?.close();
    },
  };
}

async function stop(unlisten: () => void, loop: Loop, leases: Leases, graceMs: number): Promise<void> {
  unlisten();
  const { promise: patience, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, graceMs);
  await Promise.race([loop.stop(), patience]);
  clearTimeout(timer);
  await leases.release();
}

/** Publishes one batch. True: there may be more. */
async function publishBatch(options: RelayOptions, leases: Leases, partitions: number[]): Promise<boolean> {
  const { database, bus, batchSize = BATCH_SIZE } = options;
  const waiting = await database.sql.selectFrom("outbox").select("position").where("publish_time", "is", null).limit(1).execute();
  if (waiting.length === 0) {
    return false;
  }
  const held = await leases.take();
  const mine = partitions.filter((partition) => held.has(leaseName(partition)));
  if (mine.length === 0) {
    return false;
  }
  let query = database.sql.selectFrom("outbox").select(["position", "event"]).where("publish_time", "is", null);
  if (mine.length < PARTITIONS) {
    query = query.where("partition_no", "in", mine);
  }
  const rows = await query.orderBy("position").limit(batchSize).execute();
  if (rows.length === 0) {
    return false;
  }
  const events: Event[] = rows.map((row) => fromBinary(EventSchema, row.event));
  await leases.during(() => bus.publish(events));
  await database.transaction(
    async (tx) => {
      await tx.sql
        .updateTable("outbox")
        .set({ publish_time: tx.now })
        .where(
          "position",
          "in",
          rows.map((row) => row.position),
        )
        .execute();
    },
    // A lost mark publishes again, and the inbox drops the doubles.
    { durable: false },
  );
  return true;
}

function leaseName(partition: number): string {
  return `relay/${partition}`;
}
