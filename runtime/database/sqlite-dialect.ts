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
import type { ObservedDatabase, Observer } from "#runtime/telemetry/observer.ts";
import { Gate, whileBusy } from "./gate.ts";
import { refuseBesideTransaction, startingScope } from "./scope.ts";
import { Handle } from "./sqlite-handle.ts";
import { statements } from "./statements.ts";
import type { IsBigInt } from "./store.ts";

/** How long a write outside a transaction waits for the writer before it gives up. */
const LOCK_WAIT_MS = 30_000;

/**
 * Kysely on `node:sqlite`, with two connections to one file in WAL mode: a writer, which one transaction at a time holds, and a
 * reader for selects outside transactions. SQLite runs in this thread, so a select never waits: it sees the last commit.
 *
 * Integers come out as `number`, or as `bigint` where `isBigInt` says so or where a number would not be exact; none makes a read throw.
 */
export function sqliteDialect(file: string, isBigInt: IsBigInt, service: string, observer?: Observer): Dialect {
  return {
    createDriver: () => new SoukSqliteDriver(file, isBigInt, service, observer),
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
  readonly #service: string;
  readonly #observer: Observer | undefined;
  #writer!: Handle;
  #reader!: Handle;
  readonly #gate = new Gate();

  constructor(file: string, isBigInt: IsBigInt, service: string, observer: Observer | undefined) {
    this.#file = file;
    this.#isBigInt = isBigInt;
    this.#service = service;
    this.#observer = observer;
  }

  async init(): Promise<void> {
    this.#writer = new Handle(this.#file, this.#isBigInt);
    await whileBusy(Date.now() + LOCK_WAIT_MS, undefined, () => this.#writer.exec("pragma journal_mode = wal"));
    this.#writer.exec("pragma foreign_keys = on; pragma busy_timeout = 1; pragma temp_store = memory");
    this.#reader = new Handle(this.#file, this.#isBigInt);
    this.#reader.exec("pragma query_only = on; pragma busy_timeout = 100; pragma temp_store = memory");
  }

  async acquireConnection(): Promise<DatabaseConnection> {
    return new Lease(this.#writer, this.#reader, this.#gate, { system: "sqlite", name: this.#service }, this.#observer);
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
  readonly #database: ObservedDatabase;
  readonly #observer: Observer | undefined;
  #holds = false;

  constructor(writer: Handle, reader: Handle, gate: Gate, database: ObservedDatabase, observer: Observer | undefined) {
    this.#writer = writer;
    this.#reader = reader;
    this.#gate = gate;
    this.#database = database;
    this.#observer = observer;
  }

  async executeQuery<R>(query: CompiledQuery): Promise<QueryResult<R>> {
    if (statements.hasSubscribers) {
      statements.publish({ service: this.#database.name, dialect: "sqlite", ...query });
    }
    const ended = this.#observer?.statements(this.#database, [query]);
    if (ended === undefined) return this.#execute<R>(query);
    try {
      const result = await this.#execute<R>(query);
      ended();
      return result;
    } catch (error) {
      ended(error);
      throw error;
    }
  }

  async #execute<R>(query: CompiledQuery): Promise<QueryResult<R>> {
    if (this.#holds) {
      return this.#write<R>(query);
    }
    refuseBesideTransaction();
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
        const ended = this.#observer?.statements(this.#database, [{ sql: how }]);
        try {
          this.#writer.run(how);
        } catch (error) {
          ended?.(error);
          throw error;
        }
        ended?.();
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
