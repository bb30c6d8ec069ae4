import { type Kysely, sql } from "kysely";

/** Which processor these payments are with. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable("processor_identity")
    .addColumn("only_row", "integer", (c) => c.primaryKey())
    .addColumn("processor_id", "varchar(64)", (c) => c.notNull())
    .addCheckConstraint("processor_identity_single", sql`only_row = 1`)
    .execute();
}

/** It is noted again at the next start. */
export async function down(db: Kysely<unknown>): Promise<void> {
  await db.schema.dropTable("processor_identity").execute();
}
