import type { MessageInitShape } from "@bufbuild/protobuf";
import { type Timestamp, timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  type BalanceSchema,
  type PaymentSchema,
  PaymentState,
  type PayoutSchema,
  PayoutState,
  type StatementEntrySchema,
  TransferKind,
  type TransferSchema,
  TransferState,
} from "#gen/marketplace/payment/v1/payment_pb.ts";
import type { MoneySchema } from "#gen/marketplace/type/v1/money_pb.ts";
import type { LedgerAccountRow, LedgerTransferRow, PaymentRow, PayoutRow, StatementEntryRow } from "./entities.ts";

/** A timestamp in milliseconds, rounded down: what lies before a schedule's time must not be rounded up to it. */
export function msOf(timestamp: Timestamp): number {
  return Number(timestamp.seconds) * 1000 + Math.floor(timestamp.nanos / 1_000_000);
}

/** Money as the contract has it. */
export function moneyOf(currencyCode: string, amountMinor: bigint): MessageInitShape<typeof MoneySchema> {
  return { currencyCode, amountMinor };
}

/** A payment as the contract has it. Not for one that was voided before it came to be: it has no order. */
export function paymentMessage(row: PaymentRow): MessageInitShape<typeof PaymentSchema> {
  return {
    paymentId: row.payment_id,
    orderId: row.order_id,
    buyerId: row.buyer_id,
    sellerId: row.seller_id,
    state: PaymentState[row.state],
    amount: moneyOf(row.currency_code, row.amount_minor),
    ...(row.fee_minor == null ? {} : { fee: moneyOf(row.currency_code, row.fee_minor) }),
    confirmationUrl: row.confirmation_url,
    declineReason: row.decline_reason,
    ...(row.authorization_expire_time == null ? {} : { authorizationExpireTime: timestampFromMs(row.authorization_expire_time) }),
    createTime: timestampFromMs(row.create_time),
    updateTime: timestampFromMs(row.update_time),
  };
}

/** A payout as the contract has it. */
export function payoutMessage(row: PayoutRow): MessageInitShape<typeof PayoutSchema> {
  return {
    payoutId: row.payout_id,
    accountId: row.account_id,
    state: PayoutState[row.state],
    amount: moneyOf(row.currency_code, row.amount_minor),
    destinationHint: row.destination_hint,
    failureReason: row.failure_reason,
    createTime: timestampFromMs(row.create_time),
    ...(row.end_time == null ? {} : { endTime: timestampFromMs(row.end_time) }),
  };
}

/** A seller's account as a balance. */
export function balanceMessage(
  row: Pick<LedgerAccountRow, "currency_code" | "debits_pending_minor" | "debits_posted_minor" | "credits_posted_minor">,
): MessageInitShape<typeof BalanceSchema> {
  return {
    available: moneyOf(row.currency_code, availableMinor(row)),
    payingOut: moneyOf(row.currency_code, row.debits_pending_minor),
  };
}

/** What an account with a credit balance can spend: posted credits less all debits, pending ones included. */
export function availableMinor(
  row: Pick<LedgerAccountRow, "debits_pending_minor" | "debits_posted_minor" | "credits_posted_minor">,
): bigint {
  return row.credits_posted_minor - row.debits_posted_minor - row.debits_pending_minor;
}

/** A statement's line as the contract has it. */
export function entryMessage(row: StatementEntryRow, currencyCode: string): MessageInitShape<typeof StatementEntrySchema> {
  return {
    transferId: row.transfer_id,
    kind: TransferKind[row.kind],
    incoming: row.incoming === 1,
    amount: moneyOf(currencyCode, row.amount_minor),
    balanceAfter: moneyOf(currencyCode, row.balance_after_minor),
    orderId: row.order_id,
    payoutId: row.payout_id,
    entryTime: timestampFromMs(row.entry_time),
  };
}

/** A transfer as the contract has it. */
export function transferMessage(row: LedgerTransferRow): MessageInitShape<typeof TransferSchema> {
  return {
    transferId: row.transfer_id,
    kind: TransferKind[row.kind],
    state: TransferState[row.state],
    debitAccount: row.debit_account_id,
    creditAccount: row.credit_account_id,
    amount: moneyOf(row.currency_code, row.amount_minor),
    orderId: row.order_id,
    paymentId: row.payment_id,
    payoutId: row.payout_id,
    requestId: row.request_id,
    createTime: timestampFromMs(row.create_time),
    ...(row.end_time == null ? {} : { endTime: timestampFromMs(row.end_time) }),
  };
}
