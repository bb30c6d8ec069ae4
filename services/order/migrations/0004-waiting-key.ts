import type { Migration } from "#runtime/database/migrations.ts";

/** Who waits for a purchase stands in the order's row: nearly always it is one, whoever placed it. Null where it stands in order_command. */
export const waitingKey: Migration = {
  name: "0004-waiting-key",
  async up(db) {
    await db.schema.alterTable("orders").addColumn("waiting_key", "varchar(191)").execute();
  },
  down: "who waits for a purchase would get no answer.",
};
