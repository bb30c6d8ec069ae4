import { type Kysely, sql } from "kysely";

/** Rebuilds of the index. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable("reindex")
    .addColumn("reindex_id", "varchar(36)", (c) => c.primaryKey())
    .addColumn("state", "varchar(16)", (c) => c.notNull())
    .addColumn("running", "integer")
    .addColumn("listings_read", "integer", (c) => c.notNull())
    .addColumn("start_time", "bigint", (c) => c.notNull())
    .addColumn("end_time", "bigint")
    .addColumn("failure", "varchar(500)", (c) => c.notNull())
    // Nulls do not collide: any number have ended, one runs.
    .addUniqueConstraint("reindex_running", ["running"])
    .addCheckConstraint("reindex_state", sql`state in ('RUNNING', 'DONE', 'FAILED')`)
    .addCheckConstraint(
      "reindex_ended",
      sql`(state = 'RUNNING') = (running is not null) and (state = 'RUNNING') = (end_time is null)`,
    )
    .execute();
  // The latest: order by reindex_id desc limit 1; ids are time-ordered.
}

/** Undoes it; which rebuilds there were is of no use without the table. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await db.schema.dropTable("reindex").execute();
}
