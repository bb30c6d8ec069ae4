import { hash } from "node:crypto";
import { toBinary } from "@bufbuild/protobuf";
import {
  type AuthorizePaymentRequest,
  AuthorizePaymentRequestSchema,
  type AuthorizePaymentResponseSchema,
  type CapturePaymentRequest,
  type CapturePaymentResponseSchema,
  type ConfirmPaymentRequest,
  type ConfirmPaymentResponseSchema,
  type RefundPaymentRequest,
  type RefundPaymentResponseSchema,
  type VoidPaymentRequest,
  type VoidPaymentResponseSchema,
} from "#gen/marketplace/payment/v1/payment_pb.ts";
import { fail, failure, INVALID_REQUEST, type Violation } from "#runtime/errors.ts";
import { answerWaiter, type Decision, declineError } from "./driver.ts";
import type { PaymentRow, PaymentTransaction } from "./entities.ts";
import {
  AUTHORIZATION_EXPIRED,
  MIXED_CURRENCIES,
  PAYMENT_CONFLICT,
  PAYMENT_DECLINED,
  PAYMENT_NOT_FOUND,
  PAYMENT_STATE_CONFLICT,
} from "./errors.ts";
import { type Schedule, scheduleAt } from "./fees.ts";
import { msOf, paymentMessage } from "./messages.ts";
import { beginStep, changePayment, dropPayment, findPayment, insertPayment, isTombstone, RESOLVE_AFTER_MS } from "./payments.ts";
import type { Step } from "./states.ts";

/** The most that one payment may come to, in minor units: what Money allows. */
export const PAYMENT_MAX_MINOR = 1_000_000_000_000n;

/** What AuthorizePayment asks for, checked. */
export interface Obligation {
  readonly request: AuthorizePaymentRequest;
  readonly currencyCode: string;
  readonly amountMinor: bigint;
  readonly lines: readonly { readonly listingId: string; readonly amountMinor: bigint; readonly listingTime: number }[];
  readonly contentHash: string;
}

/**
 * Reads an AuthorizePayment request, and checks what no field can check alone. Pure.
 *
 * @throws ConnectError MIXED_CURRENCIES; INVALID_REQUEST when the sum is too large, or a listing is older than all fee schedules.
 */
export function obligationOf(request: AuthorizePaymentRequest, schedules: readonly Schedule[]): Obligation {
  const currencyCode = request.lines[0]?.amount?.currencyCode ?? "";
  if (request.lines.some((line) => line.amount?.currencyCode !== currencyCode)) {
    fail(MIXED_CURRENCIES);
  }
  const lines = request.lines.map((line) => ({
    listingId: line.listingId,
    amountMinor: line.amount?.amountMinor ?? 0n,
    listingTime: line.listingTime === undefined ? 0 : msOf(line.listingTime),
  }));
  const amountMinor = lines.reduce((sum, line) => sum + line.amountMinor, 0n);
  const violations: Violation[] = lines.flatMap((line, index) =>
    scheduleAt(schedules, line.listingTime) === undefined
      ? [{ field: `lines[${index}].listing_time`, description: "is before the first fee schedule" }]
      : [],
  );
  if (amountMinor > PAYMENT_MAX_MINOR) {
    violations.push({ field: "lines", description: `must not sum up to more than ${PAYMENT_MAX_MINOR} minor units` });
  }
  if (violations.length > 0) {
    fail(INVALID_REQUEST, { violations });
  }
  const contentHash = hash("sha256", toBinary(AuthorizePaymentRequestSchema, { ...request, requestId: "" }), "hex");
  return { request, currencyCode, amountMinor, lines, contentHash };
}

/** AuthorizePayment in its transaction. */
export async function decideAuthorize(
  tx: PaymentTransaction,
  requestKey: string,
  obligation: Obligation,
  round: number,
): Promise<Decision<typeof AuthorizePaymentResponseSchema>> {
  const { request } = obligation;
  // The first time there is none, and the insert decides; it throws Stale where there is one, and the next round looks.
  const row = round === 0 ? undefined : await findPayment(tx.sql, request.paymentId);
  if (row === undefined) {
    return { kind: "begun", fresh: await insertObligation(tx, requestKey, obligation) };
  }
  if (isTombstone(row) || row.content_hash !== obligation.contentHash) {
    fail(PAYMENT_CONFLICT, { metadata: { payment_id: row.payment_id } });
  }
  if (row.state === "AUTHORIZING") {
    return join(tx, row, requestKey);
  }
  if (row.state === "DECLINED") {
    return { kind: "refuse", error: declineError(row.decline_reason) };
  }
  return { kind: "answer", message: { payment: paymentMessage(row) } };
}

async function insertObligation(tx: PaymentTransaction, requestKey: string, obligation: Obligation): Promise<PaymentRow> {
  const { request } = obligation;
  const paymentId = request.paymentId;
  const row: PaymentRow = {
    ...blankPayment(tx, paymentId),
    order_id: request.orderId,
    buyer_id: request.buyerId,
    seller_id: request.sellerId,
    state: "AUTHORIZING",
    step: "AUTHORIZE",
    step_request_id: request.requestId,
    request_key: requestKey,
    currency_code: obligation.currencyCode,
    amount_minor: obligation.amountMinor,
    payment_method_token: request.paymentMethodToken,
    content_hash: obligation.contentHash,
    watch_time: tx.now + RESOLVE_AFTER_MS,
  };
  await insertPayment(
    tx,
    row,
    obligation.lines.map((line, index) => ({
      payment_id: paymentId,
      line_number: index,
      listing_id: line.listingId,
      amount_minor: line.amountMinor,
      listing_time: line.listingTime,
    })),
  );
  return row;
}

function blankPayment(tx: PaymentTransaction, paymentId: string): PaymentRow {
  return {
    payment_id: paymentId,
    order_id: "",
    buyer_id: "",
    seller_id: "",
    state: "VOIDED",
    step: "",
    step_time: tx.now,
    step_request_id: "",
    request_key: null,
    currency_code: "",
    amount_minor: 0n,
    fee_minor: null,
    payment_method_token: "",
    confirmation_url: "",
    decline_reason: "",
    authorization_expire_time: null,
    content_hash: "",
    create_time: tx.now,
    update_time: tx.now,
    version: 1,
    event_sequence: 0,
    watch_time: null,
  };
}

/** ConfirmPayment in its transaction. An answer that the buyer has not confirmed yet is not kept: the same command asks again. */
export async function decideConfirm(
  tx: PaymentTransaction,
  request: ConfirmPaymentRequest,
  asked: boolean,
): Promise<Decision<typeof ConfirmPaymentResponseSchema>> {
  const row = await requirePayment(tx, request.paymentId);
  switch (row.state) {
    case "AUTHORIZING":
      return { kind: "ask" };
    case "AWAITING_CONFIRMATION":
      return asked ? { kind: "answer", final: false, message: { payment: paymentMessage(row) } } : { kind: "ask" };
    case "AUTHORIZED":
      return { kind: "answer", message: { payment: paymentMessage(row) } };
    case "DECLINED":
      return {
        kind: "refuse",
        error: failure(PAYMENT_DECLINED, { metadata: { decline_reason: row.decline_reason } }),
      };
    default:
      return stateConflict(row);
  }
}

/** CapturePayment in its transaction. Begins with the payment as it is `known`, if it still is so: that decides the write, and the next round looks. */
export async function decideCapture(
  tx: PaymentTransaction,
  requestKey: string,
  request: CapturePaymentRequest,
  known: PaymentRow | undefined,
): Promise<Decision<typeof CapturePaymentResponseSchema>> {
  if (known?.state === "AUTHORIZED" && known.step === "" && (known.authorization_expire_time ?? 0) > tx.now) {
    return begin(tx, known, "CAPTURE", request.requestId, requestKey);
  }
  const row = await requirePayment(tx, request.paymentId);
  switch (row.state) {
    case "AUTHORIZED":
      if (row.step === "CAPTURE") {
        return join(tx, row, requestKey);
      }
      if ((row.authorization_expire_time ?? 0) <= tx.now) {
        return fail(AUTHORIZATION_EXPIRED);
      }
      return begin(tx, row, "CAPTURE", request.requestId, requestKey);
    case "CAPTURED":
    case "RELEASED":
      return { kind: "answer", message: { payment: paymentMessage(row) } };
    case "EXPIRED":
      return fail(AUTHORIZATION_EXPIRED);
    default:
      return stateConflict(row);
  }
}

/**
 * VoidPayment in its transaction. A payment that does not exist is recorded as voided and the processor is not asked: a row is written before it is asked
 * for anything, and this one refuses to be written again. While a capture is under way nobody knows whether the payment can still be voided: that is
 * found out first.
 */
export async function decideVoid(
  tx: PaymentTransaction,
  requestKey: string,
  request: VoidPaymentRequest,
): Promise<Decision<typeof VoidPaymentResponseSchema>> {
  const row = await findPayment(tx.sql, request.paymentId);
  if (row === undefined) {
    await insertPayment(tx, { ...blankPayment(tx, request.paymentId), step_request_id: request.requestId }, []);
    return { kind: "answer", message: {} };
  }
  switch (row.state) {
    case "AUTHORIZING":
    case "AWAITING_CONFIRMATION":
    case "AUTHORIZED":
      if (row.step === "CAPTURE") {
        return { kind: "ask" };
      }
      return { kind: "begun", fresh: await voidedInstead(tx, row, request, requestKey) };
    case "VOIDED":
    case "EXPIRED":
      return row.step === "VOID" ? join(tx, row, requestKey) : { kind: "answer", message: {} };
    case "DECLINED":
      return { kind: "answer", message: {} };
    default:
      return stateConflict(row);
  }
}

/** Begins to void, and tells the command whose step this ends. */
async function voidedInstead(
  tx: PaymentTransaction,
  row: PaymentRow,
  request: VoidPaymentRequest,
  requestKey: string,
): Promise<PaymentRow> {
  const dropped = await dropPayment(tx, row, "VOIDED", { requestId: request.requestId, requestKey });
  answerWaiter(tx, row, dropped);
  return dropped;
}

/** RefundPayment in its transaction. A capture whose outcome is not known is finished first: what it took is what is given back. */
export async function decideRefund(
  tx: PaymentTransaction,
  requestKey: string,
  request: RefundPaymentRequest,
): Promise<Decision<typeof RefundPaymentResponseSchema>> {
  const row = await requirePayment(tx, request.paymentId);
  if (row.state === "AUTHORIZED" && row.step === "CAPTURE") {
    return { kind: "ask" };
  }
  if (row.state === "CAPTURED") {
    return row.step === "REFUND" ? join(tx, row, requestKey) : begin(tx, row, "REFUND", request.requestId, requestKey);
  }
  if (row.state === "REFUNDED") {
    return { kind: "answer", message: { payment: paymentMessage(row) } };
  }
  return stateConflict(row);
}

/**
 * The payment, which has to exist.
 *
 * @throws ConnectError PAYMENT_NOT_FOUND, also for one that was voided before it came to be.
 */
export async function requirePayment(tx: Pick<PaymentTransaction, "sql">, paymentId: string): Promise<PaymentRow> {
  const row = await findPayment(tx.sql, paymentId);
  return row === undefined || isTombstone(row) ? fail(PAYMENT_NOT_FOUND) : row;
}

/** Refuses what the payment's state does not allow. */
export function stateConflict(row: PaymentRow): never {
  return fail(PAYMENT_STATE_CONFLICT, { metadata: { state: row.state } });
}

async function begin(
  tx: PaymentTransaction,
  row: PaymentRow,
  step: Exclude<Step, "">,
  requestId: string,
  requestKey: string,
): Promise<{ kind: "begun"; fresh: PaymentRow }> {
  return { kind: "begun", fresh: await beginStep(tx, row, step, { requestId, requestKey }) };
}

/** Waits for a step that is under way: in the place of a command that gave up, or else by asking beside the one that has not. */
async function join(
  tx: PaymentTransaction,
  row: PaymentRow,
  requestKey: string,
): Promise<{ kind: "begun"; fresh: undefined } | { kind: "ask" }> {
  if (row.request_key != null) {
    return { kind: "ask" };
  }
  // The job that looked after the step may have used up its attempts.
  await changePayment(tx, row, { request_key: requestKey, watch_time: tx.now + RESOLVE_AFTER_MS });
  return { kind: "begun", fresh: undefined };
}
