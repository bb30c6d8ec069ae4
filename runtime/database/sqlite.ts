import { DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite";
import { setTimeout as sleep } from "node:timers/promises";
import {
  type CompiledQuery,
  type DatabaseConnection,
  type Dialect,
  type Driver,
  type Kysely,
  type QueryCompiler,
  type QueryResult,
  SqliteAdapter,
  SqliteIntrospector,
  SqliteQueryCompiler,
} from "kysely";
import { currentScope, startingScope } from "./scope.ts";

/** How long a write outside a transaction waits for the writer before it gives up. */
const LOCK_WAIT_MS = 30_000;
/** Prepared statements kept per connection; the least recently used goes first. */
const STATEMENTS_MAX = 512;
/** How often a file locked by another process is tried again. SQLite's own busy timeout would block the thread, so it is short. */
const BUSY_RETRY_MS = 3;

/** Which columns hold money or other integers that must stay exact: read as `bigint`, whatever their size. */
export type IsBigInt = (column: string) => boolean;

/**
 * Kysely on `node:sqlite`, with two connections to one file in WAL mode: a writer, which one transaction at a time holds, and a
 * reader for selects outside transactions. SQLite runs in this thread, so a select never waits: it sees the last commit.
 *
 * Integers come out as `number`, or as `bigint` where `isBigInt` says so or where a number would not be exact; none makes a read throw.
 */
export function sqliteDialect(file: string, isBigInt: IsBigInt): Dialect {
  return {
    createDriver: () => new SoukSqliteDriver(file, isBigInt),
    createQueryCompiler: () => new SqliteQueryCompiler(),
    createAdapter: () => new SoukSqliteAdapter(),
    createIntrospector: (db: Kysely<unknown>) => new SqliteIntrospector(db),
  };
}

/** What Kysely's own adapter leaves unused: schema changes are transactional, and a lease each makes many users of two connections. */
class SoukSqliteAdapter extends SqliteAdapter {
  /** False would put all of Kysely behind one lock, reads too. */
  override get supportsMultipleConnections(): boolean {
    return true;
  }

  override get supportsTransactionalDdl(): boolean {
    return true;
  }
}

class SoukSqliteDriver implements Driver {
  readonly #file: string;
  readonly #isBigInt: IsBigInt;
  #writer!: Handle;
  #reader!: Handle;
  readonly #gate = new Gate();

  constructor(file: string, isBigInt: IsBigInt) {
    this.#file = file;
    this.#isBigInt = isBigInt;
  }

  async init(): Promise<void> {
    this.#writer = new Handle(this.#file, this.#isBigInt);
    await whileBusy(Date.now() + LOCK_WAIT_MS, undefined, () => this.#writer.exec("pragma journal_mode = wal"));
    this.#writer.exec("pragma foreign_keys = on; pragma busy_timeout = 1; pragma temp_store = memory");
    this.#reader = new Handle(this.#file, this.#isBigInt);
    this.#reader.exec("pragma query_only = on; pragma busy_timeout = 100; pragma temp_store = memory");
  }

  async acquireConnection(): Promise<DatabaseConnection> {
    return new Lease(this.#writer, this.#reader, this.#gate);
  }

  async beginTransaction(connection: DatabaseConnection): Promise<void> {
    await (connection as Lease).begin();
  }

  async commitTransaction(connection: DatabaseConnection): Promise<void> {
    (connection as Lease).end("commit");
  }

  async rollbackTransaction(connection: DatabaseConnection): Promise<void> {
    (connection as Lease).end("rollback");
  }

  async savepoint(connection: DatabaseConnection, name: string, _compile: QueryCompiler["compileQuery"]): Promise<void> {
    (connection as Lease).savepoint("savepoint", name);
  }

  async rollbackToSavepoint(connection: DatabaseConnection, name: string, _compile: QueryCompiler["compileQuery"]): Promise<void> {
    (connection as Lease).savepoint("rollback to", name);
  }

  async releaseSavepoint(connection: DatabaseConnection, name: string, _compile: QueryCompiler["compileQuery"]): Promise<void> {
    (connection as Lease).savepoint("release", name);
  }

  async releaseConnection(connection: DatabaseConnection): Promise<void> {
    (connection as Lease).release();
  }

  async destroy(): Promise<void> {
    this.#reader?.close();
    this.#writer?.close();
  }
}

/** One use of the database: a single statement, or a transaction from begin to end. */
class Lease implements DatabaseConnection {
  readonly #writer: Handle;
  readonly #reader: Handle;
  readonly #gate: Gate;
  #holds = false;

  constructor(writer: Handle, reader: Handle, gate: Gate) {
    this.#writer = writer;
    this.#reader = reader;
    this.#gate = gate;
  }

  async executeQuery<R>(query: CompiledQuery): Promise<QueryResult<R>> {
    if (this.#holds) {
      return this.#write<R>(query);
    }
    const scope = currentScope();
    if (scope !== undefined) {
      // A write would wait for the transaction for ever; a read would not see its changes, and take a second connection from a pool.
      throw new Error(`a statement beside the open transaction of "${scope.database}": use the transaction's tx.em and tx.sql.`);
    }
    if (isRead(query)) {
      return this.#reader.execute<R>(query);
    }
    const deadline = Date.now() + LOCK_WAIT_MS;
    await this.#gate.enter(deadline, undefined);
    try {
      this.#writer.synchronous("full");
      return await whileBusy(deadline, undefined, () => this.#write<R>(query));
    } finally {
      this.#gate.leave();
    }
  }

  #write<R>(query: CompiledQuery): QueryResult<R> {
    const result = this.#writer.execute<R>(query);
    if (SCHEMA_CHANGE.test(query.sql)) {
      this.#writer.forget();
      this.#reader.forget();
    }
    return result;
  }

  // biome-ignore lint/correctness/useYield: a refusal in the shape Kysely asks for.
  async *streamQuery<R>(): AsyncIterableIterator<QueryResult<R>> {
    throw new Error("streaming is not supported: read page by page.");
  }

  /** Takes the writer, then SQLite's write lock, at once: a transaction that began as a reader could not become a writer safely. */
  async begin(): Promise<void> {
    const scope = startingScope();
    const deadline = scope?.deadline ?? Date.now() + LOCK_WAIT_MS;
    await this.#gate.enter(deadline, scope?.signal);
    try {
      this.#writer.synchronous(scope?.durable === false ? "normal" : "full");
      await whileBusy(deadline, scope?.signal, () => this.#writer.run("begin immediate"));
      this.#holds = true;
    } catch (error) {
      this.#gate.leave();
      throw error;
    }
  }

  end(how: "commit" | "rollback"): void {
    try {
      // SQLite has already rolled back after some errors (a full disk); asking again would hide the first error.
      if (how === "commit" || this.#writer.inTransaction) {
        this.#writer.run(how);
      }
    } finally {
      if (how === "rollback" || !this.#writer.inTransaction) {
        this.release();
      }
    }
  }

  savepoint(command: string, name: string): void {
    this.#writer.run(`${command} "${name.replaceAll('"', '""')}"`);
  }

  release(): void {
    if (this.#holds) {
      this.#holds = false;
      this.#gate.leave();
    }
  }
}

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
class Handle {
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

/** Lets one in at a time, in the order of asking. */
class Gate {
  #taken = false;
  readonly #waiting: (() => void)[] = [];

  async enter(deadline: number, signal: AbortSignal | undefined): Promise<void> {
    if (!this.#taken) {
      this.#taken = true;
      return;
    }
    await new Promise<void>((resolve, reject) => {
      const giveUp = () => {
        const index = this.#waiting.indexOf(granted);
        if (index >= 0) {
          this.#waiting.splice(index, 1);
        }
        signal?.removeEventListener("abort", giveUp);
        clearTimeout(timer);
        reject(new LockTimeout());
      };
      const timer = setTimeout(giveUp, Math.max(0, deadline - Date.now()));
      const granted = () => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", giveUp);
        resolve();
      };
      this.#waiting.push(granted);
      signal?.addEventListener("abort", giveUp, { once: true });
      if (signal?.aborted) {
        giveUp();
      }
    });
  }

  leave(): void {
    const next = this.#waiting.shift();
    if (next === undefined) {
      this.#taken = false;
    } else {
      next();
    }
  }
}

/** The deadline passed while waiting for another transaction to end. */
export class LockTimeout extends Error {
  constructor() {
    super("database is locked: the deadline passed while waiting for another transaction");
  }
}

/** Whether SQLite says that another connection holds the lock (SQLITE_BUSY and its extended codes, SQLITE_LOCKED). */
export function isSqliteBusy(error: unknown): boolean {
  const code = (error as { errcode?: unknown } | null)?.errcode;
  return typeof code === "number" && ((code & 0xff) === 5 || (code & 0xff) === 6);
}

async function whileBusy<T>(deadline: number, signal: AbortSignal | undefined, work: () => T): Promise<T> {
  for (;;) {
    try {
      return work();
    } catch (error) {
      if (!isSqliteBusy(error)) {
        throw error;
      }
      if (Date.now() >= deadline || signal?.aborted) {
        throw new LockTimeout();
      }
      await sleep(BUSY_RETRY_MS * (0.5 + Math.random()));
    }
  }
}

const READ = /^\s*(select|explain|values)\b/i;
const WITH = /^\s*with\b/i;
const SCHEMA_CHANGE = /^\s*(create|alter|drop)\b/i;
const WRITE_WORD = /\b(insert|update|delete|replace)\b/i;

function isRead(query: CompiledQuery): boolean {
  if (query.query.kind === "SelectQueryNode") {
    return true;
  }
  return READ.test(query.sql) || (WITH.test(query.sql) && !WRITE_WORD.test(query.sql));
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
