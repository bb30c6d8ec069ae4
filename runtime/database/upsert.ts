import { type Compilable, type Kysely, MysqlAdapter, type RawBuilder, sql as raw } from "kysely";
import type { Outcome } from "./batch.ts";
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
export function upsert(sql: Kysely<RuntimeTables>, { table, row, key, change }: Upsert): Compilable<unknown> {
  const insert = anyTable(sql).insertInto(table).values(row);
  return isMysql(sql)
    ? insert.onDuplicateKeyUpdate(change)
    : insert.onConflict((conflict) => conflict.columns([...key]).doUpdateSet(change));
}

/** A sequence and how many numbers are taken of it. */
export interface Taken {
  readonly type: string;
  readonly id: string;
  readonly count: number;
}

/** Takes numbers of an aggregate's sequence; its row is locked until the commit. `lastNumber` reads the outcome. */
export function takeNumbers(sql: Kysely<RuntimeTables>, { type, id, count }: Taken): Compilable<unknown> {
  const insert = anyTable(sql).insertInto("sequence");
  const name = { aggregate_type: type, aggregate_id: id };
  if (isMysql(sql)) {
    // The argument comes back as the number that the statement gave: no second statement asks for it.
    return insert
      .values({ ...name, value: raw`last_insert_id(${count})` })
      .onDuplicateKeyUpdate({ value: raw`last_insert_id(value + ${count})` });
  }
  return insert
    .values({ ...name, value: count })
    .onConflict((conflict) =>
      conflict.columns(["aggregate_type", "aggregate_id"]).doUpdateSet({ value: raw`${raw.ref("sequence.value")} + ${count}` }),
    )
    .returning("value");
}

/** The last number that `takeNumbers` took. */
export function lastNumber({ rows, insertId }: Outcome<unknown>): number {
  const [row] = rows as { value: number }[];
  return row?.value ?? Number(insertId);
}

function anyTable(sql: Kysely<RuntimeTables>) {
  return sql as unknown as Kysely<Record<string, Record<string, unknown>>>;
}

function isMysql(sql: Kysely<RuntimeTables>): boolean {
  return sql.getExecutor().adapter instanceof MysqlAdapter;
}
