import type { Database } from "#runtime/database/database.ts";
import { describeFailure } from "#runtime/database/dead-letters.ts";
import type { DeadLetterTable } from "#runtime/database/tables.ts";
import { reasonOf } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";

/** A job that this process may run until its lease ends. */
export interface ClaimedJob {
  readonly kind: string;
  readonly key: string;
  readonly attempt: number;
  readonly generation: string;
  readonly owner: string;
  readonly firstFailureTime: number | null;
}

/** Claims due jobs, the earliest due first: each by a conditional update that must hit its row, so that one process gets it. */
export async function claimJobs(
  database: Database,
  options: { kinds: readonly string[]; owner: string; leaseMs: number; limit: number; running: ReadonlyMap<string, unknown> },
): Promise<ClaimedJob[]> {
  const { owner, leaseMs, limit, running } = options;
  const now = database.clock.now();
  const rows = await database.sql
    .selectFrom("job")
    .select(["kind", "job_key", "generation", "attempt", "first_failure_time"])
    .where("due_time", "<=", now)
    .where("kind", "in", [...options.kinds])
    .where((eb) => eb.or([eb("owner", "is", null), eb("lease_expire_time", "<=", now)]))
    .orderBy("due_time")
    .limit(limit + running.size)
    .execute();
  // A lease that ended while the run went on in this very process (the machine slept) is no reason for a second run.
  const candidates = rows.filter((row) => !running.has(`${row.kind}\n${row.job_key}`)).slice(0, limit);
  if (candidates.length === 0) {
    return [];
  }
  return database.transaction(
    async (tx) => {
      const claimed: ClaimedJob[] = [];
      for (const row of candidates) {
        const result = await tx.sql
          .updateTable("job")
          .set({ owner, lease_expire_time: now + leaseMs, attempt: row.attempt + 1 })
          .where("kind", "=", row.kind)
          .where("job_key", "=", row.job_key)
          .where("generation", "=", row.generation)
          .where("attempt", "=", row.attempt)
          .where("due_time", "<=", now)
          .where((eb) => eb.or([eb("owner", "is", null), eb("lease_expire_time", "<=", now)]))
          .executeTakeFirst();
        if (result.numUpdatedRows === 1n) {
          claimed.push({
            kind: row.kind,
            key: row.job_key,
            attempt: row.attempt + 1,
            generation: row.generation,
            owner,
            firstFailureTime: row.first_failure_time,
          });
        }
      }
      return claimed;
    },
    { durable: false },
  );
}

// Each of these two reads walks one index and stops at its first row; a `min()` would scan every job that waits.
/**
 * When the next job can be claimed: in milliseconds since the epoch, Infinity when there is none. Those of `owner` do not count: it is woken
 * when their runs end.
 */
export async function nextDueTime(database: Database, kinds: readonly string[], owner: string): Promise<number> {
  const free = await database.sql
    .selectFrom("job")
    .select("due_time")
    .where("due_time", "is not", null)
    .where("kind", "in", [...kinds])
    .where("owner", "is", null)
    .orderBy("due_time")
    .limit(1)
    .executeTakeFirst();
  const leased = await database.sql
    .selectFrom("job")
    .select("lease_expire_time")
    .where("lease_expire_time", "is not", null)
    .where("kind", "in", [...kinds])
    .where("owner", "!=", owner)
    .where("due_time", "is not", null)
    .orderBy("lease_expire_time")
    .limit(1)
    .executeTakeFirst();
  return Math.min(free?.due_time ?? Number.POSITIVE_INFINITY, leased?.lease_expire_time ?? Number.POSITIVE_INFINITY);
}

/** Keeps the lease for another while. False: it is another's now. */
export async function renewLease(database: Database, job: ClaimedJob, leaseMs: number): Promise<boolean> {
  const result = await database.transaction(
    (tx) =>
      tx.sql
        .updateTable("job")
        .set({ lease_expire_time: tx.now + leaseMs })
        .where("kind", "=", job.kind)
        .where("job_key", "=", job.key)
        .where("owner", "=", job.owner)
        .executeTakeFirst(),
    { durable: false },
  );
  return result.numUpdatedRows === 1n;
}

/** The run succeeded: the job goes, unless it was scheduled anew meanwhile. A lost note repeats the run. */
export async function finishJob(database: Database, job: ClaimedJob): Promise<void> {
  await database.transaction(
    async (tx) => {
      const gone = await tx.sql
        .deleteFrom("job")
        .where("kind", "=", job.kind)
        .where("job_key", "=", job.key)
        .where("owner", "=", job.owner)
        .where((eb) => eb.or([eb("generation", "=", job.generation), eb("due_time", "is", null)]))
        .executeTakeFirst();
      if (gone.numDeletedRows === 0n) {
        await tx.sql
          .updateTable("job")
          .set({ owner: null, lease_expire_time: null })
          .where("kind", "=", job.kind)
          .where("job_key", "=", job.key)
          .where("owner", "=", job.owner)
          .execute();
      }
    },
    { durable: false },
  );
}

/** The run failed: another attempt later, or a dead letter. A job scheduled anew meanwhile keeps its new plan. */
export async function reportFailure(
  database: Database,
  job: ClaimedJob,
  failure: { error: unknown; final: boolean; backoffMs: number },
): Promise<void> {
  const what = describeFailure(failure.error);
  const line = { job: job.kind, key: job.key, attempt: job.attempt, reason: reasonOf(failure.error), err: failure.error };
  await database.transaction(async (tx) => {
    const mine = () => {
      const row = tx.sql.updateTable("job").where("kind", "=", job.kind).where("job_key", "=", job.key);
      return row.where("owner", "=", job.owner);
    };
    const again = await mine()
      .set({
        owner: null,
        lease_expire_time: null,
        due_time: tx.now + failure.backoffMs,
        first_failure_time: job.firstFailureTime ?? tx.now,
        last_reason: what.reason,
        last_message: what.message,
      })
      .where("generation", "=", job.generation)
      .executeTakeFirst();
    if (again.numUpdatedRows === 1n) {
      if (failure.final) {
        await tx.sql
          .insertInto("dead_letter")
          .values(letterOf(job, tx.now, what))
          .execute();
        await tx.sql.deleteFrom("job").where("kind", "=", job.kind).where("job_key", "=", job.key).execute();
      }
      return;
    }
    // Scheduled anew or taken back while it ran.
    await mine().set({ owner: null, lease_expire_time: null }).execute();
    await tx.sql
      .deleteFrom("job")
      .where("kind", "=", job.kind)
      .where("job_key", "=", job.key)
      .where("owner", "is", null)
      .where("due_time", "is", null)
      .execute();
  });
  if (failure.final) {
    database.log.error(line, "a job used up its attempts and waits for a person");
  } else {
    database.log.warn(line, "a job failed; it is tried again");
  }
}

function letterOf(job: ClaimedJob, now: number, what: { reason: string; message: string }): DeadLetterTable {
  return {
    dead_letter_id: newId(),
    kind: "job",
    state: "open",
    handler: job.kind,
    subject: job.key,
    sequence: 0,
    event: null,
    event_type: "",
    event_id: "",
    attempts: job.attempt,
    create_time: now,
    first_attempt_time: job.firstFailureTime ?? now,
    last_attempt_time: now,
    ...what,
    traceparent: "",
    resolve_time: null,
    resolved_by: null,
    note: null,
  };
}

/** Plans the first run of a recurring job, at once, unless it is planned already. */
export async function planRecurring(database: Database, job: { kind: string; key: string }): Promise<void> {
  await database.transaction(
    async (tx) => {
      const known = await tx.sql
        .selectFrom("job")
        .select("kind")
        .where("kind", "=", job.kind)
        .where("job_key", "=", job.key)
        .executeTakeFirst();
      if (known === undefined) {
        tx.schedule({ ...job, dueTime: tx.now });
      }
    },
    { durable: false },
  );
}
