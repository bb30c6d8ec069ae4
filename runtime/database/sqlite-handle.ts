import { DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite";
import type { CompiledQuery, QueryResult } from "kysely";
import type { IsBigInt } from "./store.ts";

/** Prepared statements kept per connection; the least recently used goes first. */
const STATEMENTS_MAX = 512;

interface Prepared {
  readonly statement: StatementSync;
  /** The names of the columns it gives; empty when it gives no rows. */
  readonly columns: readonly string[];
  /** Which of them come as `bigint` whatever their size. */
  readonly exact: readonly boolean[];
}

function toObject(row: unknown[], { columns, exact }: Prepared): Record<string, unknown> {
  const object: Record<string, unknown> = {};
  for (let i = 0; i < columns.length; i++) {
    let value = row[i];
    if (typeof value === "bigint" && !exact[i]) {
      const number = Number(value);
      value = Number.isSafeInteger(number) ? number : value;
    }
    object[columns[i] as string] = value;
  }
  return object;
}

/** A connection with its prepared statements. */
export class Handle {
  readonly #db: DatabaseSync;
  readonly #isBigInt: IsBigInt;
  readonly #statements = new Map<string, Prepared>();
  #synchronous = "";

  constructor(file: string, isBigInt: IsBigInt) {
    this.#db = new DatabaseSync(file, { timeout: 1, enableForeignKeyConstraints: true });
    this.#isBigInt = isBigInt;
  }

  get inTransaction(): boolean {
    return this.#db.isTransaction;
  }

  exec(sql: string): void {
    this.#db.exec(sql);
  }

  close(): void {
    this.#statements.clear();
    if (this.#db.isOpen) {
      this.#db.close();
    }
  }

  /** Drops the prepared statements: their columns may have changed. */
  forget(): void {
    this.#statements.clear();
  }

  run(sql: string): void {
    this.#prepare(sql, true).statement.run();
  }

  /** "full": a commit survives the machine's power failing. "normal": it survives the process being killed, which costs no disk wait. */
  synchronous(level: "full" | "normal"): void {
    if (this.#synchronous !== level) {
      this.#db.exec(`pragma synchronous = ${level}`);
      this.#synchronous = level;
    }
  }

  execute<R>(query: CompiledQuery): QueryResult<R> {
    const values = query.parameters.map(toSqlite);
    const prepared = this.#prepare(query.sql, values.length > 0);
    if (prepared.columns.length > 0) {
      const rows = (prepared.statement.all(...values) as unknown as unknown[][]).map((row) => toObject(row, prepared));
      return { rows: rows as R[], numAffectedRows: BigInt(rows.length) };
    }
    const { changes, lastInsertRowid } = prepared.statement.run(...values);
    return { rows: [], numAffectedRows: BigInt(changes), insertId: BigInt(lastInsertRowid) };
  }

  #prepare(sql: string, keep: boolean): Prepared {
    const known = this.#statements.get(sql);
    if (known !== undefined) {
      this.#statements.delete(sql);
      this.#statements.set(sql, known);
      return known;
    }
    const statement = this.#db.prepare(sql);
    statement.setReadBigInts(true);
    statement.setReturnArrays(true);
    const columns = statement.columns().map((column) => column.name);
    const prepared = { statement, columns, exact: columns.map(this.#isBigInt) };
    if (keep) {
      this.#statements.set(sql, prepared);
      if (this.#statements.size > STATEMENTS_MAX) {
        this.#statements.delete(this.#statements.keys().next().value as string);
      }
    }
    return prepared;
  }
}

function toSqlite(value: unknown): SQLInputValue {
  if (typeof value === "number" && Number.isSafeInteger(value)) {
    // As a double, which a number would be, it would lose digits in sums with large integers.
    return BigInt(value);
  }
  if (typeof value === "boolean") {
    return value ? 1 : 0;
  }
  if (value === undefined) {
    return null;
  }
  if (value instanceof Date) {
    return value.getTime();
  }
  return value as SQLInputValue;
}
