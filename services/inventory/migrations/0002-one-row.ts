import type { Kysely } from "kysely";

/** The number of a listing's last event in the row of its stock, and when a reservation runs out in its own; null where that still stands in sequence and job. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema.alterTable("stock").addColumn("event_sequence", "bigint").execute();
  await db.schema.alterTable("reservation").addColumn("watch_time", "bigint").execute();
  // The watch: where watch_time is not null order by watch_time limit ?
  await db.schema.createIndex("reservation_watch").on("reservation").column("watch_time").execute();
}

/** Why it is not undone. */
export const down = "the numbers of the events that were told would be lost.";
