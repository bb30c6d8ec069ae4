import { type Kysely, sql } from "kysely";
import { dropEmpty } from "#runtime/database/migrations.ts";

/** Payments with their lines, and payouts. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await createPayments(db);
  await createPayouts(db);
}

async function createPayments(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable("payment")
    .addColumn("payment_id", "varchar(36)", (c) => c.primaryKey())
    .addColumn("order_id", "varchar(36)", (c) => c.notNull())
    .addColumn("buyer_id", "varchar(36)", (c) => c.notNull())
    .addColumn("seller_id", "varchar(36)", (c) => c.notNull())
    .addColumn("state", "varchar(32)", (c) => c.notNull())
    .addColumn("step", "varchar(16)", (c) => c.notNull())
    .addColumn("step_time", "bigint", (c) => c.notNull())
    .addColumn("step_request_id", "varchar(64)", (c) => c.notNull())
    .addColumn("request_key", "varchar(191)")
    .addColumn("currency_code", "varchar(3)", (c) => c.notNull())
    .addColumn("amount_minor", "bigint", (c) => c.notNull())
    .addColumn("fee_minor", "bigint")
    .addColumn("payment_method_token", "varchar(136)", (c) => c.notNull())
    .addColumn("confirmation_url", "varchar(500)", (c) => c.notNull())
    .addColumn("decline_reason", "varchar(64)", (c) => c.notNull())
    .addColumn("authorization_expire_time", "bigint")
    .addColumn("content_hash", "varchar(64)", (c) => c.notNull())
    .addColumn("create_time", "bigint", (c) => c.notNull())
    .addColumn("update_time", "bigint", (c) => c.notNull())
    .addColumn("version", "bigint", (c) => c.notNull())
    .addCheckConstraint(
      "payment_state_step",
      sql`(state = 'AUTHORIZING' and step = 'AUTHORIZE') or (state = 'AUTHORIZED' and step in ('', 'CAPTURE')) or (state = 'CAPTURED' and step in ('', 'REFUND')) or (state in ('VOIDED', 'EXPIRED') and step in ('', 'VOID')) or (state in ('AWAITING_CONFIRMATION', 'RELEASED', 'DECLINED', 'REFUNDED') and step = '')`,
    )
    .addCheckConstraint("payment_waiter", sql`request_key is null or step <> ''`)
    .addCheckConstraint("payment_amount", sql`amount_minor > 0 or (state = 'VOIDED' and order_id = '' and amount_minor = 0)`)
    .addCheckConstraint("payment_currency", sql`currency_code in ('USD', 'JPY') or (currency_code = '' and order_id = '')`)
    .addCheckConstraint(
      "payment_fee",
      sql`(state = 'RELEASED') = (fee_minor is not null) and coalesce(fee_minor, 0) between 0 and amount_minor`,
    )
    .addCheckConstraint("payment_decline", sql`(state = 'DECLINED') = (decline_reason <> '')`)
    .addCheckConstraint("payment_confirmation", sql`(state = 'AWAITING_CONFIRMATION') = (confirmation_url <> '')`)
    .addCheckConstraint(
      "payment_expiry",
      sql`authorization_expire_time is not null or state in ('AUTHORIZING', 'AWAITING_CONFIRMATION', 'DECLINED', 'VOIDED')`,
    )
    .execute();
  // CheckLedger: sums of amount_minor by currency_code where state = ?, and where step = ?.
  await db.schema.createIndex("payment_state").on("payment").columns(["state", "currency_code", "amount_minor"]).execute();
  await db.schema.createIndex("payment_step").on("payment").columns(["step", "currency_code", "amount_minor"]).execute();
  await db.schema
    .createTable("payment_line")
    .addColumn("payment_id", "varchar(36)", (c) => c.notNull())
    .addColumn("line_number", "integer", (c) => c.notNull())
    .addColumn("listing_id", "varchar(36)", (c) => c.notNull())
    .addColumn("amount_minor", "bigint", (c) => c.notNull())
    .addColumn("listing_time", "bigint", (c) => c.notNull())
    .addPrimaryKeyConstraint("payment_line_pk", ["payment_id", "line_number"])
    .addCheckConstraint("payment_line_amount", sql`amount_minor > 0 and line_number between 0 and 19`)
    .execute();
}

async function createPayouts(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable("payout")
    .addColumn("payout_id", "varchar(36)", (c) => c.primaryKey())
    .addColumn("account_id", "varchar(36)", (c) => c.notNull())
    .addColumn("state", "varchar(16)", (c) => c.notNull())
    .addColumn("currency_code", "varchar(3)", (c) => c.notNull())
    .addColumn("amount_minor", "bigint", (c) => c.notNull())
    .addColumn("destination_token", "varchar(136)", (c) => c.notNull())
    .addColumn("destination_hint", "varchar(8)", (c) => c.notNull())
    .addColumn("failure_reason", "varchar(64)", (c) => c.notNull())
    .addColumn("create_time", "bigint", (c) => c.notNull())
    .addColumn("end_time", "bigint")
    .addColumn("version", "bigint", (c) => c.notNull())
    .addCheckConstraint("payout_state", sql`state in ('PENDING', 'PAID', 'FAILED')`)
    .addCheckConstraint("payout_amount", sql`amount_minor > 0 and currency_code in ('USD', 'JPY')`)
    .addCheckConstraint("payout_end", sql`(state = 'PENDING') = (end_time is null)`)
    .addCheckConstraint("payout_failure", sql`(state = 'FAILED') = (failure_reason <> '')`)
    .execute();
  // ListPayouts: where account_id = ? and (create_time, payout_id) < (?, ?) order by both, newest first.
  await db.schema
    .createIndex("payout_account")
    .on("payout")
    .columns(["account_id", "create_time desc", "payout_id desc"])
    .execute();
  // CheckLedger: the sum of amount_minor by currency_code where state = 'PENDING'.
  await db.schema.createIndex("payout_state_index").on("payout").columns(["state", "currency_code", "amount_minor"]).execute();
}

/** Undoes it, while nothing was paid. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await dropEmpty(db, ["payout", "payment_line", "payment"]);
}
