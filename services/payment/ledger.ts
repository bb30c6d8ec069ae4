import { hash } from "node:crypto";
import { compiledFor, insertRows, type Statement, updateRow } from "#runtime/database/compiled.ts";
import { isUniqueViolation } from "#runtime/database/errors.ts";
import type { PaymentTransaction } from "./entities.ts";
import {
  type AccountKindName,
  assertTransition,
  type TransferKindName,
  type TransferStateName,
  transferTransitions,
} from "./states.ts";

/** The marketplace's own accounts are split, so that purchases do not wait for each other on one row; sums are over all shards. */
export const LEDGER_SHARDS = 16;

/** Kinds of accounts that never owe more than they hold: debits, pending ones included, stay within posted credits. */
const COVERED_KINDS: readonly AccountKindName[] = ["SELLER", "ESCROW"];

/** A movement to record. Two-phase transfers are recorded pending and ended once later; others are posted at once. */
export interface NewTransfer {
  /** From `transferIdOf`. */
  readonly transferId: string;
  readonly kind: TransferKindName;
  readonly state: "PENDING" | "POSTED";
  readonly debitAccountId: string;
  readonly creditAccountId: string;
  /** The currency of both accounts: the table refuses others. */
  readonly currencyCode: string;
  /** More than 0. */
  readonly amountMinor: bigint;
  /** Empty for a payout. */
  readonly orderId: string;
  /** Empty for a payout. */
  readonly paymentId: string;
  /** Empty except for a payout. */
  readonly payoutId: string;
  /** The command that caused it. */
  readonly requestId: string;
}

/** A debit that the account does not cover. */
export class NotCovered extends Error {
  readonly ledgerAccountId: string;

  constructor(ledgerAccountId: string) {
    super(`the ledger account "${ledgerAccountId}" does not cover the debit.`);
    this.ledgerAccountId = ledgerAccountId;
  }
}

/** The shard of a marketplace account that an order, or a payout, moves money through: always the same one. */
export function shardOf(id: string): number {
  return Number.parseInt(hash("sha256", id, "hex").slice(0, 2), 16) % LEDGER_SHARDS;
}

/** One of the marketplace's own accounts, for an order or a payout. */
export function platformAccount(kind: "PROCESSOR" | "ESCROW" | "FEES", currencyCode: string, id: string): string {
  return `${kind.toLowerCase()}/${currencyCode}/${shardOf(id)}`;
}

/** A seller's account in one currency. */
export function sellerAccount(currencyCode: string, sellerId: string): string {
  return `seller/${currencyCode}/${sellerId}`;
}

/**
 * The id of a transfer: a hash of what caused it, shaped as a UUID (version 8). The same movement always has the same id, so its
 * primary key refuses to make it twice.
 *
 * @param source the payment or payout
 * @param line counts the lines of a payment from 0; 0 where there are none
 */
export function transferIdOf(source: string, kind: TransferKindName, line = 0): string {
  const hex = hash("sha256", `${source}/${kind}/${line}`, "hex");
  const variant = ((Number.parseInt(hex.charAt(16), 16) & 0x3) | 0x8).toString(16);
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-${variant}${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}

/** Makes sure that a seller has an account in the currency. */
export async function openSellerAccount(tx: PaymentTransaction, currencyCode: string, sellerId: string): Promise<string> {
  const ledgerAccountId = sellerAccount(currencyCode, sellerId);
  const known = await tx.sql
    .selectFrom("ledger_account")
    .select("ledger_account_id")
    .where("ledger_account_id", "=", ledgerAccountId)
    .executeTakeFirst();
  if (known !== undefined) {
    return ledgerAccountId;
  }
  try {
    await tx.sql
      .insertInto("ledger_account")
      .values({
        ledger_account_id: ledgerAccountId,
        kind: "SELLER",
        currency_code: currencyCode,
        owner_id: sellerId,
        debits_pending_minor: 0n,
        debits_posted_minor: 0n,
        credits_pending_minor: 0n,
        credits_posted_minor: 0n,
        entry_count: 0,
      })
      .execute();
  } catch (error) {
    if (!isUniqueViolation(error)) {
      throw error;
    }
  }
  return ledgerAccountId;
}

/** What happens to one account: changes of its four sums, and the lines they make on a statement. */
interface AccountChange {
  readonly currencyCode: string;
  debitsPending: bigint;
  debitsPosted: bigint;
  creditsPending: bigint;
  creditsPosted: bigint;
  /** Changes of what is available, in the order of the transfers; positive ones come in. */
  readonly entries: { readonly transfer: NewTransfer | EndedTransfer; readonly changeMinor: bigint }[];
}

type EndedTransfer = Omit<NewTransfer, "state" | "requestId">;

/**
 * Records transfers, all or none, and changes their accounts: each account by one conditional update, in the order of their names,
 * so that two transactions never wait for each other.
 *
 * The transaction fails with NotCovered when a seller or escrow would be debited more than it holds.
 */
export async function recordTransfers(tx: PaymentTransaction, transfers: readonly NewTransfer[]): Promise<void> {
  const changes = new Changes();
  for (const transfer of transfers) {
    const debit = changes.of(transfer.debitAccountId, transfer.currencyCode);
    const credit = changes.of(transfer.creditAccountId, transfer.currencyCode);
    if (transfer.state === "PENDING") {
      debit.debitsPending += transfer.amountMinor;
      credit.creditsPending += transfer.amountMinor;
      debit.entries.push({ transfer, changeMinor: -transfer.amountMinor });
    } else {
      debit.debitsPosted += transfer.amountMinor;
      credit.creditsPosted += transfer.amountMinor;
      debit.entries.push({ transfer, changeMinor: -transfer.amountMinor });
      credit.entries.push({ transfer, changeMinor: transfer.amountMinor });
    }
  }
  const rows = insertRows(
    tx.sql,
    "ledger_transfer",
    transfers.map((transfer) => ({
      transfer_id: transfer.transferId,
      kind: transfer.kind,
      state: transfer.state,
      debit_account_id: transfer.debitAccountId,
      credit_account_id: transfer.creditAccountId,
      currency_code: transfer.currencyCode,
      amount_minor: transfer.amountMinor,
      order_id: transfer.orderId,
      payment_id: transfer.paymentId,
      payout_id: transfer.payoutId,
      request_id: transfer.requestId,
      create_time: tx.now,
      end_time: null,
    })),
  );
  // The accounts first: the foreign keys of the rows would else lock them in the order of the transfers.
  await changes.apply(tx, rows);
}

type End = Exclude<TransferStateName, "PENDING">;

/** Ends a pending transfer: posts it, or lets it count no more. The transaction fails when none like it is pending: it has exactly one end. */
export async function endTransfer(tx: PaymentTransaction, transfer: EndedTransfer, end: End): Promise<void> {
  assertTransition(transferTransitions, "PENDING", end);
  const { transferId, amountMinor, currencyCode } = transfer;
  const asMade = {
    debit_account_id: transfer.debitAccountId,
    credit_account_id: transfer.creditAccountId,
    currency_code: currencyCode,
    amount_minor: amountMinor,
  };
  const ending = updateRow(
    tx.sql,
    "ledger_transfer",
    { state: end, end_time: tx.now },
    { transfer_id: transferId, state: "PENDING", ...asMade },
  );
  await tx.must(ending, () => new Error(`the transfer ${transferId} is not pending and cannot be ${end}.`));
  const changes = new Changes();
  const debit = changes.of(transfer.debitAccountId, currencyCode);
  const credit = changes.of(transfer.creditAccountId, currencyCode);
  debit.debitsPending -= amountMinor;
  credit.creditsPending -= amountMinor;
  if (end === "POSTED") {
    debit.debitsPosted += amountMinor;
    credit.creditsPosted += amountMinor;
    credit.entries.push({ transfer, changeMinor: amountMinor });
  } else {
    debit.entries.push({ transfer, changeMinor: amountMinor });
  }
  await changes.apply(tx);
}

/** A pending transfer as it was recorded. */
export async function readTransfer(tx: PaymentTransaction, transferId: string): Promise<EndedTransfer> {
  const row = await tx.sql
    .selectFrom("ledger_transfer")
    .selectAll()
    .where("transfer_id", "=", transferId)
    .executeTakeFirstOrThrow();
  return {
    transferId,
    kind: row.kind,
    debitAccountId: row.debit_account_id,
    creditAccountId: row.credit_account_id,
    currencyCode: row.currency_code,
    amountMinor: row.amount_minor,
    orderId: row.order_id,
    paymentId: row.payment_id,
    payoutId: row.payout_id,
  };
}

class Changes {
  readonly #byAccount = new Map<string, AccountChange>();

  of(ledgerAccountId: string, currencyCode: string): AccountChange {
    let change = this.#byAccount.get(ledgerAccountId);
    if (change === undefined) {
      change = { currencyCode, debitsPending: 0n, debitsPosted: 0n, creditsPending: 0n, creditsPosted: 0n, entries: [] };
      this.#byAccount.set(ledgerAccountId, change);
    }
    return change;
  }

  /**
   * Changes the accounts, in the order of their names, and then runs what is `behind`. Only a debit can find too little: that the accounts are there, in that currency, is
   * what the foreign keys of their transfer say.
   */
  async apply(tx: PaymentTransaction, ...behind: readonly Statement<unknown>[]): Promise<void> {
    const sorted = [...this.#byAccount].sort(([a], [b]) => (a < b ? -1 : 1));
    for (const [id, change] of sorted) {
      const needed = change.debitsPending + change.debitsPosted - change.creditsPosted;
      const entries = keepsStatement(id) ? change.entries.length : 0;
      const statement = accountChange(tx.sql, { ...change, ledgerAccountId: id, entries, needed });
      await (needed > 0n && isCovered(id) ? tx.must(statement, () => new NotCovered(id)) : tx.later(statement));
    }
    await tx.later(...behind);
    for (const [id, change] of sorted) {
      if (keepsStatement(id) && change.entries.length > 0) {
        await writeEntries(tx, id, change);
      }
    }
  }
}

function keepsStatement(ledgerAccountId: string): boolean {
  return ledgerAccountId.startsWith("seller/");
}

function isCovered(ledgerAccountId: string): boolean {
  return COVERED_KINDS.some((kind) => ledgerAccountId.startsWith(`${kind.toLowerCase()}/`));
}

const accountChange = compiledFor(
  (
    sql: PaymentTransaction["sql"],
    at: Omit<AccountChange, "entries"> & { readonly ledgerAccountId: string; readonly entries: number; readonly needed: bigint },
  ) =>
    sql
      .updateTable("ledger_account")
      .set((eb) => ({
        debits_pending_minor: eb("debits_pending_minor", "+", at.debitsPending),
        debits_posted_minor: eb("debits_posted_minor", "+", at.debitsPosted),
        credits_pending_minor: eb("credits_pending_minor", "+", at.creditsPending),
        credits_posted_minor: eb("credits_posted_minor", "+", at.creditsPosted),
        entry_count: eb("entry_count", "+", at.entries),
      }))
      .where("ledger_account_id", "=", at.ledgerAccountId)
      .where("currency_code", "=", at.currencyCode)
      .where((eb) => {
        // Kysely writes no parentheses: from left to right.
        const posted = eb("credits_posted_minor", "-", eb.ref("debits_posted_minor"));
        const available = eb(posted, "-", eb.ref("debits_pending_minor"));
        return eb.or([eb("kind", "not in", COVERED_KINDS), eb(available, ">=", at.needed)]);
      }),
);

/** Writes the statement's lines. The account's row is ours since its update, so numbers and balances have no gap. */
async function writeEntries(tx: PaymentTransaction, ledgerAccountId: string, change: AccountChange): Promise<void> {
  const account = await tx.sql
    .selectFrom("ledger_account")
    .select(["debits_pending_minor", "debits_posted_minor", "credits_posted_minor", "entry_count"])
    .where("ledger_account_id", "=", ledgerAccountId)
    .executeTakeFirstOrThrow();
  const total = change.entries.reduce((sum, entry) => sum + entry.changeMinor, 0n);
  let balance = account.credits_posted_minor - account.debits_posted_minor - account.debits_pending_minor - total;
  let number = account.entry_count - change.entries.length;
  const rows = change.entries.map(({ transfer, changeMinor }) => {
    balance += changeMinor;
    number++;
    return {
      ledger_account_id: ledgerAccountId,
      entry_number: number,
      transfer_id: transfer.transferId,
      kind: transfer.kind,
      incoming: changeMinor > 0n ? 1 : 0,
      amount_minor: changeMinor > 0n ? changeMinor : -changeMinor,
      balance_after_minor: balance,
      order_id: transfer.orderId,
      payout_id: transfer.payoutId,
      entry_time: tx.now,
    };
  });
  await tx.sql.insertInto("statement_entry").values(rows).execute();
}
