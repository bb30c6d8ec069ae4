import { type Kysely, sql } from "kysely";
import { dropEmpty } from "#runtime/database/migrations.ts";

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

/** Undoes it, while nothing is being published. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await dropEmpty(db, ["creation"]);
  await db.schema.alterTable("listing").dropColumn("creation_id").execute();
}
