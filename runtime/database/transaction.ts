import { createHash } from "node:crypto";
import { create, type DescMessage, type MessageInitShape, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { anyPack, timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { ConnectError } from "@connectrpc/connect";
import type { SqlEntityManager } from "@mikro-orm/sql";
import { type ControlledTransaction, type Kysely, sql } from "kysely";
import { EventSchema } from "#gen/marketplace/event/v1/event_pb.ts";
import { newId } from "#runtime/ids.ts";
import { eraseJob, type JobName, type NewJob, writeJob } from "./job-plans.ts";
import { writeError } from "./replay.ts";
import type { RuntimeTables } from "./tables.ts";
import { upsert } from "./upsert.ts";

/** Partitions of the outbox; fixed, because changing it would reorder events under way. */
export const PARTITIONS = 16;

/** A fact to be told about one aggregate. */
export interface NewEvent<D extends DescMessage = DescMessage> {
  /** The kind of aggregate, such as "listing"; lower-case, at most 32 characters. */
  aggregateType: string;
  /** Its id, 1..64 characters. */
  aggregateId: string;
  /** The message's schema, from the context's events.proto. */
  schema: D;
  /** The event itself. */
  message: MessageInitShape<D>;
}

/**
 * An open transaction at READ COMMITTED. What `append`, `schedule`, `unschedule` and `answer` are given is written at the end,
 * with the change, by one statement each kind; they return at once and there is nothing to await. `Tables` are the service's tables as Kysely sees them.
 */
export interface Transaction<Tables = unknown> {
  /** Entities and the unit of work; flushed at the end by itself (flush by hand before reading the same rows through `sql`). */
  readonly em: SqlEntityManager;
  /** Kysely on the same connection. Columns are named as in the table; money columns come as bigint. */
  readonly sql: Kysely<Tables & RuntimeTables>;
  /** The clock's time at the start of this attempt, in milliseconds; the same throughout. */
  readonly now: number;
  /** Tells a fact. It gets the aggregate's next sequence number, without gaps, in commit order. */
  append<D extends DescMessage>(event: NewEvent<D>): void;
  /** Plans a job, or moves the one of this kind and key to another time with fresh attempts; also from within its own run. */
  schedule(job: NewJob): void;
  /** Takes a job back if it has not run; one that is running finishes, and is not tried again. */
  unschedule(job: JobName): void;
  /** Stores the answer of a claimed command (see `Database.claim`). */
  answer<D extends DescMessage>(requestKey: string, schema: D, message: MessageInitShape<D>): void;
  /** Stores an error as the answer of a claimed command: repeats get the same code, reason and metadata. */
  answerError(requestKey: string, error: ConnectError): void;
  /** Drops a claim without an answer: the next repeat starts anew. Only where the first try certainly had no effect. */
  forget(requestKey: string): void;
  /** Says that readers see another version of something from the commit on: caches in this process hear of it, through `Database.onCommit`. */
  changed(change: VersionChange): void;
  /** Runs something in this process after the commit (never after a rollback); errors in it are logged. */
  afterCommit(work: () => void): void;
}

/** A new version of something that readers see. */
export interface VersionChange {
  /** What it is, such as "listing". */
  readonly kind: string;
  readonly id: string;
  readonly version: number;
}

/** What a transaction changed that others in this process wait for. */
export interface Committed {
  readonly appended: boolean;
  /** The earliest due time of a job scheduled; undefined when none was. */
  readonly earliestDueTime: number | undefined;
  readonly answeredKeys: readonly string[];
  readonly changes: readonly VersionChange[];
  readonly afterCommit: readonly (() => void)[];
}

interface Answer {
  key: string;
  state: "answered" | "failed" | "forgotten";
  answer: Uint8Array | null;
}

interface Options {
  service: string;
  sql: ControlledTransaction<RuntimeTables>;
  forkEntityManager: () => SqlEntityManager;
  now: number;
  traceparent: string;
}

/** The one implementation of `Transaction`: collects what is to be written at the end, and writes it. */
export class OpenTransaction implements Transaction {
  readonly now: number;
  readonly sql: Kysely<RuntimeTables>;
  readonly #options: Options;
  readonly #events: { event: NewEvent; eventId: string; traceparent: string }[] = [];
  #traceparent: string;
  readonly #jobs = new Map<string, NewJob | JobName>();
  readonly #answers: Answer[] = [];
  readonly #changes: VersionChange[] = [];
  readonly #afterCommit: (() => void)[] = [];
  #em: SqlEntityManager | undefined;

  constructor(options: Options) {
    this.#options = options;
    this.now = options.now;
    this.#traceparent = options.traceparent;
    this.sql = options.sql;
  }

  get em(): SqlEntityManager {
    // Made on first use: a transaction that only uses Kysely does not pay for a unit of work.
    this.#em ??= this.#options.forkEntityManager();
    return this.#em;
  }

  append<D extends DescMessage>(event: NewEvent<D>): void {
    checkLength("the aggregate's type", event.aggregateType, 32);
    checkLength("the aggregate's id", event.aggregateId, 64);
    this.#events.push({ event: event as unknown as NewEvent, eventId: newId(), traceparent: this.#traceparent });
  }

  schedule(job: NewJob): void {
    checkLength("the job's kind", job.kind, 64);
    checkLength("the job's key", job.key, 191);
    if (!Number.isSafeInteger(job.dueTime)) {
      throw new Error(`the job's due time is ${job.dueTime}: a whole number of milliseconds.`);
    }
    this.#jobs.set(`${job.kind}\n${job.key}`, job);
  }

  unschedule(job: JobName): void {
    this.#jobs.set(`${job.kind}\n${job.key}`, { kind: job.kind, key: job.key });
  }

  answer<D extends DescMessage>(requestKey: string, schema: D, message: MessageInitShape<D>): void {
    const answer = toBinary(schema, create(schema, message));
    this.#answers.push({ key: requestKey, state: "answered", answer });
  }

  answerError(requestKey: string, error: ConnectError): void {
    this.#answers.push({ key: requestKey, state: "failed", answer: writeError(error) });
  }

  forget(requestKey: string): void {
    this.#answers.push({ key: requestKey, state: "forgotten", answer: null });
  }

  changed(change: VersionChange): void {
    this.#changes.push(change);
  }

  afterCommit(work: () => void): void {
    this.#afterCommit.push(work);
  }

  /** Runs one of several independent pieces of work in this transaction: its own trace, and no entities left over for the next. */
  async separately(traceparent: string, work: () => Promise<void>): Promise<void> {
    const before = this.#traceparent;
    this.#traceparent = traceparent;
    await work();
    this.#traceparent = before;
    await this.#em?.flush();
    this.#em?.clear();
  }

  /** Writes everything collected, in an order of keys that is the same in every transaction, so that none deadlock. */
  async finish(): Promise<Committed> {
    await this.#em?.flush();
    await this.#writeAnswers();
    const earliestDueTime = await this.#writeJobs();
    await this.#writeEvents();
    return {
      appended: this.#events.length > 0,
      earliestDueTime,
      answeredKeys: this.#answers.map((answer) => answer.key),
      changes: this.#changes,
      afterCommit: this.#afterCommit,
    };
  }

  async #writeAnswers(): Promise<void> {
    for (const { key, state, answer } of this.#answers) {
      if (state === "forgotten") {
        await this.sql.deleteFrom("replay").where("request_key", "=", key).where("state", "=", "pending").execute();
        continue;
      }
      const result = await this.sql
        .updateTable("replay")
        .set({ state, answer })
        .where("request_key", "=", key)
        .where("state", "=", "pending")
        .executeTakeFirst();
      if (result.numUpdatedRows !== 1n) {
        throw new Error(`the command "${key}" is not waiting for an answer: it was never claimed, or has one already.`);
      }
    }
  }

  async #writeJobs(): Promise<number | undefined> {
    let earliest: number | undefined;
    for (const [, job] of [...this.#jobs].sort(([a], [b]) => (a < b ? -1 : 1))) {
      if ("dueTime" in job) {
        await writeJob(this.sql, job);
        earliest = Math.min(earliest ?? job.dueTime, job.dueTime);
      } else {
        await eraseJob(this.sql, job, this.now);
      }
    }
    return earliest;
  }

  async #writeEvents(): Promise<void> {
    if (this.#events.length === 0) {
      return;
    }
    const counts = new Map<string, { type: string; id: string; count: number }>();
    for (const { event } of this.#events) {
      const name = `${event.aggregateType}/${event.aggregateId}`;
      const entry = counts.get(name) ?? { type: event.aggregateType, id: event.aggregateId, count: 0 };
      entry.count++;
      counts.set(name, entry);
    }
    const next = new Map<string, number>();
    for (const [name, { type, id, count }] of [...counts].sort(([a], [b]) => (a < b ? -1 : 1))) {
      next.set(name, (await this.#takeSequence(type, id, count)) - count + 1);
    }
    const rows = this.#events.map(({ event, eventId, traceparent }) => {
      const name = `${event.aggregateType}/${event.aggregateId}`;
      const sequence = next.get(name) as number;
      next.set(name, sequence + 1);
      return this.#outboxRow(event, eventId, sequence, traceparent);
    });
    // SQLite and MySQL bound the parameters of a statement.
    for (let start = 0; start < rows.length; start += 500) {
      await this.sql
        .insertInto("outbox")
        .values(rows.slice(start, start + 500))
        .execute();
    }
  }

  /** Takes `count` numbers of the aggregate and gives the last. The row stays locked until the commit. */
  async #takeSequence(type: string, id: string, count: number): Promise<number> {
    await upsert(this.sql, {
      table: "sequence",
      row: { aggregate_type: type, aggregate_id: id, value: count },
      key: ["aggregate_type", "aggregate_id"],
      change: { value: sql`${sql.ref("sequence.value")} + ${count}` },
    });
    const row = await this.sql
      .selectFrom("sequence")
      .select("value")
      .where("aggregate_type", "=", type)
      .where("aggregate_id", "=", id)
      .executeTakeFirstOrThrow();
    return row.value;
  }

  #outboxRow(event: NewEvent, eventId: string, sequence: number, traceparent: string) {
    const payload = anyPack(event.schema, create(event.schema, event.message) as MessageShape<DescMessage>);
    const envelope = create(EventSchema, {
      eventId,
      source: this.#options.service,
      aggregateType: event.aggregateType,
      aggregateId: event.aggregateId,
      sequence: BigInt(sequence),
      eventTime: timestampFromMs(this.now),
      payload,
      traceparent,
    });
    return {
      event_id: eventId,
      partition_no: partitionOf(event.aggregateId),
      aggregate_type: event.aggregateType,
      aggregate_id: event.aggregateId,
      sequence,
      type: event.schema.typeName,
      event: toBinary(EventSchema, envelope),
      event_time: this.now,
      publish_time: null,
    };
  }
}

/** SQLite does not mind what a column's declared length is; MySQL does. */
function checkLength(what: string, value: string, max: number): void {
  if (value.length === 0 || value.length > max) {
    throw new Error(`${what} has ${value.length} characters: 1 to ${max}.`);
  }
}

/** Runs what one event of a batch does: its own events carry the event's trace, and its entities are flushed before the next event's effect. */
export async function eventScope(tx: Transaction, traceparent: string, work: () => Promise<void>): Promise<void> {
  await (tx as OpenTransaction).separately(traceparent, work);
}

/** The partition of an aggregate: the same in every process, for good. */
export function partitionOf(aggregateId: string): number {
  return (createHash("md5").update(aggregateId).digest()[0] as number) % PARTITIONS;
}
