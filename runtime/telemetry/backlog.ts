import type { Meter } from "@opentelemetry/api";
import type { SelectQueryBuilder } from "kysely";
import type { Database } from "#runtime/database/database.ts";
import type { RuntimeTables } from "#runtime/database/tables.ts";
import { ATTRIBUTE } from "./conventions.ts";

/** How old what is told may be: readers of the measurements do not each ask the databases. */
const KEPT_MS = 5_000;
/** Rows are counted up to here: who is behind by so many needs no exact number. */
const COUNTED_MAX = 10_000;
/** How long the databases may take; what does not come is not told. */
const TIMEOUT_MS = 2_000;

/** What one service has not done yet. */
interface Backlog {
  readonly outboxRows: number;
  readonly outboxAgeS: number;
  readonly jobsDue: number;
  readonly jobsAgeS: number;
  readonly deadLetters: number;
}

/** Measures what waits in a service's tables: events that no consumer has confirmed, jobs that are due, dead letters that want a person. */
export function observeBacklog(meter: Meter, databases: readonly Database[]): void {
  const gauge = (name: string, unit: string, description: string) => meter.createObservableGauge(name, { unit, description });
  const rows = gauge("souk.outbox.rows", "", `Events that not every consumer has passed, at most ${COUNTED_MAX}.`);
  const age = gauge("souk.outbox.age", "s", "How long the oldest of them waits: how far the relay is behind.");
  const due = gauge("souk.jobs.due", "", `Jobs that are due and not done, at most ${COUNTED_MAX}.`);
  const late = gauge("souk.jobs.age", "s", "How long the oldest of them is due.");
  const letters = gauge("souk.dead_letters", "", `Dead letters that wait for a person, at most ${COUNTED_MAX}.`);
  const reachable = gauge("souk.database.reachable", "", "Whether its database answers.");
  const looks = databases.map((database) => ({ service: database.service, look: kept(() => backlogOf(database)) }));
  meter.addBatchObservableCallback(
    async (result) => {
      const found = await Promise.all(looks.map(async ({ service, look }) => ({ service, backlog: await inTime(look()) })));
      for (const { service, backlog } of found) {
        const of = { [ATTRIBUTE.service]: service };
        result.observe(reachable, backlog === undefined ? 0 : 1, of);
        // What is not told anew would be told as it was.
        result.observe(rows, backlog?.outboxRows ?? Number.NaN, of);
        result.observe(age, backlog?.outboxAgeS ?? Number.NaN, of);
        result.observe(due, backlog?.jobsDue ?? Number.NaN, of);
        result.observe(late, backlog?.jobsAgeS ?? Number.NaN, of);
        result.observe(letters, backlog?.deadLetters ?? Number.NaN, of);
      }
    },
    [rows, age, due, late, letters, reachable],
  );
}

async function backlogOf({ sql, clock }: Database): Promise<Backlog> {
  const now = clock.now();
  const open = sql.selectFrom("outbox").where("publish_time", "is", null);
  const dueJobs = sql.selectFrom("job").where("due_time", "<=", now);
  const letters = sql.selectFrom("dead_letter").where("state", "=", "open");
  const [outbox, oldest, jobs, earliest, dead] = await Promise.all([
    countOf(sql, open.select("position as id").limit(COUNTED_MAX)),
    open.select("event_time").orderBy("position").limit(1).executeTakeFirst(),
    countOf(sql, dueJobs.select("job_key as id").limit(COUNTED_MAX)),
    dueJobs.select("due_time").orderBy("due_time").limit(1).executeTakeFirst(),
    countOf(sql, letters.select("dead_letter_id as id").limit(COUNTED_MAX)),
  ]);
  const secondsSince = (time: number | null | undefined) => (time == null ? 0 : Math.max(0, now - time) / 1000);
  return {
    outboxRows: outbox,
    outboxAgeS: secondsSince(oldest?.event_time),
    jobsDue: jobs,
    jobsAgeS: secondsSince(earliest?.due_time),
    deadLetters: dead,
  };
}

async function countOf(sql: Database["sql"], rows: SelectQueryBuilder<RuntimeTables, never, { id: unknown }>): Promise<number> {
  const found = await sql
    .selectFrom(rows.as("waiting"))
    .select((eb) => eb.fn.countAll().as("rows"))
    .executeTakeFirst();
  return Number(found?.rows ?? 0);
}

/** Looks at most so often, and once at a time. */
function kept<T>(look: () => Promise<T>): () => Promise<T> {
  let last: Promise<T> | undefined;
  let lookTime = 0;
  return () => {
    if (last === undefined || performance.now() - lookTime > KEPT_MS) {
      lookTime = performance.now();
      last = look();
    }
    return last;
  };
}

/** Undefined when it fails or takes too long: a database that is away is no reason to tell nothing of the others. */
async function inTime<T>(work: Promise<T>): Promise<T | undefined> {
  const { promise, resolve } = Promise.withResolvers<undefined>();
  const timer = setTimeout(() => resolve(undefined), TIMEOUT_MS);
  try {
    return await Promise.race([work.catch(() => undefined), promise]);
  } finally {
    clearTimeout(timer);
  }
}
