import type { Migration } from "#runtime/database/migrations.ts";

/**
 * What a purchase writes again and again stands in the order's own row: the steps of its saga, the number of its last event, and when somebody is to look after it.
 * Null where it still stands in saga_step, sequence and job.
 */
export const oneRow: Migration = {
  name: "0003-one-row",
  async up(db) {
    await db.schema.alterTable("orders").addColumn("saga", "text").execute();
    await db.schema.alterTable("orders").addColumn("event_sequence", "bigint").execute();
    await db.schema.alterTable("orders").addColumn("watch_time", "bigint").execute();
    // The watch: where watch_time is not null order by watch_time limit ?
    await db.schema.createIndex("orders_watch").on("orders").column("watch_time").execute();
  },
  down: "the steps of sagas, and the numbers of the events that were told, would be lost.",
};
