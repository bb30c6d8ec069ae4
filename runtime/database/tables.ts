import { type Generated, type Kysely, SqliteAdapter } from "kysely";
import type { Migration } from "./migrations.ts";

/** Events written with the change that caused them, until published; kept for seven days after. */
export interface OutboxTable {
  /** Orders the rows of one aggregate, never of the whole table: such numbers commit out of order. */
  position: Generated<number>;
  event_id: string;
  /** 0..15, from the aggregate's id: what one relay at a time serves. */
  partition_no: number;
  aggregate_type: string;
  aggregate_id: string;
  sequence: number;
  type: string;
  /** The whole `marketplace.event.v1.Event`, serialized. */
  event: Uint8Array;
  event_time: number;
  publish_time: number | null;
}

/** The number of the last event of each aggregate; its row is the lock under which the next number is given. */
export interface SequenceTable {
  aggregate_type: string;
  aggregate_id: string;
  value: number;
}

/** The events each consumer has taken in: applied, or put aside as a dead letter. */
export interface InboxTable {
  consumer: string;
  event_id: string;
  take_time: number;
}

/** The first answer of each command. */
export interface ReplayTable {
  /** Caller and request_id. */
  request_key: string;
  /** SHA-256 over method and request, hexadecimal. */
  request_hash: string;
  /** `pending` until the answer is known. */
  state: "pending" | "answered" | "failed";
  /** The answer's message, or the error as JSON. */
  answer: Uint8Array | null;
  create_time: number;
  expire_time: number;
}

/** Work to be done at a time. */
export interface JobTable {
  kind: string;
  job_key: string;
  /** Null: taken back while it was running, to be deleted when that run ends. */
  due_time: number | null;
  /** Changes each time the job is scheduled, so that a run knows whether it was scheduled anew meanwhile. */
  generation: string;
  /** Runs begun since it was scheduled. */
  attempt: number;
  owner: string | null;
  lease_expire_time: number | null;
  first_failure_time: number | null;
  last_reason: string | null;
  last_message: string | null;
}

/** What failed and has attempts left, used them up, or waits behind such a thing. */
export interface DeadLetterTable {
  dead_letter_id: string;
  kind: "event" | "job";
  /** `retrying`: attempts remain. `open`: a person decides. `held`: an event that waits for an earlier one of its aggregate. */
  state: "retrying" | "open" | "held" | "resolved" | "discarded";
  /** The consumer, or the job's kind. */
  handler: string;
  /** `<aggregate type>/<aggregate id>`, or the job's key. */
  subject: string;
  /** The event's number within its aggregate; 0 for a job. */
  sequence: number;
  /** The whole event, serialized; null for a job. */
  event: Uint8Array | null;
  /** The event's type name; empty for a job. */
  event_type: string;
  /** Empty for a job. */
  event_id: string;
  attempts: number;
  create_time: number;
  first_attempt_time: number | null;
  last_attempt_time: number | null;
  /** The last failure's reason; empty when it had none. */
  reason: string;
  message: string;
  traceparent: string;
  resolve_time: number | null;
  resolved_by: string | null;
  note: string | null;
}

/** What one process at a time may do. */
export interface LeaseTable {
  name: string;
  owner: string;
  expire_time: number;
}

/** The runtime's own tables, which every service's database has beside the service's. */
export interface RuntimeTables {
  outbox: OutboxTable;
  sequence: SequenceTable;
  inbox: InboxTable;
  replay: ReplayTable;
  job: JobTable;
  dead_letter: DeadLetterTable;
  lease: LeaseTable;
}

/** The names of the runtime's tables; a service's tables are called something else. */
export const runtimeTableNames = ["outbox", "sequence", "inbox", "replay", "job", "dead_letter", "lease"] as const;

/** The runtime's migrations, run before the service's. */
export const runtimeMigrations: readonly Migration[] = [
  {
    name: "0001-runtime",
    up: createTables,
    down: "what makes commands safe to repeat and events certain to arrive would be gone. Remove the whole database instead.",
  },
];

async function createTables(sql: Kysely<unknown>): Promise<void> {
  await createEventTables(sql);
  await sql.schema
    .createTable("replay")
    .addColumn("request_key", "varchar(191)", (c) => c.primaryKey())
    .addColumn("request_hash", "varchar(64)", (c) => c.notNull())
    .addColumn("state", "varchar(16)", (c) => c.notNull())
    .addColumn("answer", "blob")
    .addColumn("create_time", "bigint", (c) => c.notNull())
    .addColumn("expire_time", "bigint", (c) => c.notNull())
    .execute();
  await sql.schema.createIndex("replay_expire").on("replay").column("expire_time").execute();
  await sql.schema
    .createTable("job")
    .addColumn("kind", "varchar(64)", (c) => c.notNull())
    .addColumn("job_key", "varchar(191)", (c) => c.notNull())
    .addColumn("due_time", "bigint")
    .addColumn("generation", "varchar(36)", (c) => c.notNull())
    .addColumn("attempt", "integer", (c) => c.notNull())
    .addColumn("owner", "varchar(36)")
    .addColumn("lease_expire_time", "bigint")
    .addColumn("first_failure_time", "bigint")
    .addColumn("last_reason", "varchar(64)")
    .addColumn("last_message", "text")
    // The key first: with the kind first, the planner walks all jobs of a kind to find the due one.
    .addPrimaryKeyConstraint("job_pk", ["job_key", "kind"])
    .execute();
  await sql.schema.createIndex("job_due").on("job").column("due_time").execute();
  await sql.schema.createIndex("job_lease").on("job").column("lease_expire_time").execute();
  await sql.schema
    .createTable("lease")
    .addColumn("name", "varchar(64)", (c) => c.primaryKey())
    .addColumn("owner", "varchar(36)", (c) => c.notNull())
    .addColumn("expire_time", "bigint", (c) => c.notNull())
    .execute();
  await createDeadLetterTable(sql);
}

async function createEventTables(sql: Kysely<unknown>): Promise<void> {
  await sql.schema
    .createTable("outbox")
    .addColumn("position", autoIncrementType(sql), (c) => c.primaryKey().autoIncrement())
    .addColumn("event_id", "varchar(36)", (c) => c.notNull())
    .addColumn("partition_no", "integer", (c) => c.notNull())
    .addColumn("aggregate_type", "varchar(32)", (c) => c.notNull())
    .addColumn("aggregate_id", "varchar(64)", (c) => c.notNull())
    .addColumn("sequence", "bigint", (c) => c.notNull())
    .addColumn("type", "varchar(128)", (c) => c.notNull())
    .addColumn("event", "blob", (c) => c.notNull())
    .addColumn("event_time", "bigint", (c) => c.notNull())
    .addColumn("publish_time", "bigint")
    .addUniqueConstraint("outbox_sequence", ["aggregate_type", "aggregate_id", "sequence"])
    .execute();
  await sql.schema.createIndex("outbox_publish").on("outbox").columns(["publish_time", "position"]).execute();
  await sql.schema
    .createTable("sequence")
    .addColumn("aggregate_type", "varchar(32)", (c) => c.notNull())
    .addColumn("aggregate_id", "varchar(64)", (c) => c.notNull())
    .addColumn("value", "bigint", (c) => c.notNull())
    .addPrimaryKeyConstraint("sequence_pk", ["aggregate_type", "aggregate_id"])
    .execute();
  await sql.schema
    .createTable("inbox")
    .addColumn("consumer", "varchar(64)", (c) => c.notNull())
    .addColumn("event_id", "varchar(36)", (c) => c.notNull())
    .addColumn("take_time", "bigint", (c) => c.notNull())
    .addPrimaryKeyConstraint("inbox_pk", ["consumer", "event_id"])
    .execute();
  await sql.schema.createIndex("inbox_take").on("inbox").column("take_time").execute();
}

async function createDeadLetterTable(sql: Kysely<unknown>): Promise<void> {
  await sql.schema
    .createTable("dead_letter")
    .addColumn("dead_letter_id", "varchar(36)", (c) => c.primaryKey())
    .addColumn("kind", "varchar(8)", (c) => c.notNull())
    .addColumn("state", "varchar(16)", (c) => c.notNull())
    .addColumn("handler", "varchar(64)", (c) => c.notNull())
    .addColumn("subject", "varchar(191)", (c) => c.notNull())
    .addColumn("sequence", "bigint", (c) => c.notNull())
    .addColumn("event", "blob")
    .addColumn("event_type", "varchar(128)", (c) => c.notNull())
    .addColumn("event_id", "varchar(36)", (c) => c.notNull())
    .addColumn("attempts", "integer", (c) => c.notNull())
    .addColumn("create_time", "bigint", (c) => c.notNull())
    .addColumn("first_attempt_time", "bigint")
    .addColumn("last_attempt_time", "bigint")
    .addColumn("reason", "varchar(64)", (c) => c.notNull())
    .addColumn("message", "text", (c) => c.notNull())
    .addColumn("traceparent", "varchar(256)", (c) => c.notNull())
    .addColumn("resolve_time", "bigint")
    .addColumn("resolved_by", "varchar(64)")
    .addColumn("note", "text")
    .execute();
  await sql.schema
    .createIndex("dead_letter_subject")
    .on("dead_letter")
    .columns(["handler", "subject", "state", "sequence"])
    .execute();
  await sql.schema.createIndex("dead_letter_state").on("dead_letter").columns(["state", "dead_letter_id"]).execute();
}

/** SQLite numbers rows by itself only in a column called `integer`; elsewhere 32 bits would run out of events. */
function autoIncrementType(sql: Kysely<unknown>): "integer" | "bigint" {
  return sql.getExecutor().adapter instanceof SqliteAdapter ? "integer" : "bigint";
}
