import { type Kysely, sql } from "kysely";

const CURRENCIES = ["USD", "JPY"];
const PLATFORM_KINDS = ["PROCESSOR", "ESCROW", "FEES"];
const SHARDS = 16;

/** Ledger accounts with the marketplace's own ones, transfers, statements. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await createAccounts(db);
  await createTransfers(db);
  await createStatementEntries(db);
  await insertPlatformAccounts(db as Kysely<{ ledger_account: Record<string, unknown> }>);
}

async function createAccounts(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable("ledger_account")
    .addColumn("ledger_account_id", "varchar(64)", (c) => c.primaryKey())
    .addColumn("kind", "varchar(16)", (c) => c.notNull())
    .addColumn("currency_code", "varchar(3)", (c) => c.notNull())
    .addColumn("owner_id", "varchar(36)", (c) => c.notNull())
    .addColumn("debits_pending_minor", "bigint", (c) => c.notNull())
    .addColumn("debits_posted_minor", "bigint", (c) => c.notNull())
    .addColumn("credits_pending_minor", "bigint", (c) => c.notNull())
    .addColumn("credits_posted_minor", "bigint", (c) => c.notNull())
    .addColumn("entry_count", "bigint", (c) => c.notNull())
    // What a transfer refers to, so that one between two currencies cannot be written.
    .addUniqueConstraint("ledger_account_currency", ["ledger_account_id", "currency_code"])
    .addCheckConstraint("ledger_account_kind", sql`kind in ('PROCESSOR', 'ESCROW', 'SELLER', 'FEES')`)
    .addCheckConstraint("ledger_account_known_currency", sql`currency_code in ('USD', 'JPY')`)
    .addCheckConstraint("ledger_account_owner", sql`(kind = 'SELLER') = (owner_id <> '')`)
    .addCheckConstraint(
      "ledger_account_positive",
      sql`debits_pending_minor >= 0 and debits_posted_minor >= 0 and credits_pending_minor >= 0 and credits_posted_minor >= 0`,
    )
    .addCheckConstraint(
      "ledger_account_covered",
      sql`kind not in ('SELLER', 'ESCROW') or debits_pending_minor + debits_posted_minor <= credits_posted_minor`,
    )
    .execute();
  // GetBalance: where owner_id = ? order by currency_code.
  await db.schema.createIndex("ledger_account_owner_index").on("ledger_account").columns(["owner_id", "currency_code"]).execute();
}

async function createTransfers(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable("ledger_transfer")
    .addColumn("transfer_id", "varchar(36)", (c) => c.primaryKey())
    .addColumn("kind", "varchar(16)", (c) => c.notNull())
    .addColumn("state", "varchar(16)", (c) => c.notNull())
    .addColumn("debit_account_id", "varchar(64)", (c) => c.notNull())
    .addColumn("credit_account_id", "varchar(64)", (c) => c.notNull())
    .addColumn("currency_code", "varchar(3)", (c) => c.notNull())
    .addColumn("amount_minor", "bigint", (c) => c.notNull())
    .addColumn("order_id", "varchar(36)", (c) => c.notNull())
    .addColumn("payment_id", "varchar(36)", (c) => c.notNull())
    .addColumn("payout_id", "varchar(36)", (c) => c.notNull())
    .addColumn("request_id", "varchar(64)", (c) => c.notNull())
    .addColumn("create_time", "bigint", (c) => c.notNull())
    .addColumn("end_time", "bigint")
    .addCheckConstraint("ledger_transfer_kind", sql`kind in ('CAPTURE', 'REFUND', 'SALE', 'FEE', 'PAYOUT')`)
    .addCheckConstraint("ledger_transfer_state", sql`state in ('PENDING', 'POSTED', 'VOIDED', 'EXPIRED')`)
    .addCheckConstraint("ledger_transfer_amount", sql`amount_minor > 0`)
    .addCheckConstraint("ledger_transfer_two_accounts", sql`debit_account_id <> credit_account_id`)
    .addCheckConstraint(
      "ledger_transfer_cause",
      sql`(kind = 'PAYOUT') = (payout_id <> '') and (kind = 'PAYOUT') = (payment_id = '')`,
    )
    .addCheckConstraint(
      "ledger_transfer_end",
      sql`(state = 'PENDING' and end_time is null) or state = 'POSTED' or end_time is not null`,
    )
    .addForeignKeyConstraint("ledger_transfer_debit", ["debit_account_id", "currency_code"], "ledger_account", [
      "ledger_account_id",
      "currency_code",
    ])
    .addForeignKeyConstraint("ledger_transfer_credit", ["credit_account_id", "currency_code"], "ledger_account", [
      "ledger_account_id",
      "currency_code",
    ])
    .execute();
  // ListTransfers: where order_id = ? order by create_time, transfer_id.
  await db.schema
    .createIndex("ledger_transfer_order")
    .on("ledger_transfer")
    .columns(["order_id", "create_time", "transfer_id"])
    .execute();
}

async function createStatementEntries(db: Kysely<unknown>): Promise<void> {
  // ListStatementEntries: where ledger_account_id = ? and entry_number < ? order by entry_number desc, the primary key.
  await db.schema
    .createTable("statement_entry")
    .addColumn("ledger_account_id", "varchar(64)", (c) => c.notNull())
    .addColumn("entry_number", "bigint", (c) => c.notNull())
    .addColumn("transfer_id", "varchar(36)", (c) => c.notNull())
    .addColumn("kind", "varchar(16)", (c) => c.notNull())
    .addColumn("incoming", "integer", (c) => c.notNull())
    .addColumn("amount_minor", "bigint", (c) => c.notNull())
    .addColumn("balance_after_minor", "bigint", (c) => c.notNull())
    .addColumn("order_id", "varchar(36)", (c) => c.notNull())
    .addColumn("payout_id", "varchar(36)", (c) => c.notNull())
    .addColumn("entry_time", "bigint", (c) => c.notNull())
    .addPrimaryKeyConstraint("statement_entry_pk", ["ledger_account_id", "entry_number"])
    .addCheckConstraint("statement_entry_amounts", sql`amount_minor > 0 and balance_after_minor >= 0 and incoming in (0, 1)`)
    .execute();
}

async function insertPlatformAccounts(db: Kysely<{ ledger_account: Record<string, unknown> }>): Promise<void> {
  const rows = CURRENCIES.flatMap((currency) =>
    PLATFORM_KINDS.flatMap((kind) =>
      Array.from({ length: SHARDS }, (_, shard) => ({
        ledger_account_id: `${kind.toLowerCase()}/${currency}/${shard}`,
        kind,
        currency_code: currency,
        owner_id: "",
        debits_pending_minor: 0n,
        debits_posted_minor: 0n,
        credits_pending_minor: 0n,
        credits_posted_minor: 0n,
        entry_count: 0,
      })),
    ),
  );
  await db.insertInto("ledger_account").values(rows).execute();
}

/** Why it cannot be undone. */
export const down =
  "the ledger holds the marketplace's own accounts from the start, and a transfer is never forgotten. Restore a backup instead.";
