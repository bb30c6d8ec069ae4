import { type Kysely, sql } from "kysely";
import { dropEmpty, type Migration } from "#runtime/database/migrations.ts";

/** Orders, their lines, the steps of their sagas, and the commands that wait for them. */
export const orders: Migration = {
  name: "0001-orders",
  async up(db) {
    await createOrders(db);
    await db.schema
      .createTable("order_line")
      .addColumn("order_id", "varchar(36)", (c) => c.notNull())
      .addColumn("position", "integer", (c) => c.notNull())
      .addColumn("listing_id", "varchar(36)", (c) => c.notNull())
      .addColumn("title", "varchar(300)", (c) => c.notNull())
      .addColumn("units", "integer", (c) => c.notNull())
      .addColumn("unit_price_minor", "bigint", (c) => c.notNull())
      .addColumn("listing_time", "bigint", (c) => c.notNull())
      .addPrimaryKeyConstraint("order_line_pk", ["order_id", "position"])
      .addUniqueConstraint("order_line_listing", ["order_id", "listing_id"])
      .addCheckConstraint("order_line_units", sql`units between 1 and 100`)
      .addCheckConstraint("order_line_price", sql`unit_price_minor between 1 and 100000000`)
      .execute();
    await db.schema
      .createTable("saga_step")
      .addColumn("order_id", "varchar(36)", (c) => c.notNull())
      .addColumn("step", "varchar(32)", (c) => c.notNull())
      .addColumn("state", "varchar(16)", (c) => c.notNull())
      .addColumn("attempts", "integer", (c) => c.notNull())
      .addColumn("result", "blob")
      .addColumn("reason", "varchar(64)", (c) => c.notNull())
      .addColumn("start_time", "bigint", (c) => c.notNull())
      .addColumn("update_time", "bigint", (c) => c.notNull())
      .addPrimaryKeyConstraint("saga_step_pk", ["order_id", "step"])
      .addCheckConstraint("saga_step_state", sql`state in ('started', 'done', 'failed', 'undone')`)
      .addCheckConstraint("saga_step_result", sql`state <> 'done' or result is not null`)
      .execute();
    await db.schema
      .createTable("order_command")
      .addColumn("request_key", "varchar(191)", (c) => c.primaryKey())
      .addColumn("order_id", "varchar(36)", (c) => c.notNull())
      .addColumn("command", "varchar(16)", (c) => c.notNull())
      .addColumn("viewer", "varchar(16)", (c) => c.notNull())
      .execute();
    await db.schema.createIndex("order_command_order").on("order_command").column("order_id").execute();
  },
  /** While nothing was ordered. */
  down: (db) => dropEmpty(db, ["order_command", "saga_step", "order_line", "orders"]),
};

async function createOrders(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable("orders")
    .addColumn("order_id", "varchar(36)", (c) => c.primaryKey())
    .addColumn("state", "varchar(24)", (c) => c.notNull())
    .addColumn("version", "bigint", (c) => c.notNull())
    .addColumn("buyer_id", "varchar(36)", (c) => c.notNull())
    .addColumn("seller_id", "varchar(36)", (c) => c.notNull())
    .addColumn("currency_code", "varchar(3)", (c) => c.notNull())
    .addColumn("total_minor", "bigint", (c) => c.notNull())
    .addColumn("handling_days", "integer", (c) => c.notNull())
    .addColumn("payment_id", "varchar(36)", (c) => c.notNull().unique())
    .addColumn("payment_method_token", "varchar(129)", (c) => c.notNull())
    .addColumn("ship_to", "blob", (c) => c.notNull())
    .addColumn("reservation_expire_time", "bigint", (c) => c.notNull())
    .addColumn("confirmation_url", "varchar(500)", (c) => c.notNull())
    .addColumn("cancel_reason", "varchar(63)", (c) => c.notNull())
    .addColumn("carrier", "varchar(60)", (c) => c.notNull())
    .addColumn("tracking_number", "varchar(60)", (c) => c.notNull())
    .addColumn("rating_stars", "integer")
    .addColumn("rating_comment", "text", (c) => c.notNull())
    .addColumn("create_time", "bigint", (c) => c.notNull())
    .addColumn("update_time", "bigint", (c) => c.notNull())
    .addColumn("due_time", "bigint")
    .addColumn("paid_time", "bigint")
    .addColumn("ship_time", "bigint")
    .addColumn("end_time", "bigint")
    .addColumn("lease_owner", "varchar(36)")
    .addColumn("lease_expire_time", "bigint")
    .addCheckConstraint(
      "orders_state",
      sql`state in ('PLACING', 'AWAITING_CONFIRMATION', 'PAID', 'SHIPPED', 'COMPLETING', 'COMPLETED', 'CANCELLING', 'CANCELLED', 'DISPUTED')`,
    )
    .addCheckConstraint("orders_total", sql`total_minor > 0`)
    .addCheckConstraint("orders_version", sql`version > 0`)
    .addCheckConstraint("orders_not_own", sql`buyer_id <> seller_id`)
    .addCheckConstraint("orders_rating", sql`rating_stars is null or rating_stars between 1 and 5`)
    .addCheckConstraint(
      "orders_paid",
      sql`state not in ('PAID', 'SHIPPED', 'COMPLETING', 'COMPLETED', 'DISPUTED') or paid_time is not null`,
    )
    .addCheckConstraint("orders_end", sql`(state in ('COMPLETED', 'CANCELLED')) = (end_time is not null)`)
    .execute();
  // Each serves one query, named beside it.
  // ListOrders, all states: where buyer_id = ? and order_id < ? order by order_id desc; likewise by seller.
  await db.schema.createIndex("orders_buyer").on("orders").columns(["buyer_id", "order_id"]).execute();
  await db.schema.createIndex("orders_seller").on("orders").columns(["seller_id", "order_id"]).execute();
  // ListOrders, some states: one query for each state, … and state = ? …
  await db.schema.createIndex("orders_buyer_state").on("orders").columns(["buyer_id", "state", "order_id"]).execute();
  await db.schema.createIndex("orders_seller_state").on("orders").columns(["seller_id", "state", "order_id"]).execute();
  // GetEscrowTotals: select currency_code, sum(total_minor), count(*) where state in (…) group by …; answered from the index alone.
  await db.schema.createIndex("orders_state").on("orders").columns(["state", "currency_code", "total_minor"]).execute();
}
