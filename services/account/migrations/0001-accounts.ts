import { type Kysely, sql } from "kysely";
import { dropEmpty } from "#runtime/database/migrations.ts";

/** Profiles, what sellers earned, addresses, payout destinations. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable("profile")
    .addColumn("account_id", "varchar(36)", (c) => c.primaryKey())
    .addColumn("display_name", "varchar(40)", (c) => c.notNull())
    .addColumn("name_key", "varchar(191)", (c) => c.notNull())
    .addColumn("bio", "varchar(500)", (c) => c.notNull())
    .addColumn("create_time", "bigint", (c) => c.notNull())
    .addColumn("version", "bigint", (c) => c.notNull())
    .addUniqueConstraint("profile_name", ["name_key"])
    .addCheckConstraint("profile_name_key", sql`name_key <> ''`)
    .execute();
  await createRatings(db);
  await db.schema
    .createTable("address")
    .addColumn("address_id", "varchar(36)", (c) => c.primaryKey())
    .addColumn("account_id", "varchar(36)", (c) => c.notNull())
    .addColumn("slot", "integer", (c) => c.notNull())
    .addColumn("recipient", "varchar(100)", (c) => c.notNull())
    .addColumn("lines", "varchar(2000)", (c) => c.notNull())
    .addColumn("city", "varchar(100)", (c) => c.notNull())
    .addColumn("region", "varchar(100)", (c) => c.notNull())
    .addColumn("postal_code", "varchar(20)", (c) => c.notNull())
    .addColumn("country_code", "varchar(2)", (c) => c.notNull())
    .addColumn("create_time", "bigint", (c) => c.notNull())
    .addUniqueConstraint("address_slot", ["account_id", "slot"])
    .addCheckConstraint("address_bound", sql`slot between 0 and 19`)
    .execute();
  // ListAddresses: where account_id = ? [and (create_time, address_id) > (?, ?)] order by both.
  await db.schema.createIndex("address_account").on("address").columns(["account_id", "create_time", "address_id"]).execute();
  await db.schema
    .createTable("payout_destination")
    .addColumn("account_id", "varchar(36)", (c) => c.notNull())
    .addColumn("currency_code", "varchar(3)", (c) => c.notNull())
    .addColumn("destination_token", "varchar(191)", (c) => c.notNull())
    .addColumn("update_time", "bigint", (c) => c.notNull())
    .addPrimaryKeyConstraint("payout_destination_pk", ["account_id", "currency_code"])
    .addCheckConstraint("payout_destination_currency", sql`currency_code in ('USD', 'JPY')`)
    .execute();
}

async function createRatings(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable("seller_totals")
    .addColumn("account_id", "varchar(36)", (c) => c.primaryKey())
    .addColumn("one_star", "integer", (c) => c.notNull())
    .addColumn("two_stars", "integer", (c) => c.notNull())
    .addColumn("three_stars", "integer", (c) => c.notNull())
    .addColumn("four_stars", "integer", (c) => c.notNull())
    .addColumn("five_stars", "integer", (c) => c.notNull())
    .addColumn("completed_sales", "integer", (c) => c.notNull())
    // Every rating is of a completed sale.
    .addCheckConstraint("seller_totals_sum", sql`one_star + two_stars + three_stars + four_stars + five_stars <= completed_sales`)
    .execute();
  await db.schema
    .createTable("seller_rating")
    .addColumn("order_id", "varchar(36)", (c) => c.primaryKey())
    .addColumn("seller_id", "varchar(36)", (c) => c.notNull())
    .addColumn("stars", "integer", (c) => c.notNull())
    .addColumn("comment", "text", (c) => c.notNull())
    .addColumn("create_time", "bigint", (c) => c.notNull())
    .addCheckConstraint("seller_rating_stars", sql`stars between 1 and 5`)
    .execute();
  // ListRatings: where seller_id = ? [and (create_time, order_id) < (?, ?)] order by both, newest first.
  await db.schema
    .createIndex("seller_rating_seller")
    .on("seller_rating")
    .columns(["seller_id", "create_time desc", "order_id desc"])
    .execute();
}

/** Undoes it, while nobody has an account. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await dropEmpty(db, ["payout_destination", "address", "seller_rating", "seller_totals", "profile"]);
}
