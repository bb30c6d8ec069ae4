import type { Compilable, Kysely } from "kysely";
import { newId } from "#runtime/ids.ts";
import type { JobTable, RuntimeTables } from "./tables.ts";
import { upsert } from "./upsert.ts";

/** Work to be done once, at or after a time, by any process of the service. */
export interface NewJob {
  /** Selects the handler, such as "expire-reservation". */
  kind: string;
  /** Says which one, such as the reservation's id; 1..191 characters. */
  key: string;
  /** Milliseconds since the epoch; a time in the past means at once. */
  dueTime: number;
}

/** Names a job. */
export type JobName = Pick<NewJob, "kind" | "key">;

/** Inserts the job or plans the existing one anew, keeping the lease of a run that is under way. */
export function planJob(sql: Kysely<RuntimeTables>, job: NewJob): Compilable<unknown> {
  const plan = {
    due_time: job.dueTime,
    generation: newId(),
    attempt: 0,
    first_failure_time: null,
    last_reason: null,
    last_message: null,
  } satisfies Partial<JobTable>;
  return upsert(sql, {
    table: "job",
    row: { kind: job.kind, job_key: job.key, owner: null, lease_expire_time: null, ...plan },
    key: ["job_key", "kind"],
    change: plan,
  });
}

/** Takes the job back, unless it is running: then nothing changes, and `endJobLater` is needed. */
export function eraseJob(sql: Kysely<RuntimeTables>, job: JobName, now: number): Compilable<unknown> {
  return sql
    .deleteFrom("job")
    .where("kind", "=", job.kind)
    .where("job_key", "=", job.key)
    .where((eb) => eb.or([eb("owner", "is", null), eb("lease_expire_time", "<=", now)]));
}

/** Lets the job that is running go when its run ends. */
export function endJobLater(sql: Kysely<RuntimeTables>, job: JobName): Compilable<unknown> {
  return sql
    .updateTable("job")
    .set({ due_time: null, generation: newId() })
    .where("kind", "=", job.kind)
    .where("job_key", "=", job.key);
}
