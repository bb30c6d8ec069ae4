import { Code } from "@connectrpc/connect";
import type { Kysely } from "kysely";
import { fail, reason, reasonOf } from "#runtime/errors.ts";
import type { DeadLetterTable, RuntimeTables } from "./tables.ts";
import type { Transaction } from "./transaction.ts";

/** There is no dead letter of this id that waits for a person. */
export const DEAD_LETTER_NOT_FOUND = reason(
  "DEAD_LETTER_NOT_FOUND",
  Code.NotFound,
  "There is no dead letter of this id that waits for a decision.",
);

/** The kind of the job that goes on with an aggregate's events after a failure. Its key is `<consumer>/<aggregate type>/<aggregate id>`. */
export const RESUME_EVENTS = "runtime.resume-events";

const MESSAGE_MAX = 2_000;

/** Work that used up its attempts, and all a person needs to decide about it. */
export interface DeadLetter {
  readonly deadLetterId: string;
  /** "event": a consumer could not apply it; later events of the aggregate wait behind it. "job": a job, or a saga's step. */
  readonly kind: "event" | "job";
  /** The consumer, or the job's kind. */
  readonly handler: string;
  /** `<aggregate type>/<aggregate id>`, or the job's key. */
  readonly subject: string;
  /** The event's number within its aggregate; 0 for a job. */
  readonly sequence: number;
  /** The event's type name and id; empty for a job. */
  readonly eventType: string;
  readonly eventId: string;
  /** The serialized `marketplace.event.v1.Event`; absent for a job. */
  readonly event?: Uint8Array;
  readonly attempts: number;
  readonly firstAttemptTime: number;
  readonly lastAttemptTime: number;
  /** The last failure: its reason (empty when it had none) and at most 2,000 characters of its message. */
  readonly reason: string;
  readonly message: string;
  /** The trace of the command that caused the event; empty when there was none. */
  readonly traceparent: string;
}

/** The dead letters that wait for a person, oldest first; `after` is the id of the last one of the page before. */
export async function listDeadLetters(sql: Kysely<RuntimeTables>, page: { limit: number; after?: string }): Promise<DeadLetter[]> {
  let query = sql.selectFrom("dead_letter").selectAll().where("state", "=", "open");
  if (page.after !== undefined) {
    query = query.where("dead_letter_id", ">", page.after);
  }
  const rows = await query.orderBy("dead_letter_id").limit(page.limit).execute();
  return rows.map(toDeadLetter);
}

/**
 * Tries a dead letter again, with all its attempts: a job is scheduled anew; an event is applied, and then those that wait behind it.
 *
 * @throws ConnectError DEAD_LETTER_NOT_FOUND
 */
export async function retryDeadLetter(tx: Transaction, deadLetterId: string, by: string): Promise<void> {
  const letter = await openLetter(tx, deadLetterId);
  if (letter.kind === "job") {
    await settle(tx, deadLetterId, { state: "resolved", resolve_time: tx.now, resolved_by: by, note: "tried again" });
    tx.schedule({ kind: letter.handler, key: letter.subject, dueTime: tx.now });
  } else {
    await settle(tx, deadLetterId, { state: "retrying", attempts: 0, resolved_by: by });
    scheduleResume(tx, letter.handler, letter.subject, tx.now);
  }
}

/**
 * Gives a dead letter up for good; who and why is kept. The events behind a discarded one are then applied without it.
 *
 * @throws ConnectError DEAD_LETTER_NOT_FOUND
 */
export async function discardDeadLetter(tx: Transaction, deadLetterId: string, by: string, note: string): Promise<void> {
  const letter = await openLetter(tx, deadLetterId);
  await settle(tx, deadLetterId, { state: "discarded", resolve_time: tx.now, resolved_by: by, note });
  if (letter.kind === "event") {
    scheduleResume(tx, letter.handler, letter.subject, tx.now);
  }
}

/** Plans the job that goes on with the events of an aggregate. */
export function scheduleResume(tx: Transaction, consumer: string, subject: string, dueTime: number): void {
  tx.schedule({ kind: RESUME_EVENTS, key: `${consumer}/${subject}`, dueTime });
}

/** What a failure leaves in a dead letter: the reason, and the message cut to its bound. */
export function describeFailure(error: unknown): { reason: string; message: string } {
  const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return { reason: reasonOf(error) ?? "", message: text.slice(0, MESSAGE_MAX) };
}

async function openLetter(tx: Transaction, deadLetterId: string) {
  const letter = await tx.sql
    .selectFrom("dead_letter")
    .select(["kind", "handler", "subject"])
    .where("dead_letter_id", "=", deadLetterId)
    .where("state", "=", "open")
    .executeTakeFirst();
  return letter ?? fail(DEAD_LETTER_NOT_FOUND, { metadata: { dead_letter_id: deadLetterId } });
}

async function settle(tx: Transaction, deadLetterId: string, change: Partial<DeadLetterTable>): Promise<void> {
  const result = await tx.sql
    .updateTable("dead_letter")
    .set(change)
    .where("dead_letter_id", "=", deadLetterId)
    .where("state", "=", "open")
    .executeTakeFirst();
  if (result.numUpdatedRows !== 1n) {
    fail(DEAD_LETTER_NOT_FOUND, { metadata: { dead_letter_id: deadLetterId } });
  }
}

function toDeadLetter(row: DeadLetterTable): DeadLetter {
  return {
    deadLetterId: row.dead_letter_id,
    kind: row.kind,
    handler: row.handler,
    subject: row.subject,
    sequence: row.sequence,
    eventType: row.event_type,
    eventId: row.event_id,
    ...(row.event === null ? {} : { event: row.event }),
    attempts: row.attempts,
    firstAttemptTime: row.first_attempt_time ?? row.create_time,
    lastAttemptTime: row.last_attempt_time ?? row.create_time,
    reason: row.reason,
    message: row.message,
    traceparent: row.traceparent,
  };
}
