import type { Kysely } from "kysely";
import { dropIndex } from "#runtime/database/indexes.ts";
import type { Migration } from "#runtime/database/migrations.ts";

/**
 * The indexes of ListOrders for one state begin with the state. While they began with the account they looked as good as those for all states to MariaDB,
 * whose orders they do not have: it then walked all orders there are, newest first, to find an account's.
 */
export const indexStateFirst: Migration = {
  name: "0002-index-state-first",
  async up(db) {
    // ListOrders, some states: where state = ? and buyer_id = ? and order_id < ? order by order_id desc; likewise by seller.
    await createIndex(db, "orders_state_buyer", ["state", "buyer_id", "order_id"]);
    await createIndex(db, "orders_state_seller", ["state", "seller_id", "order_id"]);
    await dropIndex(db, "orders", "orders_buyer_state");
    await dropIndex(db, "orders", "orders_seller_state");
  },
  async down(db) {
    await createIndex(db, "orders_buyer_state", ["buyer_id", "state", "order_id"]);
    await createIndex(db, "orders_seller_state", ["seller_id", "state", "order_id"]);
    await dropIndex(db, "orders", "orders_state_buyer");
    await dropIndex(db, "orders", "orders_state_seller");
  },
};

async function createIndex(db: Kysely<unknown>, name: string, columns: string[]): Promise<void> {
  await db.schema.createIndex(name).on("orders").columns(columns).execute();
}
