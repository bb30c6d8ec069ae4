import { type Kysely, sql } from "kysely";
import { dropEmpty } from "#runtime/database/migrations.ts";

/** Stock and reservations. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable("stock")
    .addColumn("listing_id", "varchar(36)", (c) => c.primaryKey())
    .addColumn("seller_id", "varchar(36)", (c) => c.notNull())
    .addColumn("offered_units", "integer", (c) => c.notNull())
    .addColumn("available_units", "integer", (c) => c.notNull())
    .addColumn("reserved_units", "integer", (c) => c.notNull())
    .addColumn("sold_units", "integer", (c) => c.notNull())
    .addCheckConstraint("stock_not_negative", sql`available_units >= 0 and reserved_units >= 0 and sold_units >= 0`)
    .addCheckConstraint("stock_none_lost", sql`offered_units = available_units + reserved_units + sold_units`)
    // What is released must fit into what a listing may offer.
    .addCheckConstraint("stock_bound", sql`available_units + reserved_units <= 10000`)
    .execute();
  await db.schema
    .createTable("reservation")
    .addColumn("reservation_id", "varchar(36)", (c) => c.primaryKey())
    .addColumn("state", "varchar(16)", (c) => c.notNull())
    .addColumn("expire_time", "bigint")
    .addColumn("create_time", "bigint", (c) => c.notNull())
    .addColumn("end_time", "bigint")
    .addCheckConstraint("reservation_state", sql`state in ('PENDING', 'COMMITTED', 'RELEASED', 'EXPIRED')`)
    .addCheckConstraint("reservation_end", sql`(state = 'PENDING') = (end_time is null)`)
    .addCheckConstraint("reservation_expire", sql`expire_time is not null or state = 'RELEASED'`)
    .execute();
  // Lines of a reservation: where reservation_id = ? order by listing_id, the primary key.
  await db.schema
    .createTable("reservation_line")
    .addColumn("reservation_id", "varchar(36)", (c) => c.notNull())
    .addColumn("listing_id", "varchar(36)", (c) => c.notNull())
    .addColumn("units", "integer", (c) => c.notNull())
    .addPrimaryKeyConstraint("reservation_line_pk", ["reservation_id", "listing_id"])
    .addForeignKeyConstraint("reservation_line_reservation", ["reservation_id"], "reservation", ["reservation_id"])
    .addForeignKeyConstraint("reservation_line_stock", ["listing_id"], "stock", ["listing_id"])
    .addCheckConstraint("reservation_line_units", sql`units between 1 and 100`)
    .execute();
  // CheckStock: the lines of a run of listings.
  await db.schema.createIndex("reservation_line_listing").on("reservation_line").column("listing_id").execute();
}

/** Undoes it, while there is no stock. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await dropEmpty(db, ["reservation_line", "reservation", "stock"]);
}
