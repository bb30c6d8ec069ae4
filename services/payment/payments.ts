import type { DescMessage } from "@bufbuild/protobuf";
import {
  EscrowReleasedSchema,
  PaymentAuthorizedSchema,
  PaymentCapturedSchema,
  PaymentDeclinedSchema,
  PaymentExpiredSchema,
  PaymentRefundedSchema,
  PaymentVoidedSchema,
} from "#gen/marketplace/payment/v1/events_pb.ts";
import { compiledFor, insertRow, insertRows, updateRow } from "#runtime/database/compiled.ts";
import type { PaymentLineRow, PaymentRow, PaymentTransaction } from "./entities.ts";
import { feeOf, type Schedule, scheduleAt } from "./fees.ts";
import { endTransfer, type NewTransfer, openSellerAccount, platformAccount, recordTransfers, transferIdOf } from "./ledger.ts";
import { paymentMessage } from "./messages.ts";
import { assertTransition, type PaymentStateName, paymentTransitions, type Step, stepsOf } from "./states.ts";

/** How long an authorization holds. The processor drops it about then, too. */
export const AUTHORIZATION_MS = 7 * 24 * 3600 * 1000;
/** The job that looks after a payment: finds out what became of a step whose answer is not recorded, or ends an authorization. Its key is the payment. */
export const RESOLVE_JOB = "payment.resolve";
/** The job of older programs for what RESOLVE_JOB does by now: it ends an authorization that was not captured in time. */
export const EXPIRE_JOB = "payment.expire";
/** When a step that has begun is looked after by the job: its own process is through with it or dead by then. */
export const RESOLVE_AFTER_MS = 20_000;

/** Another transaction changed the payment first: read it again. */
export class Stale extends Error {}

/** What may change on a payment's row. */
export type PaymentChange = Partial<
  Pick<
    PaymentRow,
    | "state"
    | "step"
    | "step_time"
    | "step_request_id"
    | "request_key"
    | "fee_minor"
    | "confirmation_url"
    | "decline_reason"
    | "authorization_expire_time"
    | "watch_time"
  >
>;

/** The payment's row as the transaction sees it. */
export function findPayment(sql: PaymentTransaction["sql"], paymentId: string): Promise<PaymentRow | undefined> {
  return sql.executeQuery(paymentOf(sql, { paymentId })).then(({ rows }) => rows[0]);
}

const paymentOf = compiledFor((sql: PaymentTransaction["sql"], at: { paymentId: string }) =>
  sql.selectFrom("payment").selectAll().where("payment_id", "=", at.paymentId),
);

/** A payment's lines in their order. */
export function findLines(sql: Pick<PaymentTransaction["sql"], "selectFrom">, paymentId: string): Promise<PaymentLineRow[]> {
  return sql.selectFrom("payment_line").selectAll().where("payment_id", "=", paymentId).orderBy("line_number").execute();
}

/** Whether the row only remembers that a payment was voided before it came to be. */
export function isTombstone(row: Pick<PaymentRow, "order_id">): boolean {
  return row.order_id === "";
}

/** Inserts a payment. The primary key decides between two that do: the transaction fails with Stale when it was there first. */
export async function insertPayment(tx: PaymentTransaction, row: PaymentRow, lines: readonly PaymentLineRow[]): Promise<void> {
  await tx.must(insertRow(tx.sql, "payment", row), () => new Stale());
  if (lines.length > 0) {
    await tx.later(insertRows(tx.sql, "payment_line", lines));
  }
}

/**
 * Changes a payment that is still as it was read, and tells `event`: state, step and version decide. Gives the row as it then is; the transaction fails with
 * Stale when another one was first.
 */
export async function changePayment(
  tx: PaymentTransaction,
  row: PaymentRow,
  given: PaymentChange,
  event?: DescMessage,
): Promise<PaymentRow> {
  const counts = event !== undefined && row.event_sequence != null;
  const change = { ...given, ...(counts ? { event_sequence: (row.event_sequence as number) + 1 } : {}) };
  const next: PaymentRow = { ...row, ...change, update_time: tx.now, version: row.version + 1 };
  if (next.state !== row.state) {
    assertTransition<PaymentStateName>(paymentTransitions, row.state, next.state);
  }
  if (!stepsOf[next.state].includes(next.step)) {
    throw new Error(`a payment that is ${next.state} has no step ${next.step}.`);
  }
  const set = { ...change, update_time: next.update_time, version: next.version };
  const { payment_id, state, step, version } = row;
  await tx.must(updateRow(tx.sql, "payment", set, { payment_id, state, step, version }), () => new Stale());
  if (event !== undefined) {
    tell(tx, event, next);
  }
  return next;
}

/** Records that the processor is about to be asked, and when the job looks after it if this process dies. */
export async function beginStep(
  tx: PaymentTransaction,
  row: PaymentRow,
  step: Exclude<Step, "">,
  command: { requestId: string; requestKey: string | null },
  change: PaymentChange = {},
  event?: DescMessage,
): Promise<PaymentRow> {
  const begun = { step, step_time: tx.now, step_request_id: command.requestId, request_key: command.requestKey };
  return changePayment(tx, row, { ...change, ...begun, watch_time: tx.now + RESOLVE_AFTER_MS }, event);
}

const ENDED_STEP = { step: "", request_key: null, watch_time: null } as const;

/** The processor promised the money: a pending transfer into escrow, until it is captured or runs out. */
export async function recordAuthorized(tx: PaymentTransaction, row: PaymentRow): Promise<PaymentRow> {
  const expireTime = tx.now + AUTHORIZATION_MS;
  const change = { state: "AUTHORIZED", confirmation_url: "", authorization_expire_time: expireTime } as const;
  const ended = { ...ENDED_STEP, ...change, watch_time: expireTime };
  const next = await changePayment(tx, row, ended, PaymentAuthorizedSchema);
  await recordTransfers(tx, [{ ...intoEscrow(row), state: "PENDING" }]);
  return next;
}

/** The processor wants the buyer to confirm. */
export function recordAwaitingConfirmation(tx: PaymentTransaction, row: PaymentRow, confirmationUrl: string): Promise<PaymentRow> {
  return changePayment(tx, row, { ...ENDED_STEP, state: "AWAITING_CONFIRMATION", confirmation_url: confirmationUrl });
}

/** The processor refused. */
export function recordDeclined(tx: PaymentTransaction, row: PaymentRow, declineReason: string): Promise<PaymentRow> {
  const change = { state: "DECLINED", confirmation_url: "", decline_reason: declineReason } as const;
  return changePayment(tx, row, { ...ENDED_STEP, ...change }, PaymentDeclinedSchema);
}

/** The processor took the money: the pending transfer is posted. */
export async function recordCaptured(tx: PaymentTransaction, row: PaymentRow): Promise<PaymentRow> {
  const next = await changePayment(tx, row, { ...ENDED_STEP, state: "CAPTURED" }, PaymentCapturedSchema);
  // As it was made: nothing in a transfer ever changes but its end.
  await endTransfer(tx, intoEscrow(row), "POSTED");
  return next;
}

/** The processor gave the money back. */
export async function recordRefunded(tx: PaymentTransaction, row: PaymentRow): Promise<PaymentRow> {
  const next = await changePayment(tx, row, { ...ENDED_STEP, state: "REFUNDED" }, PaymentRefundedSchema);
  await recordTransfers(tx, [
    {
      ...intoEscrow(row),
      transferId: transferIdOf(row.payment_id, "REFUND"),
      kind: "REFUND",
      state: "POSTED",
      debitAccountId: platformAccount("ESCROW", row.currency_code, row.order_id),
      creditAccountId: platformAccount("PROCESSOR", row.currency_code, row.order_id),
    },
  ]);
  return next;
}

/**
 * Drops a payment before capture, and begins to drop it at the processor. From here on no money is promised, whatever became of the
 * authorization there.
 */
export async function dropPayment(
  tx: PaymentTransaction,
  row: PaymentRow,
  to: "VOIDED" | "EXPIRED",
  command: { requestId: string; requestKey: string | null },
): Promise<PaymentRow> {
  const event = to === "VOIDED" ? PaymentVoidedSchema : PaymentExpiredSchema;
  const next = await beginStep(tx, row, "VOID", command, { state: to, confirmation_url: "" }, event);
  await endPending(tx, row, to);
  return next;
}

/** The processor says at capture that the authorization is gone. */
export async function recordExpired(tx: PaymentTransaction, row: PaymentRow): Promise<PaymentRow> {
  const next = await changePayment(tx, row, { ...ENDED_STEP, state: "EXPIRED" }, PaymentExpiredSchema);
  await endPending(tx, row, "EXPIRED");
  return next;
}

async function endPending(tx: PaymentTransaction, row: PaymentRow, to: "VOIDED" | "EXPIRED"): Promise<void> {
  if (row.state === "AUTHORIZED") {
    await endTransfer(tx, intoEscrow(row), to);
  }
}

/** Nothing is left to be dropped at the processor. */
export function recordDropped(tx: PaymentTransaction, row: PaymentRow): Promise<PaymentRow> {
  return changePayment(tx, row, ENDED_STEP);
}

/**
 * Releases escrow: each line's fee by the schedule that was in force when its listing was published, the rest to the seller.
 *
 * @throws Stale when another transaction was first.
 */
export async function releaseEscrow(
  tx: PaymentTransaction,
  row: PaymentRow,
  schedules: readonly Schedule[],
  requestId: string,
): Promise<PaymentRow> {
  const currency = row.currency_code;
  const lines = (await findLines(tx.sql, row.payment_id)).map((line) => ({ line, fee: feeOfLine(schedules, line, currency) }));
  const feeMinor = lines.reduce((sum, { fee }) => sum + fee, 0n);
  const next = await changePayment(tx, row, { state: "RELEASED", fee_minor: feeMinor }, EscrowReleasedSchema);
  const seller = await openSellerAccount(tx, currency, row.seller_id);
  const fromEscrow = (kind: "SALE" | "FEE", line: PaymentLineRow, amountMinor: bigint): NewTransfer => ({
    ...intoEscrow(row),
    transferId: transferIdOf(row.payment_id, kind, line.line_number),
    kind,
    state: "POSTED",
    debitAccountId: platformAccount("ESCROW", currency, row.order_id),
    creditAccountId: kind === "SALE" ? seller : platformAccount("FEES", currency, row.order_id),
    amountMinor,
    requestId,
  });
  await recordTransfers(
    tx,
    lines
      .flatMap(({ line, fee }) => [fromEscrow("SALE", line, line.amount_minor - fee), fromEscrow("FEE", line, fee)])
      .filter((transfer) => transfer.amountMinor > 0n),
  );
  return next;
}

function feeOfLine(schedules: readonly Schedule[], line: PaymentLineRow, currencyCode: string): bigint {
  const schedule = scheduleAt(schedules, line.listing_time);
  if (schedule === undefined) {
    throw new Error(`no fee schedule was in force at ${line.listing_time}: AuthorizePayment lets no such line in.`);
  }
  return feeOf(schedule, line.amount_minor, currencyCode);
}

function intoEscrow(row: PaymentRow): Omit<NewTransfer, "state"> {
  return {
    transferId: transferIdOf(row.payment_id, "CAPTURE"),
    kind: "CAPTURE",
    debitAccountId: platformAccount("PROCESSOR", row.currency_code, row.order_id),
    creditAccountId: platformAccount("ESCROW", row.currency_code, row.order_id),
    currencyCode: row.currency_code,
    amountMinor: row.amount_minor,
    orderId: row.order_id,
    paymentId: row.payment_id,
    payoutId: "",
    requestId: row.step_request_id,
  };
}

type PaymentEvent = DescMessage & { readonly field: Record<"payment", unknown> };

function tell(tx: PaymentTransaction, schema: DescMessage, row: PaymentRow): void {
  tx.append<PaymentEvent>({
    aggregateType: "payment",
    aggregateId: row.payment_id,
    schema: schema as PaymentEvent,
    message: { payment: paymentMessage(row) } as never,
    sequence: row.event_sequence,
  });
}
