import { type Kysely, SqliteAdapter } from "kysely";

/** Drops an index, for migrations: SQLite names indexes for the whole database, MySQL and MariaDB for their table. */
export async function dropIndex(sql: Kysely<unknown>, table: string, name: string): Promise<void> {
  const drop = sql.schema.dropIndex(name);
  await (sql.getExecutor().adapter instanceof SqliteAdapter ? drop : drop.on(table)).execute();
}
