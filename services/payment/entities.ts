import { defineEntity, p } from "@mikro-orm/core";
import type { Selectable } from "kysely";
import type { Database, TablesOf } from "#runtime/database/database.ts";
import type { Transaction } from "#runtime/database/transaction.ts";
import type { AccountKindName, PaymentStateName, PayoutStateName, Step, TransferKindName, TransferStateName } from "./states.ts";

/** A named pot of money in one currency. Processor accounts have debit balances, the others credit balances. */
const LedgerAccountSchema = defineEntity({
  name: "LedgerAccount",
  tableName: "ledger_account",
  uniques: [{ properties: ["ledgerAccountId", "currencyCode"] }],
  properties: {
    /** `<kind>/<currency>/<shard or owner>`, such as "escrow/USD/7". */
    ledgerAccountId: p.string().length(64).primary(),
    kind: p.string().length(16).$type<AccountKindName>(),
    currencyCode: p.string().length(3),
    /** The seller; empty on the marketplace's own accounts. */
    ownerId: p.string().length(36),
    debitsPendingMinor: p.bigint(),
    debitsPostedMinor: p.bigint(),
    creditsPendingMinor: p.bigint(),
    creditsPostedMinor: p.bigint(),
    /** How many statement entries it has; only sellers' accounts have any. */
    entryCount: p.bigint("number"),
  },
});
export class LedgerAccount extends LedgerAccountSchema.class {}
LedgerAccountSchema.setClass(LedgerAccount);

/** A movement of money. Only state and end_time ever change, once, on a pending one. */
const LedgerTransferSchema = defineEntity({
  name: "LedgerTransfer",
  tableName: "ledger_transfer",
  properties: {
    /** Derived from payment or payout, kind and line: the same movement cannot be made twice. */
    transferId: p.string().length(36).primary(),
    kind: p.string().length(16).$type<TransferKindName>(),
    state: p.string().length(16).$type<TransferStateName>(),
    debitAccountId: p.string().length(64),
    creditAccountId: p.string().length(64),
    currencyCode: p.string().length(3),
    amountMinor: p.bigint(),
    /** The order and payment that caused it; empty for a payout. */
    orderId: p.string().length(36),
    paymentId: p.string().length(36),
    /** The payout that caused it; empty otherwise. */
    payoutId: p.string().length(36),
    /** The command that caused it. */
    requestId: p.string().length(64),
    createTime: p.bigint("number"),
    endTime: p.bigint("number").nullable(),
  },
});
export class LedgerTransfer extends LedgerTransferSchema.class {}
LedgerTransferSchema.setClass(LedgerTransfer);

/** A line of a seller's statement: what changed what is available, and what was available after it. Never changed. */
const StatementEntrySchema = defineEntity({
  name: "StatementEntry",
  tableName: "statement_entry",
  properties: {
    ledgerAccountId: p.string().length(64).primary(),
    /** Counts the entries of an account from 1, given under the lock of the account's row. */
    entryNumber: p.bigint("number").primary(),
    transferId: p.string().length(36),
    kind: p.string().length(16).$type<TransferKindName>(),
    incoming: p.integer(),
    amountMinor: p.bigint(),
    balanceAfterMinor: p.bigint(),
    orderId: p.string().length(36),
    payoutId: p.string().length(36),
    entryTime: p.bigint("number"),
  },
});
export class StatementEntry extends StatementEntrySchema.class {}
StatementEntrySchema.setClass(StatementEntry);

/** The buyer's obligation for one order. One that was voided before it came to be has an amount of 0 and empty ids. */
const PaymentSchema = defineEntity({
  name: "Payment",
  tableName: "payment",
  properties: {
    paymentId: p.string().length(36).primary(),
    orderId: p.string().length(36),
    buyerId: p.string().length(36),
    sellerId: p.string().length(36),
    state: p.string().length(32).$type<PaymentStateName>(),
    step: p.string().length(16).$type<Step>(),
    /** When the step began; business time. */
    stepTime: p.bigint("number"),
    /** The command that began the step, as transfers name it. */
    stepRequestId: p.string().length(64),
    /** The claimed command that waits for the step's answer; null when none does. */
    requestKey: p.string().length(191).nullable(),
    currencyCode: p.string().length(3),
    amountMinor: p.bigint(),
    /** Null until escrow is released. */
    feeMinor: p.bigint().nullable(),
    /** The processor's token of the payment method, never a card number. */
    paymentMethodToken: p.string().length(136),
    confirmationUrl: p.string().length(500),
    declineReason: p.string().length(64),
    authorizationExpireTime: p.bigint("number").nullable(),
    /** SHA-256 of what AuthorizePayment was given, without its request_id. */
    contentHash: p.string().length(64),
    createTime: p.bigint("number"),
    updateTime: p.bigint("number"),
    version: p.bigint("number"),
    /** The number of its last event; null where `sequence` has it. */
    eventSequence: p.bigint("number").nullable(),
    /** When the job `payment.resolve` is to look after it; null when nobody is, or when that job is planned. */
    watchTime: p.bigint("number").nullable(),
  },
});
export class Payment extends PaymentSchema.class {}
PaymentSchema.setClass(Payment);

/** What one listing costs in a payment. */
const PaymentLineSchema = defineEntity({
  name: "PaymentLine",
  tableName: "payment_line",
  properties: {
    paymentId: p.string().length(36).primary(),
    /** Counts from 0. */
    lineNumber: p.integer().primary(),
    listingId: p.string().length(36),
    amountMinor: p.bigint(),
    /** When the listing was published: chooses the fee schedule. */
    listingTime: p.bigint("number"),
  },
});
export class PaymentLine extends PaymentLineSchema.class {}
PaymentLineSchema.setClass(PaymentLine);

/** A seller's money leaving to a bank. */
const PayoutSchema = defineEntity({
  name: "Payout",
  tableName: "payout",
  properties: {
    payoutId: p.string().length(36).primary(),
    accountId: p.string().length(36),
    state: p.string().length(16).$type<PayoutStateName>(),
    currencyCode: p.string().length(3),
    amountMinor: p.bigint(),
    destinationToken: p.string().length(136),
    destinationHint: p.string().length(8),
    failureReason: p.string().length(64),
    createTime: p.bigint("number"),
    endTime: p.bigint("number").nullable(),
    version: p.bigint("number"),
  },
});
export class Payout extends PayoutSchema.class {}
PayoutSchema.setClass(Payout);

/** What the marketplace takes of a sale, from `effective_time` until the next schedule's. Never changed. */
const FeeScheduleSchema = defineEntity({
  name: "FeeSchedule",
  tableName: "fee_schedule",
  properties: {
    /** Counts from 1. */
    scheduleVersion: p.integer().primary(),
    effectiveTime: p.bigint("number").unique(),
    feeBasisPoints: p.integer(),
  },
});
export class FeeSchedule extends FeeScheduleSchema.class {}
FeeScheduleSchema.setClass(FeeSchedule);

/** The smallest fee of a line in one currency, under one schedule. */
const FeeMinimumSchema = defineEntity({
  name: "FeeMinimum",
  tableName: "fee_minimum",
  properties: {
    scheduleVersion: p.integer().primary(),
    currencyCode: p.string().length(3).primary(),
    minimumFeeMinor: p.bigint(),
  },
});
export class FeeMinimum extends FeeMinimumSchema.class {}
FeeMinimumSchema.setClass(FeeMinimum);

/** The processor that these payments are with; one row. */
const ProcessorIdentitySchema = defineEntity({
  name: "ProcessorIdentity",
  tableName: "processor_identity",
  properties: {
    /** Always 1. */
    onlyRow: p.integer().primary(),
    processorId: p.string().length(64),
  },
});
export class ProcessorIdentity extends ProcessorIdentitySchema.class {}
ProcessorIdentitySchema.setClass(ProcessorIdentity);

/** Payment's entities. */
export const entities = [
  LedgerAccount,
  LedgerTransfer,
  StatementEntry,
  Payment,
  PaymentLine,
  Payout,
  FeeSchedule,
  FeeMinimum,
  ProcessorIdentity,
] as const;

/** Payment's tables as Kysely sees them. */
export type PaymentTables = TablesOf<typeof entities>;
/** Payment's database. */
export type PaymentDatabase = Database<PaymentTables>;
/** A transaction on it. */
export type PaymentTransaction = Transaction<PaymentTables>;
/** A row of `ledger_account`. */
export type LedgerAccountRow = Selectable<PaymentTables["ledger_account"]>;
/** A row of `ledger_transfer`. */
export type LedgerTransferRow = Selectable<PaymentTables["ledger_transfer"]>;
/** A row of `statement_entry`. */
export type StatementEntryRow = Selectable<PaymentTables["statement_entry"]>;
/** A row of `payment`. */
export type PaymentRow = Selectable<PaymentTables["payment"]>;
/** A row of `payment_line`. */
export type PaymentLineRow = Selectable<PaymentTables["payment_line"]>;
/** A row of `payout`. */
export type PayoutRow = Selectable<PaymentTables["payout"]>;
