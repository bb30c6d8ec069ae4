import {
  CompiledQuery,
  type DatabaseConnection,
  type Dialect,
  type Driver,
  type Kysely,
  MysqlAdapter,
  MysqlIntrospector,
  MysqlQueryCompiler,
  type QueryResult,
} from "kysely";
import { escape as escaped, type FieldPacket, format, type Pool, type PoolConnection, type ResultSetHeader } from "mysql2";
import { type Timed, Watch } from "#runtime/rpc/watch.ts";
import type { ObservedDatabase, Observer } from "#runtime/telemetry/observer.ts";
import { type BatchingConnection, type Deferred, DeferredConflict, requireOne } from "./batch.ts";
import { isUniqueViolation, told } from "./errors.ts";
import { LockTimeout, refuseBesideTransaction, type Scope, startingScope } from "./scope.ts";
import { statements } from "./statements.ts";
import type { IsBigInt } from "./store.ts";

const STATEMENT_TIMEOUT_MS = 30_000;
/** How long a statement waits for a row that another transaction holds; then the whole transaction tries again, within its deadline. */
export const LOCK_WAIT_S = 3;
/** How long a commit may take at least, though the deadline passes meanwhile. Longer than its statements wait for a lock. */
const COMMIT_TIMEOUT_MS = 5_000;
/** How much time must be left for a transaction to go in one packet with its commit when so many of its statements wait for somebody's lock. */
function waitsMs(statements: number): number {
  return LOCK_WAIT_S * 1_000 * statements + 1_000;
}

/** What a connection knows of the database it belongs to. */
export interface DialectOptions {
  /** The owner. */
  readonly service: string;
  readonly isBigInt: IsBigInt;
  /** Of new tables: compares text bytewise, spaces at the end included, and holds any Unicode text. */
  readonly collation: string;
  /** How long a statement outside a transaction may take, and the wait for a connection for it; 30 s unless given. */
  readonly timeoutMs?: number;
  readonly observer?: Observer | undefined;
  /** What the observer is told of the database. */
  readonly observed?: ObservedDatabase;
}

/**
 * Kysely on a pool of mysql2's. Unlike Kysely's own driver a connection is waited for and used within the deadline of the transaction, one whose state is
 * unknown is closed rather than used again, and integers come as `sqlite-dialect.ts` gives them: `number`, or `bigint` where `isBigInt` says so or where
 * a number would not be exact; sums too.
 */
export function mysqlDialect(pool: Pool, options: DialectOptions): Dialect {
  return {
    createDriver: () => new PoolDriver(pool, options),
    createQueryCompiler: () => new MysqlQueryCompiler(),
    createAdapter: () => new MysqlAdapter(),
    createIntrospector: (db: Kysely<unknown>) => new MysqlIntrospector(db),
  };
}

/** Gives connections of a pool to Kysely. */
export class PoolDriver implements Driver {
  readonly #pool: Pool;
  readonly #options: DialectOptions;
  /** Ends what waits for a connection or an answer for too long. */
  readonly #watch = new Watch();

  constructor(pool: Pool, options: DialectOptions) {
    this.#pool = pool;
    this.#options = options;
  }

  async init(): Promise<void> {}

  async acquireConnection(): Promise<MysqlConnection> {
    refuseBesideTransaction();
    const scope = startingScope();
    const raw = await this.#acquire(scope).catch((error: unknown) => {
      throw (scope === undefined ? told(error) : undefined) ?? error;
    });
    return new MysqlConnection(raw, this.#options, scope, this.#watch);
  }

  /** mysql2 bounds how many wait, and not how long. */
  #acquire(scope: Scope | undefined): Promise<PoolConnection> {
    const { promise, resolve, reject } = Promise.withResolvers<PoolConnection>();
    const giveUp = () => reject(new LockTimeout());
    const deadline = scope?.deadline ?? Date.now() + (this.#options.timeoutMs ?? STATEMENT_TIMEOUT_MS);
    const timed: Timed = { dueTime: deadline, slot: -1, expire: giveUp };
    this.#watch.add(timed);
    scope?.signal?.addEventListener("abort", giveUp, { once: true });
    let waiting = true;
    this.#pool.getConnection((error, connection) => {
      if (error) {
        reject(error);
      } else if (waiting) {
        resolve(connection);
      } else {
        connection.release();
      }
    });
    return promise.finally(() => {
      waiting = false;
      this.#watch.remove(timed);
      scope?.signal?.removeEventListener("abort", giveUp);
    });
  }

  async beginTransaction(connection: DatabaseConnection): Promise<void> {
    (connection as MysqlConnection).begin();
  }

  async commitTransaction(connection: DatabaseConnection): Promise<void> {
    await (connection as MysqlConnection).commit();
  }

  /** Without an answer the server rolls back when the connection is closed, so this cannot fail. */
  async rollbackTransaction(connection: DatabaseConnection): Promise<void> {
    const own = connection as MysqlConnection;
    if (!own.closed) {
      await own.rollback().catch(() => own.close());
    }
  }

  async releaseConnection(connection: DatabaseConnection): Promise<void> {
    (connection as MysqlConnection).release();
  }

  async destroy(): Promise<void> {
    await new Promise<void>((resolve, reject) => this.#pool.end((error) => (error ? reject(error) : resolve())));
  }
}

const BEGIN: Deferred = { query: CompiledQuery.raw("start transaction") };
const COMMIT = CompiledQuery.raw("commit");
const ROLLBACK = CompiledQuery.raw("rollback");

/** Fails unless the statement before it changed one row: a number that no column holds. MySQL and MariaDB know no shorter way outside a procedure. */
const MUST: Deferred = { query: CompiledQuery.raw("set @souk_ok = exp(if(row_count() = 1, 0, 1000))") };
/** Remembers when the server began with a packet. */
const SINCE: Deferred = { query: CompiledQuery.raw("set @souk_since = now(6)") };

/** The statements that somebody asked for. */
function withoutOurs(queries: readonly CompiledQuery[]): readonly CompiledQuery[] {
  return queries.filter(({ sql }) => !sql.startsWith("set @souk_"));
}

/**
 * What goes in one packet with its commit: behind each statement that had to change a row one that fails when it did not, and, should they all wait for
 * somebody longer than there is time, before the commit one that fails when they did. What fails keeps the rest from running.
 */
function guarded(pending: readonly Deferred[], leftMs: number): Deferred[] {
  const statements = pending.flatMap((each) => (each.must ? [each, MUST] : [each]));
  if (leftMs >= waitsMs(pending.length)) {
    return statements;
  }
  const late = `set @souk_in_time = exp(if(timestampdiff(microsecond, @souk_since, sysdate(6)) < ${Math.floor(leftMs * 1_000)}, 0, 1000))`;
  const began = pending[0] === BEGIN ? [BEGIN, SINCE] : [SINCE];
  return [...began, ...statements.slice(began.length - 1), { query: CompiledQuery.raw(late), late: true }];
}

/** One use of a pooled connection: a single statement, or a transaction from begin to end. */
export class MysqlConnection implements DatabaseConnection, BatchingConnection, Timed {
  readonly #raw: PoolConnection;
  readonly #options: DialectOptions;
  readonly #scope: Scope | undefined;
  #timeoutMs: number;
  #resuming = false;
  /** What goes in front of the next statement; the beginning of a transaction first. */
  #pending: Deferred[] = [];
  readonly #watch: Watch;
  #giveUp: ((error: Error) => void) | undefined;
  dueTime = 0;
  slot = -1;
  closed = false;

  constructor(raw: PoolConnection, options: DialectOptions, scope: Scope | undefined, watch: Watch) {
    this.#watch = watch;
    this.#raw = raw;
    this.#options = options;
    this.#scope = scope;
    this.#timeoutMs = options.timeoutMs ?? STATEMENT_TIMEOUT_MS;
  }

  /** Begins a transaction: told to the server together with the first statement. */
  begin(): void {
    this.#pending.push(BEGIN);
  }

  defer(queries: readonly Deferred[]): void {
    for (const query of queries) {
      this.#pending.push(query);
    }
  }

  /**
   * Ends the transaction, with what was put off in front; what is to be looked at goes before. One in which nothing was sent never began, and one statement alone
   * needs no transaction around it: if it changes nothing, nothing is to be undone.
   */
  async commit(): Promise<void> {
    if (this.#pending[0] === BEGIN && this.#pending.length <= 2) {
      const [, alone] = this.#pending;
      this.#pending = [];
      if (alone !== undefined) {
        this.defer([alone]);
        await this.#flush([], true);
      }
      return;
    }
    const leftMs = this.#leftMs();
    if (leftMs >= waitsMs(1)) {
      this.#pending = guarded(this.#pending, leftMs);
    } else {
      const last = this.#pending.findLastIndex((each) => each.must);
      // Where nothing is looked at, its first statement goes before all the same: it may have to wait for somebody, and longer than there is time; then
      // nothing may be made final.
      const first = last === -1 && this.#pending[0] === BEGIN ? 1 : last;
      const rest = this.#pending.splice(first + 1);
      if (first !== -1) {
        await this.executeAll([]);
      }
      this.defer(rest);
    }
    await this.#flush([COMMIT], true);
  }

  #leftMs(): number {
    return this.#scope === undefined ? this.#timeoutMs : Math.max(1, this.#scope.deadline - Date.now());
  }

  async rollback(): Promise<void> {
    const began = this.#pending[0] !== BEGIN;
    this.#pending = [];
    if (began) {
      await this.executeAll([ROLLBACK]);
    }
  }

  /** The server has taken too long to answer: nobody knows what state the connection is in. */
  expire(): void {
    this.#watch.remove(this);
    this.close();
    this.#giveUp?.(new LockTimeout());
  }

  async executeQuery<R>(query: CompiledQuery): Promise<QueryResult<R>> {
    const [result] = await this.executeAll([query]);
    return result as QueryResult<R>;
  }

  executeAll(queries: readonly CompiledQuery[]): Promise<QueryResult<unknown>[]> {
    return this.#flush(queries, false);
  }

  /** Sends what was put off and then these, in one round trip. `commits`: they end the transaction. */
  async #flush(queries: readonly CompiledQuery[], commits: boolean): Promise<QueryResult<unknown>[]> {
    if (queries.length + this.#pending.length === 0) {
      return [];
    }
    if (this.closed) {
      throw new LockTimeout();
    }
    const before = this.#pending;
    const all = before.length === 0 ? queries : [...before.map(({ query }) => query), ...queries];
    if (statements.hasSubscribers) {
      for (const query of withoutOurs(all)) {
        statements.publish({ service: this.#options.service, dialect: "mysql", ...query });
      }
    }
    const { observer, observed } = this.#options;
    const ended = observed && observer?.statements(observed, withoutOurs(all));
    /** The rows that each statement changed, as far as they have answered. */
    const answered: number[] = [];
    let results: QueryResult<unknown>[];
    try {
      const sent = this.#send(all, commits, answered);
      // Not before: after a statement with a value that cannot be sent, the transaction has still to begin.
      this.#pending = [];
      results = await sent;
      ended?.();
    } catch (error) {
      ended?.(error);
      if (isFatal(error)) {
        this.close();
      }
      if (this.#resuming && isThereAlready(error)) {
        return queries.map(() => ({ rows: [] }));
      }
      // Who met the error may have met it because a statement before it changed nothing.
      const missed = before.find(({ must }, index) => must && answered[index] === 0);
      if (missed !== undefined || (answered.length < before.length && isUniqueViolation(error))) {
        throw new DeferredConflict(error, missed ?? before[answered.length]);
      }
      if (answered.length < before.length && before[answered.length]?.late === true) {
        throw new LockTimeout();
      }
      throw (this.#scope === undefined ? told(error) : undefined) ?? error;
    }
    for (const [index, each] of before.entries()) {
      requireOne(each, results[index]);
    }
    return before.length === 0 ? results : results.slice(before.length);
  }

  /** One round trip. */
  #send(queries: readonly CompiledQuery[], commits: boolean, answered: number[]): Promise<QueryResult<unknown>[]> {
    const { promise, resolve, reject } = Promise.withResolvers<QueryResult<unknown>[]>();
    const left = this.#leftMs();
    // A commit is heard out: given up, nobody would know whether it happened, nor go on with what it began.
    const timeout = commits ? left + COMMIT_TIMEOUT_MS : left;
    const [first] = queries as [CompiledQuery];
    const single = queries.length === 1;
    const sql = single ? this.#textOf(first) : queries.map((query) => this.#textOf(query)).join(";\n");
    // Ours, not mysql2's, which leaves its timer running when the connection breaks.
    this.dueTime = Date.now() + timeout;
    this.#giveUp = reject;
    this.#watch.add(this);
    const command = this.#raw.query({ sql, values: null }, (error: Error | null, result: unknown, fields: unknown) => {
      this.#watch.remove(this);
      if (error !== null) {
        reject(error);
      } else if (single) {
        resolve([this.#resultOf(result, fields as FieldPacket[] | undefined)]);
      } else {
        resolve((result as unknown[]).map((each, index) => this.#resultOf(each, (fields as (FieldPacket[] | undefined)[])[index])));
      }
    });
    command.on("fields", () => answered.push(-1));
    // Only of statements without rows: the others' are collected.
    command.on("result", (header: ResultSetHeader) => {
      answered[answered.length - 1] = header.affectedRows;
    });
    return promise;
  }

  #textOf({ sql, parameters }: CompiledQuery): string {
    return written(CREATE_TABLE.test(sql) ? this.#createTable(sql) : sql, parameters);
  }

  #resultOf(result: unknown, fields: readonly FieldPacket[] | undefined): QueryResult<unknown> {
    if (Array.isArray(result)) {
      return { rows: this.#exact(result, fields ?? []) };
    }
    const { insertId, affectedRows } = result as ResultSetHeader;
    return {
      rows: [],
      numAffectedRows: BigInt(affectedRows),
      ...(Number(insertId) === 0 ? {} : { insertId: BigInt(insertId) }),
    };
  }

  /** A `blob` holds 64 KiB there, which is less than a message may have. */
  #createTable(text: string): string {
    return `${text.replaceAll(/\bblob\b/g, "longblob")} engine = InnoDB character set utf8mb4 collate ${this.#options.collation}`;
  }

  #exact(rows: Record<string, unknown>[], fields: readonly FieldPacket[]): Record<string, unknown>[] {
    for (const field of fields) {
      const convert = converterOf(field, this.#options.isBigInt);
      if (convert !== undefined) {
        for (const row of rows) {
          const value = row[field.name];
          if (value !== null) {
            row[field.name] = convert(value);
          }
        }
      }
    }
    return rows;
  }

  /** Lets each statement outside a transaction take so long: a change of a large table does. */
  patient(timeoutMs: number): void {
    this.#timeoutMs = timeoutMs;
  }

  /** Statements that make what is there already count as done. */
  async resuming<T>(work: () => Promise<T>): Promise<T> {
    this.#resuming = true;
    try {
      return await work();
    } finally {
      this.#resuming = false;
    }
  }

  // biome-ignore lint/correctness/useYield: a refusal in the shape Kysely asks for.
  async *streamQuery<R>(): AsyncIterableIterator<QueryResult<R>> {
    throw new Error("streaming is not supported: read page by page.");
  }

  close(): void {
    if (!this.closed) {
      this.closed = true;
      this.#raw.destroy();
    }
  }

  release(): void {
    if (!this.closed) {
      this.#raw.release();
    }
  }
}

const CREATE_TABLE = /^\s*create table\b/i;
/** Protocol numbers of column types: BIGINT, DECIMAL (what sums are), and the smaller integers. */
const LONGLONG = 8;
const NEWDECIMAL = 246;
const SMALL_INTEGERS: ReadonlySet<number | undefined> = new Set([1, 2, 3, 9]);
/** BLOB in its sizes, and BINARY; text has the same numbers and another character set. */
const BYTES: ReadonlySet<number | undefined> = new Set([249, 250, 251, 252, 253, 254]);
const BINARY_CHARSET = 63;

/** `isBigInt` is asked only where it matters: most columns are text. */
function converterOf(field: FieldPacket, isBigInt: IsBigInt): ((value: unknown) => unknown) | undefined {
  const { columnType } = field;
  if (columnType === LONGLONG || (columnType === NEWDECIMAL && field.decimals === 0)) {
    return isBigInt(field.name)
      ? (value) => BigInt(value as string)
      : columnType === LONGLONG
        ? wide
        : (value) => wide(Number(value) === 0 ? 0 : value);
  }
  if (columnType === NEWDECIMAL) {
    return Number;
  }
  if (SMALL_INTEGERS.has(columnType)) {
    return isBigInt(field.name) ? (value) => BigInt(value as number) : undefined;
  }
  if (BYTES.has(columnType) && field.characterSet === BINARY_CHARSET) {
    return plainBytes;
  }
  return undefined;
}

/** An integer as mysql2 gives it: a number, or text where a number might not be exact. */
function wide(value: unknown): unknown {
  if (typeof value === "number") {
    return value;
  }
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : BigInt(value as string);
}

/** Not a `Buffer`: bytes look the same whichever store they come from. */
function plainBytes(value: unknown): unknown {
  return Buffer.isBuffer(value) ? new Uint8Array(value.buffer, value.byteOffset, value.byteLength) : value;
}

/** The texts between the values of statements that are sent again and again. */
const pieces = new Map<string, string[]>();
const PIECES_MAX = 1_000;

/** A statement with its values. Where each question mark stands for one, the text is taken apart once; else mysql2 looks which ones do. */
function written(sql: string, parameters: readonly unknown[]): string {
  if (parameters.length === 0) {
    return sql;
  }
  let between = pieces.get(sql);
  if (between === undefined) {
    between = sql.split("?");
    if (pieces.size < PIECES_MAX) {
      pieces.set(sql, between);
    }
  }
  if (between.length !== parameters.length + 1) {
    return format(sql, parameters.map(toMysql), false, "Z");
  }
  let text = between[0] as string;
  for (const [index, value] of parameters.entries()) {
    text += escaped(toMysql(value), false, "Z") + between[index + 1];
  }
  return text;
}

/** What mysql2 writes into the text of a statement. */
function toMysql(value: unknown): string | number | bigint | Buffer | null {
  switch (typeof value) {
    case "boolean":
      return value ? 1 : 0;
    case "string":
    case "bigint":
      return value;
    case "number":
      if (!Number.isFinite(value)) {
        throw new Error(`${value} is no value for a column.`);
      }
      return value;
    case "undefined":
      return null;
    default:
      if (value === null) {
        return null;
      }
      if (value instanceof Uint8Array) {
        return Buffer.from(value.buffer, value.byteOffset, value.byteLength);
      }
      if (value instanceof Date) {
        return value.getTime();
      }
      throw new Error("an object is no value for a column.");
  }
}

/** Whether the connection is of no use any more; so is one to a server that became read-only, because another is the primary by now. */
function isFatal(error: unknown): boolean {
  const { fatal, code } = (error ?? {}) as { fatal?: unknown; code?: unknown };
  return fatal === true || code === "ER_OPTION_PREVENTS_STATEMENT";
}

/** The table, the column, the index, the row or the foreign key exists; or what is to be dropped does not. */
function isThereAlready(error: unknown): boolean {
  return [1050, 1060, 1061, 1062, 1826, 1022, 1091, 1051].includes((error as { errno?: number }).errno ?? 0);
}
