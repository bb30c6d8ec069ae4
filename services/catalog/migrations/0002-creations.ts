import { type Kysely, sql } from "kysely";

/** Publications that are under way: listings that become active once inventory has been told. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema.alterTable("listing").addColumn("creation_id", "varchar(36)").execute();
  await db.schema
    .createTable("creation")
    .addColumn("creation_id", "varchar(36)", (c) => c.primaryKey())
    .addColumn("request_key", "varchar(191)", (c) => c.notNull())
    .addColumn("method", "varchar(32)", (c) => c.notNull())
    .addColumn("offer", "blob", (c) => c.notNull())
    .addColumn("results", "blob", (c) => c.notNull())
    .addCheckConstraint("creation_method", sql`method in ('CreateListing', 'BatchCreateListings', 'PublishListing')`)
    .execute();
}
