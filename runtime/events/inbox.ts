import { type DescMessage, fromBinary, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { type Event, EventSchema } from "#gen/marketplace/event/v1/event_pb.ts";
import type { Database } from "#runtime/database/database.ts";
import { describeFailure, scheduleResume } from "#runtime/database/dead-letters.ts";
import { isContention, isUniqueViolation } from "#runtime/database/errors.ts";
import type { DeadLetterTable } from "#runtime/database/tables.ts";
import { eventScope, type Transaction } from "#runtime/database/transaction.ts";
import { reasonOf } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { type Subscription, takenEvent, typeOf } from "./bus.ts";

const MAX_ATTEMPTS = 5;
const BACKOFF_MS = 200;
const BACKOFF_MAX_MS = 60_000;
/** The states of letters that hold back later events of their aggregate. */
const WAITING = ["retrying", "open", "held"] as const;

/** What a consumer does with one type of event. */
export interface EventHandler<Tables = unknown> {
  readonly schema: DescMessage;
  apply(tx: Transaction<Tables>, event: Event): Promise<void>;
}

/**
 * Handles one type of event: `effect` runs in the transaction that also notes the event as taken, so it happens exactly once. No network call in it: schedule
 * a job for that.
 */
export function on<D extends DescMessage, Tables = unknown>(
  schema: D,
  effect: (tx: Transaction<Tables>, message: MessageShape<D>, event: Event) => Promise<void>,
): EventHandler<Tables> {
  return {
    schema,
    async apply(tx, event) {
      const message = event.payload && anyUnpack(event.payload, schema);
      if (message === undefined) {
        throw new Error(`the event ${event.eventId} does not hold a ${schema.typeName}.`);
      }
      await effect(tx, message, event);
    },
  };
}

/** What a consumer is made of. */
export interface InboxConsumerOptions<Tables> {
  readonly database: Database<Tables>;
  /** Unique on the platform, by convention `<service>.<purpose>`; no slash, at most 64 characters. Never changed: it names what was taken. */
  readonly name: string;
  readonly on: readonly EventHandler<Tables>[];
  /** Events applied in one transaction at most; 100 unless given. */
  readonly batchSize?: number;
  /** Tries of one event before a person is asked; 5 unless given. */
  readonly maxAttempts?: number;
}

/**
 * A consumer whose effect is in its service's database. Dedupe row and effect are one transaction; a batch shares one, and falls back to one by one when
 * something in it fails.
 *
 * An event that fails is put aside with its aggregate: it is tried again by a job with growing pauses, and after its attempts waits as a dead
 * letter for a person. Later events of that aggregate are held behind it, because order matters there; other aggregates go on at once.
 */
export function inboxConsumer<Tables>(options: InboxConsumerOptions<Tables>): Subscription {
  if (!/^[a-z][a-z0-9._-]{0,63}$/.test(options.name)) {
    throw new Error(`the consumer's name "${options.name}" is not made of lower-case letters, digits, dots and hyphens.`);
  }
  const inbox = new Inbox(options as unknown as InboxConsumerOptions<unknown>);
  return {
    consumer: options.name,
    service: options.database.service,
    types: options.on.map((handler) => handler.schema.typeName),
    ...(options.batchSize === undefined ? {} : { batchSize: options.batchSize }),
    watchesItself: true,
    handle: (events) => inbox.handle(events),
    resume: (subject) => inbox.resume(subject),
  };
}

class Inbox {
  readonly #database: Database;
  readonly #name: string;
  readonly #handlers: ReadonlyMap<string, EventHandler>;
  readonly #maxAttempts: number;

  constructor(options: InboxConsumerOptions<unknown>) {
    this.#database = options.database;
    this.#name = options.name;
    this.#handlers = new Map(options.on.map((handler) => [handler.schema.typeName, handler]));
    this.#maxAttempts = options.maxAttempts ?? MAX_ATTEMPTS;
  }

  async handle(events: readonly Event[]): Promise<void> {
    try {
      return await this.#take(events);
    } catch {
      // One by one, the failing event shows itself, and a batch that takes longer than a transaction may still gets through.
    }
    for (const event of events) {
      try {
        await this.#take([event]);
      } catch (error) {
        if (isOutside(error)) {
          throw error;
        }
        // Another process has just taken it: the next try finds its note.
        await (isUniqueViolation(error) && (await this.#isTaken(event)) ? undefined : this.#putAside(event, error));
      }
    }
  }

  /** Applies what is new, all in one transaction. */
  async #take(events: readonly Event[]): Promise<void> {
    const once = [...new Map(events.map((event) => [event.eventId, event])).values()];
    await this.#database.transaction(async (tx) => {
      const taken = await this.#taken(tx, once);
      const fresh = once.filter((event) => !taken.has(event.eventId));
      const blocked = fresh.length === 0 ? new Set<string>() : await this.#blocked(tx, fresh);
      for (const event of fresh) {
        if (blocked.has(subjectOf(event))) {
          await this.#insertLetter(tx, event, { state: "held", attempts: 0 });
        } else {
          await this.#apply(tx, event);
        }
      }
      if (fresh.length > 0) {
        await this.#noteTaken(tx, fresh);
      }
    });
  }

  async #apply(tx: Transaction, event: Event): Promise<void> {
    const handler = this.#handlers.get(typeOf(event));
    if (handler === undefined) {
      throw new Error(`the consumer "${this.#name}" has no handler for ${typeOf(event)}.`);
    }
    const apply = () => eventScope(tx, event.traceparent, () => handler.apply(tx, event));
    const { observer } = this.#database;
    await (observer === undefined ? apply() : observer.eventsApplied(this.#name, [takenEvent(event)], apply));
  }

  async #taken(tx: Transaction, events: readonly Event[]): Promise<Set<string>> {
    const rows = await tx.sql
      .selectFrom("inbox")
      .select("event_id")
      .where("consumer", "=", this.#name)
      .where(
        "event_id",
        "in",
        events.map((event) => event.eventId),
      )
      .execute();
    return new Set(rows.map((row) => row.event_id));
  }

  async #isTaken(event: Event): Promise<boolean> {
    return this.#database.transaction(async (tx) => (await this.#taken(tx, [event])).size > 0);
  }

  async #noteTaken(tx: Transaction, events: readonly Event[]): Promise<void> {
    const rows = events.map((event) => ({ consumer: this.#name, event_id: event.eventId, take_time: tx.now }));
    await tx.sql.insertInto("inbox").values(rows).execute();
  }

  /** The aggregates among the events that wait behind a failure. */
  async #blocked(tx: Transaction, events: readonly Event[]): Promise<Set<string>> {
    const subjects = [...new Set(events.map(subjectOf))].sort();
    const waiting = () =>
      tx.sql
        .selectFrom("dead_letter")
        .select("subject")
        .distinct()
        .where("handler", "=", this.#name)
        .where("subject", "in", subjects)
        .where("state", "in", WAITING)
        .execute();
    const found = await waiting();
    if (found.length === 0) {
      return new Set();
    }
    // Locks the letters that block: else the last of them could be resolved just now, and nobody would come for what is held behind it.
    await tx.sql
      .updateTable("dead_letter")
      .set((eb) => ({ attempts: eb.ref("attempts") }))
      .where("handler", "=", this.#name)
      .where(
        "subject",
        "in",
        found.map((row) => row.subject),
      )
      .where("state", "in", WAITING)
      .execute();
    return new Set((await waiting()).map((row) => row.subject));
  }

  async #putAside(event: Event, error: unknown): Promise<void> {
    await this.#database.transaction(async (tx) => {
      const dueTime = await this.#insertLetter(tx, event, { state: "retrying", attempts: 1, error });
      await this.#noteTaken(tx, [event]);
      if (dueTime !== undefined) {
        scheduleResume(tx, this.#name, subjectOf(event), dueTime);
      }
    });
  }

  /** Writes the letter of an event; gives the time of its next attempt, if it has one. */
  async #insertLetter(
    tx: Transaction,
    event: Event,
    what: { state: "retrying" | "held"; attempts: number; error?: unknown },
  ): Promise<number | undefined> {
    const exhausted = what.attempts >= this.#maxAttempts;
    const tried = what.attempts > 0 ? tx.now : null;
    await tx.sql
      .insertInto("dead_letter")
      .values({
        dead_letter_id: newId(),
        kind: "event",
        state: exhausted ? "open" : what.state,
        handler: this.#name,
        subject: subjectOf(event),
        sequence: Number(event.sequence),
        event: toBinary(EventSchema, event),
        event_type: typeOf(event),
        event_id: event.eventId,
        attempts: what.attempts,
        create_time: tx.now,
        first_attempt_time: tried,
        last_attempt_time: tried,
        ...(what.error === undefined ? { reason: "", message: "" } : describeFailure(what.error)),
        traceparent: event.traceparent,
        resolve_time: null,
        resolved_by: null,
        note: null,
      })
      .execute();
    if (exhausted) {
      this.#report(event, what.attempts, what.error);
    }
    return exhausted || what.state === "held" ? undefined : tx.now + backoffMs(what.attempts);
  }

  /** Applies the events of an aggregate that were put aside, in order, until one fails or waits for a person. */
  async resume(subject: string): Promise<void> {
    for (;;) {
      const letter = await this.#firstLetter(subject);
      if (letter === undefined || letter.state === "open") {
        return;
      }
      try {
        await this.#applyLetter(letter);
      } catch (error) {
        if (isOutside(error)) {
          throw error;
        }
        await this.#noteFailure(letter, error);
        return;
      }
    }
  }

  #firstLetter(subject: string) {
    return this.#database.sql
      .selectFrom("dead_letter")
      .selectAll()
      .where("handler", "=", this.#name)
      .where("subject", "=", subject)
      .where("state", "in", WAITING)
      .orderBy("sequence")
      .limit(1)
      .executeTakeFirst();
  }

  async #applyLetter(letter: DeadLetterTable): Promise<void> {
    await this.#database.transaction(async (tx) => {
      const result = await tx.sql
        .updateTable("dead_letter")
        .set({ state: "resolved", resolve_time: tx.now })
        .where("dead_letter_id", "=", letter.dead_letter_id)
        .where("state", "=", letter.state)
        .executeTakeFirst();
      if (result.numUpdatedRows === 1n) {
        await this.#apply(tx, fromBinary(EventSchema, letter.event ?? new Uint8Array()));
      }
    });
  }

  async #noteFailure(letter: DeadLetterTable, error: unknown): Promise<void> {
    const attempts = letter.attempts + 1;
    const exhausted = attempts >= this.#maxAttempts;
    await this.#database.transaction(async (tx) => {
      await tx.sql
        .updateTable("dead_letter")
        .set({
          state: exhausted ? "open" : "retrying",
          attempts,
          first_attempt_time: letter.first_attempt_time ?? tx.now,
          last_attempt_time: tx.now,
          ...describeFailure(error),
        })
        .where("dead_letter_id", "=", letter.dead_letter_id)
        .where("state", "=", letter.state)
        .execute();
      if (!exhausted) {
        scheduleResume(tx, this.#name, letter.subject, tx.now + backoffMs(attempts));
      }
    });
    if (exhausted) {
      this.#report({ eventId: letter.event_id }, attempts, error);
    }
  }

  #report(event: Pick<Event, "eventId">, attempts: number, error: unknown): void {
    this.#database.log.error(
      { consumer: this.#name, eventId: event.eventId, attempts, reason: reasonOf(error), err: error },
      "an event used up its attempts and waits for a person",
    );
  }
}

/** A failure of the surroundings rather than of the event: it must not use up the event's attempts. */
function isOutside(error: unknown): boolean {
  const message = error instanceof Error ? error.message : "";
  return (
    isContention(error) ||
    reasonOf(error) === "DEADLINE_EXCEEDED" ||
    reasonOf(error) === "UNAVAILABLE" ||
    /database is not open|driver has already been destroyed/.test(message)
  );
}

function subjectOf(event: Event): string {
  return `${event.aggregateType}/${event.aggregateId}`;
}

function backoffMs(attempts: number): number {
  return Math.min(BACKOFF_MAX_MS, BACKOFF_MS * 4 ** (attempts - 1));
}
