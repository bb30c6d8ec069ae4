import { type Kysely, MysqlAdapter, type RawBuilder } from "kysely";
import type { RuntimeTables } from "./tables.ts";

/** A row to be inserted, and what to change instead in the row that has its key already. */
export interface Upsert {
  readonly table: keyof RuntimeTables;
  readonly row: Readonly<Record<string, unknown>>;
  /** The columns of the primary key. */
  readonly key: readonly string[];
  readonly change: Readonly<Record<string, unknown | RawBuilder<unknown>>>;
}

/**
 * Inserts the row or changes the one that is there, by one statement. To insert first and to update after a duplicate key would lock the row there as a
 * reader and then as a writer, so that of two who do it at once one dies of a deadlock.
 */
export async function upsert(sql: Kysely<RuntimeTables>, { table, row, key, change }: Upsert): Promise<void> {
  const any = sql as unknown as Kysely<Record<string, Record<string, unknown>>>;
  const insert = any.insertInto(table).values(row);
  const whole =
    any.getExecutor().adapter instanceof MysqlAdapter
      ? insert.onDuplicateKeyUpdate(change)
      : insert.onConflict((conflict) => conflict.columns([...key]).doUpdateSet(change));
  await whole.execute();
}
