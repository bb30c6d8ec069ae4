import type { Kysely } from "kysely";

/** The number of a payment's last event, and when somebody is to look after it, in its own row; null where that still stands in sequence and job. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema.alterTable("payment").addColumn("event_sequence", "bigint").execute();
  await db.schema.alterTable("payment").addColumn("watch_time", "bigint").execute();
  // The watch: where watch_time is not null order by watch_time limit ?
  await db.schema.createIndex("payment_watch").on("payment").column("watch_time").execute();
}

/** Why it is not undone. */
export const down = "the numbers of the events that were told would be lost.";
