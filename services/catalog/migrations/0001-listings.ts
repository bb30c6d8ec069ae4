import { type Kysely, sql } from "kysely";
import { dropEmpty } from "#runtime/database/migrations.ts";

/** Listings and brands. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable("listing")
    .addColumn("listing_id", "varchar(36)", (c) => c.primaryKey())
    .addColumn("seller_id", "varchar(36)", (c) => c.notNull())
    .addColumn("state", "varchar(16)", (c) => c.notNull())
    .addColumn("title", "varchar(300)", (c) => c.notNull())
    .addColumn("description", "text", (c) => c.notNull())
    .addColumn("category_id", "varchar(64)", (c) => c.notNull())
    .addColumn("brand", "varchar(60)", (c) => c.notNull())
    .addColumn("condition_grade", "varchar(16)", (c) => c.notNull())
    .addColumn("currency_code", "varchar(3)", (c) => c.notNull())
    .addColumn("price_minor", "bigint", (c) => c.notNull())
    .addColumn("offered_units", "integer", (c) => c.notNull())
    .addColumn("available_units", "integer", (c) => c.notNull())
    .addColumn("reserved_units", "integer", (c) => c.notNull())
    .addColumn("stock_sequence", "bigint", (c) => c.notNull())
    .addColumn("handling_days", "integer", (c) => c.notNull())
    .addColumn("ships_from", "varchar(2)", (c) => c.notNull())
    .addColumn("external_id", "varchar(128)")
    .addColumn("content_hash", "varchar(64)", (c) => c.notNull())
    .addColumn("create_time", "bigint", (c) => c.notNull())
    .addColumn("update_time", "bigint", (c) => c.notNull())
    .addColumn("publish_time", "bigint")
    .addColumn("withdraw_key", "varchar(191)")
    .addColumn("version", "bigint", (c) => c.notNull())
    .addUniqueConstraint("listing_external", ["seller_id", "external_id"])
    .addCheckConstraint("listing_state", sql`state in ('DRAFT', 'ACTIVE', 'RESERVED', 'SOLD', 'WITHDRAWN')`)
    .addCheckConstraint(
      "listing_condition",
      sql`condition_grade in ('NEW', 'LIKE_NEW', 'VERY_GOOD', 'GOOD', 'ACCEPTABLE', 'FOR_PARTS')`,
    )
    .addCheckConstraint("listing_currency", sql`currency_code in ('USD', 'JPY')`)
    .addCheckConstraint("listing_price", sql`price_minor between 1 and 100000000`)
    .addCheckConstraint("listing_units", sql`offered_units between 1 and 10000 and available_units between 0 and 10000`)
    .addCheckConstraint("listing_reserved", sql`reserved_units >= 0 and stock_sequence >= 0`)
    .addCheckConstraint("listing_handling", sql`handling_days between 1 and 7`)
    .addCheckConstraint("listing_published", sql`publish_time is not null or state in ('DRAFT', 'WITHDRAWN')`)
    .execute();
  // ListSellerListings: where seller_id = ? and state = ? [and (create_time, listing_id) < (?, ?)] order by both, newest first.
  await db.schema
    .createIndex("listing_seller")
    .on("listing")
    .columns(["seller_id", "state", "create_time desc", "listing_id desc"])
    .execute();
  // ScanListings: where state = 'ACTIVE' and listing_id > ? order by listing_id.
  await db.schema.createIndex("listing_scan").on("listing").columns(["state", "listing_id"]).execute();
  // ListBrands: where brand_key > ? order by brand_key, the primary key.
  await db.schema
    .createTable("brand")
    .addColumn("brand_key", "varchar(191)", (c) => c.primaryKey())
    .addColumn("name", "varchar(60)", (c) => c.notNull())
    .execute();
}

/** Undoes it, while nothing is listed. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await dropEmpty(db, ["brand", "listing"]);
}
