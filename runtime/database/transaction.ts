import { hash } from "node:crypto";
import { create, type DescMessage, type MessageInitShape, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { anyPack, timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { ConnectError } from "@connectrpc/connect";
import type { SqlEntityManager } from "@mikro-orm/sql";
import type { ControlledTransaction, Kysely } from "kysely";
import { EventSchema } from "#gen/marketplace/event/v1/event_pb.ts";
import { newId } from "#runtime/ids.ts";
import { rememberBytes } from "#runtime/rpc/encoded.ts";
import type { Observer } from "#runtime/telemetry/observer.ts";
import { executeLater, executeTogether, type Outcome, type Outcomes } from "./batch.ts";
import { compiledOf, insertRows, type Statement, updateRow } from "./compiled.ts";
import { endJobLater, eraseJob, type JobName, type NewJob, planJob } from "./job-plans.ts";
import { type Command, CommandKnown, insertPending, writeError } from "./replay.ts";
import type { RuntimeTables } from "./tables.ts";
import { lastNumber, type Taken, takeNumbers } from "./upsert.ts";

/** Partitions of the outbox; fixed, because changing it would reorder events under way. */
export const PARTITIONS = 16;
/** Rows of one insert into the outbox. */
const OUTBOX_ROWS = 500;

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
  /**
   * Its number, where the aggregate's own row counts its events and this transaction has counted it up: from 1, without gaps. Null or not given: the runtime
   * counts. The same way for all events of an aggregate.
   */
  sequence?: number | null | undefined;
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
  /** Sends statements of `sql` in one round trip, in this order, and gives what came of each; the first that fails keeps the rest from running. */
  together<const Q extends readonly Statement<unknown>[]>(...queries: Q): Promise<Outcomes<Q>>;
  /**
   * Writes statements of `sql` whose outcome does not matter: with the next one, or with the commit. Where a row that is there already would be no mistake,
   * use `together` or `execute`: whoever sends the next statement would meet that error.
   */
  later(...queries: readonly Statement<unknown>[]): Promise<void>;
  /**
   * As `later`, for an insert that must meet no key that is there, or an update or delete that must change one row, found by its key: the transaction fails with
   * what `otherwise` gives. Alone in its transaction such an update goes without one.
   */
  must(query: Statement<unknown>, otherwise: () => Error): Promise<void>;
  /** The clock's time at the start of this attempt, in milliseconds; the same throughout. */
  readonly now: number;
  /** Tells a fact. It gets the aggregate's next sequence number, without gaps, in commit order. */
  append<D extends DescMessage>(event: NewEvent<D>): void;
  /** Plans a job, or moves the one of this kind and key to another time with fresh attempts; also from within its own run. */
  schedule(job: NewJob): void;
  /** Takes a job back if it has not run; one that is running finishes, and is not tried again. */
  unschedule(job: JobName): void;
  /**
   * Stores the answer of a claimed command (see `Database.claim`). The transaction fails when it waits for none; where a lock, or the condition of a change
   * in this transaction, keeps it waiting, that is sure and not looked at again.
   */
  answer<D extends DescMessage>(requestKey: string, schema: D, message: MessageInitShape<D>, waits?: "surely"): void;
  /** Stores an error as the answer of a claimed command: repeats get the same code, reason and metadata. */
  answerError(requestKey: string, error: ConnectError, waits?: "surely"): void;
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
  readonly answered: readonly StoredAnswer[];
  readonly changes: readonly VersionChange[];
  readonly afterCommit: readonly (() => void)[];
}

/** What became of a claimed command. */
export interface StoredAnswer {
  readonly key: string;
  readonly state: "answered" | "failed" | "forgotten";
  readonly answer: Uint8Array | null;
}

type Answer = StoredAnswer;

interface Options {
  service: string;
  sql: ControlledTransaction<RuntimeTables>;
  forkEntityManager: () => SqlEntityManager;
  now: number;
  /** The trace of the call, where nobody watches traces: it is passed on as it came. */
  traceparent: string;
  observer: Observer | undefined;
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
  /** Commands that wait for an answer: they began in this transaction, or somebody saw it under a lock. */
  readonly #surelyWaiting = new Set<string>();

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

  together<const Q extends readonly Statement<unknown>[]>(...queries: Q): Promise<Outcomes<Q>> {
    return executeTogether(this.sql, queries);
  }

  later(...queries: readonly Statement<unknown>[]): Promise<void> {
    return executeLater(
      this.sql,
      queries.map((each) => ({ query: compiledOf(each) })),
    );
  }

  must(each: Statement<unknown>, otherwise: () => Error): Promise<void> {
    const query = compiledOf(each);
    return executeLater(this.sql, [{ query, must: query.query.kind !== "InsertQueryNode", otherwise }]);
  }

  /** Notes that the command has begun, in this transaction: its key decides which of several tries is the first. */
  async begin(command: Pick<Command, "key" | "hash">): Promise<void> {
    this.#surelyWaiting.add(command.key);
    await this.must(insertPending(this.sql, command, this.now), () => new CommandKnown());
  }

  append<D extends DescMessage>(event: NewEvent<D>): void {
    checkLength("the aggregate's type", event.aggregateType, 32);
    checkLength("the aggregate's id", event.aggregateId, 64);
    const eventId = newId();
    const { aggregateId, schema } = event;
    const traceparent = this.#options.observer?.eventTold({ eventId, type: schema.typeName, aggregateId });
    this.#events.push({ event: event as unknown as NewEvent, eventId, traceparent: traceparent || this.#traceparent });
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

  answer<D extends DescMessage>(requestKey: string, schema: D, message: MessageInitShape<D>, waits?: "surely"): void {
    const whole = create(schema, message);
    const answer = toBinary(schema, whole);
    // Who hands it on as it is need not write it again.
    rememberBytes(whole, answer);
    this.#answers.push({ key: requestKey, state: "answered", answer });
    this.#waiting(requestKey, waits);
  }

  answerError(requestKey: string, error: ConnectError, waits?: "surely"): void {
    this.#answers.push({ key: requestKey, state: "failed", answer: writeError(error) });
    this.#waiting(requestKey, waits);
  }

  #waiting(requestKey: string, waits: "surely" | undefined): void {
    if (waits !== undefined) {
      this.#surelyWaiting.add(requestKey);
    }
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

  /**
   * Writes everything collected, in an order of keys that is the same in every transaction, so that none deadlock. What must be looked at goes in one round
   * trip, the rest with the commit.
   */
  async finish(): Promise<Committed> {
    await this.#em?.flush();
    const jobs = [...this.#jobs].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, job]) => job);
    const planned = jobs.filter((job) => "dueTime" in job);
    const erased = jobs.filter((job) => !("dueTime" in job));
    const sequences = this.#sequences();
    for (const answer of this.#answers) {
      await this.#write(answer);
    }
    const outcomes = await this.#together([
      ...erased.map((job) => eraseJob(this.sql, job, this.now)),
      ...sequences.map((taken) => takeNumbers(this.sql, taken)),
    ]);
    const running = outcomes
      .splice(0, erased.length)
      .flatMap(({ changed }, index) => (changed === 0n ? (erased[index] as JobName) : []));
    await this.later(
      ...running.map((job) => endJobLater(this.sql, job)),
      ...planned.map((job) => planJob(this.sql, job)),
      ...this.#outboxInserts(sequences, outcomes),
    );
    return {
      appended: this.#events.length > 0,
      changes: this.#changes,
      earliestDueTime: planned.length === 0 ? undefined : Math.min(...planned.map((job) => job.dueTime)),
      answered: this.#answers,
      afterCommit: this.#afterCommit,
    };
  }

  async #together(queries: readonly Statement<unknown>[]): Promise<Outcome<unknown>[]> {
    return queries.length === 0 ? [] : [...(await executeTogether(this.sql, queries))];
  }

  async #write({ key, state, answer }: Answer): Promise<void> {
    if (state === "forgotten") {
      await this.later(this.sql.deleteFrom("replay").where("request_key", "=", key).where("state", "=", "pending"));
      return;
    }
    const update = updateRow(this.sql, "replay", { state, answer }, { request_key: key, state: "pending" });
    if (this.#surelyWaiting.has(key)) {
      await this.later(update);
    } else {
      const why = `the command "${key}" is not waiting for an answer: it was never claimed, or has one already.`;
      await this.must(update, () => new Error(why));
    }
  }

  /** The aggregates that events were appended to, and how many to each. */
  #sequences(): Taken[] {
    const counts = new Map<string, { type: string; id: string; count: number }>();
    for (const { event } of this.#events) {
      if (event.sequence != null) {
        continue;
      }
      const name = nameOf(event);
      const entry = counts.get(name) ?? { type: event.aggregateType, id: event.aggregateId, count: 0 };
      entry.count++;
      counts.set(name, entry);
    }
    return [...counts].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, entry]) => entry);
  }

  #outboxInserts(sequences: readonly Taken[], outcomes: readonly Outcome<unknown>[]): Statement<unknown>[] {
    const next = new Map(
      sequences.map(({ type, id, count }, index) => [`${type}/${id}`, lastNumber(outcomes[index] as Outcome<unknown>) - count + 1]),
    );
    const rows = this.#events.map(({ event, eventId, traceparent }) => {
      const name = nameOf(event);
      const sequence = event.sequence ?? (next.get(name) as number);
      next.set(name, sequence + 1);
      return this.#outboxRow(event, eventId, sequence, traceparent);
    });
    const inserts: Statement<unknown>[] = [];
    // SQLite and MySQL bound the parameters of a statement.
    for (let start = 0; start < rows.length; start += OUTBOX_ROWS) {
      inserts.push(insertRows(this.sql, "outbox", rows.slice(start, start + OUTBOX_ROWS)));
    }
    return inserts;
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

function nameOf({ aggregateType, aggregateId }: NewEvent): string {
  return `${aggregateType}/${aggregateId}`;
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
  return Number.parseInt(hash("md5", aggregateId, "hex").slice(0, 2), 16) % PARTITIONS;
}
