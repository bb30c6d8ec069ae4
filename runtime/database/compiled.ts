import type { Compilable, CompiledQuery, Insertable, Kysely, Updateable } from "kysely";

/** The place of a value in a statement that is compiled before the value is known. */
class Hole {
  readonly name: string;
  constructor(name: string) {
    this.name = name;
  }
}

/** Something that is compiled already, or can be. */
export type Statement<O> = Compilable<O> | CompiledQuery<O>;

/** The statement as it is sent. */
export function compiledOf<O>(statement: Statement<O>): CompiledQuery<O> {
  return "compile" in statement ? statement.compile() : statement;
}

/**
 * Compiles a statement once for all its values: building a statement costs more than running it. `build` gets, in the place of each value, something that may
 * only be handed to Kysely as a value; what the values are must not change the statement's text.
 */
export function compiled<V extends object, R>(build: (holes: V) => Compilable<R>): (values: V) => CompiledQuery<R> {
  let query: CompiledQuery<R> | undefined;
  return (values) => {
    query ??= build(new Proxy({}, { get: (_, name) => new Hole(String(name)) }) as V).compile();
    const parameters = query.parameters.map((each) => (each instanceof Hole ? values[each.name as keyof V] : each));
    return { ...query, parameters };
  };
}

/** As `compiled`, for statements that are not bound to one database: once for each kind of store. */
export function compiledFor<DB, V extends object, R>(
  build: (sql: Kysely<DB>, holes: V) => Compilable<R>,
): (sql: Kysely<DB>, values: V) => CompiledQuery<R> {
  const perStore = new Map<unknown, (values: V) => CompiledQuery<R>>();
  return (sql, values) => {
    const store = storeOf(sql);
    let query = perStore.get(store);
    if (query === undefined) {
      query = compiled<V, R>((holes) => build(sql, holes));
      perStore.set(store, query);
    }
    return query(values);
  };
}

/** Inserts one row. Compiled once for each table and set of columns. */
export function insertRow<DB, T extends keyof DB & string>(
  sql: Kysely<DB>,
  table: T,
  row: Insertable<DB[T]>,
): CompiledQuery<unknown> {
  const columns = Object.keys(row);
  return shaped(sql, `insert ${table} ${columns}`, valuesOf(row, columns), (any) =>
    any.insertInto(table).values(Object.fromEntries(columns.map((column) => [column, 0]))),
  );
}

/** Inserts rows of the same columns, at least one. */
export function insertRows<DB, T extends keyof DB & string>(
  sql: Kysely<DB>,
  table: T,
  rows: readonly Insertable<DB[T]>[],
): Statement<unknown> {
  const [first] = rows;
  return rows.length === 1 && first !== undefined ? insertRow(sql, table, first) : sql.insertInto(table).values(rows);
}

/** Sets columns of the rows whose columns equal those of `where`. Compiled once for each table and sets of columns. */
export function updateRow<DB, T extends keyof DB & string>(
  sql: Kysely<DB>,
  table: T,
  set: Updateable<DB[T]>,
  where: Updateable<DB[T]>,
): CompiledQuery<unknown> {
  const [columns, keys] = [Object.keys(set), Object.keys(where)];
  const values = [...valuesOf(set, columns), ...valuesOf(where, keys)];
  return shaped(sql, `update ${table} ${columns} ${keys}`, values, (any) => {
    let query = any.updateTable(table as string).set(Object.fromEntries(columns.map((column) => [column, 0])));
    for (const key of keys) {
      query = query.where(key, "=", 0);
    }
    return query;
  });
}

type AnyTables = Kysely<Record<string, Record<string, unknown>>>;

const shapes = new Map<unknown, Map<string, CompiledQuery<unknown>>>();

function shaped(
  sql: Pick<Kysely<never>, "getExecutor">,
  shape: string,
  parameters: unknown[],
  build: (sql: AnyTables) => Compilable<unknown>,
): CompiledQuery<unknown> {
  const store = storeOf(sql);
  const known = shapes.get(store) ?? new Map<string, CompiledQuery<unknown>>();
  shapes.set(store, known);
  let query = known.get(shape);
  if (query === undefined) {
    query = build(sql as unknown as AnyTables).compile();
    known.set(shape, query);
  }
  return { ...query, parameters };
}

/** What decides how a statement is written: MySQL's words, or SQLite's. */
function storeOf(sql: Pick<Kysely<never>, "getExecutor">): unknown {
  return sql.getExecutor().adapter.constructor;
}

function valuesOf(row: object, columns: readonly string[]): unknown[] {
  return columns.map((column) => (row as Record<string, unknown>)[column] ?? null);
}
