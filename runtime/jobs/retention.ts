import type { Database } from "#runtime/database/database.ts";
import type { RecurringJob } from "./jobs.ts";

const DAY_MS = 24 * 3600 * 1000;
/** How long published events stay in the outbox: what can be published again after the transport lost data. */
export const OUTBOX_RETENTION_MS = 7 * DAY_MS;
/** How long a consumer remembers what it took; longer than the outbox can publish again. */
export const INBOX_RETENTION_MS = 30 * DAY_MS;
/** How long a decided dead letter is kept. */
export const DEAD_LETTER_RETENTION_MS = 90 * DAY_MS;
const INTERVAL_MS = 3600 * 1000;
const BATCH = 1_000;

/** Removes what the runtime's tables need no more, hourly, in small transactions that get in nobody's way. */
export function retentionJob(database: Database): RecurringJob {
  return {
    kind: "runtime.retention",
    intervalMs: INTERVAL_MS,
    async run(signal) {
      const now = database.clock.now();
      await untilNone(signal, () => removeOutbox(database, now - OUTBOX_RETENTION_MS));
      await untilNone(signal, () => removeInbox(database, now - INBOX_RETENTION_MS));
      await untilNone(signal, () => removeReplay(database, now));
      await untilNone(signal, () => removeDeadLetters(database, now - DEAD_LETTER_RETENTION_MS));
      await removeJobs(database);
    },
  };
}

async function untilNone(signal: AbortSignal, removeSome: () => Promise<number>): Promise<void> {
  while (!signal.aborted && (await removeSome()) === BATCH) {
    // Another batch.
  }
}

async function removeOutbox(database: Database, before: number): Promise<number> {
  const rows = await database.sql.selectFrom("outbox").select("position").where("publish_time", "<", before).limit(BATCH).execute();
  const positions = rows.map((row) => row.position);
  return remove(database, positions, (sql) => sql.deleteFrom("outbox").where("position", "in", positions).execute());
}

async function removeInbox(database: Database, before: number): Promise<number> {
  const rows = await database.sql
    .selectFrom("inbox")
    .select(["consumer", "event_id"])
    .where("take_time", "<", before)
    .limit(BATCH)
    .execute();
  const ids = rows.map((row) => row.event_id);
  const consumers = [...new Set(rows.map((row) => row.consumer))];
  return remove(database, ids, (sql) =>
    sql
      .deleteFrom("inbox")
      .where("consumer", "in", consumers)
      .where("event_id", "in", ids)
      .where("take_time", "<", before)
      .execute(),
  );
}

async function removeReplay(database: Database, now: number): Promise<number> {
  const rows = await database.sql.selectFrom("replay").select("request_key").where("expire_time", "<=", now).limit(BATCH).execute();
  const keys = rows.map((row) => row.request_key);
  return remove(database, keys, (sql) =>
    sql.deleteFrom("replay").where("request_key", "in", keys).where("expire_time", "<=", now).execute(),
  );
}

async function removeDeadLetters(database: Database, before: number): Promise<number> {
  const rows = await database.sql
    .selectFrom("dead_letter")
    .select("dead_letter_id")
    .where("state", "in", ["resolved", "discarded"])
    .where("resolve_time", "<", before)
    .limit(BATCH)
    .execute();
  const ids = rows.map((row) => row.dead_letter_id);
  return remove(database, ids, (sql) => sql.deleteFrom("dead_letter").where("dead_letter_id", "in", ids).execute());
}

/** Jobs taken back while they ran, whose process died before it could note the end. */
async function removeJobs(database: Database): Promise<void> {
  await database.transaction(
    (tx) =>
      tx.sql
        .deleteFrom("job")
        .where("due_time", "is", null)
        .where((eb) => eb.or([eb("owner", "is", null), eb("lease_expire_time", "<=", tx.now)]))
        .execute(),
    { durable: false },
  );
}

async function remove<T>(
  database: Database,
  found: readonly T[],
  work: (sql: Database["sql"]) => Promise<unknown>,
): Promise<number> {
  if (found.length > 0) {
    await database.transaction((tx) => work(tx.sql), { durable: false });
  }
  return found.length;
}
