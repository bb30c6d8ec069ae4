import type { CompiledQuery, DatabaseConnection, Kysely, QueryResult } from "kysely";
import { compiledOf, type Statement } from "./compiled.ts";
import { isUniqueViolation } from "./errors.ts";

/** A connection that takes several statements in one round trip. Others are given them one by one. */
export interface BatchingConnection {
  /** Sends them together, in this order; the first that fails keeps the rest from running, and its error is thrown. */
  executeAll(queries: readonly CompiledQuery[]): Promise<QueryResult<unknown>[]>;
  /** Sends them in front of the next statement, or of the commit. */
  defer(queries: readonly Deferred[]): void;
}

/** A statement that is put off. */
export interface Deferred {
  readonly query: CompiledQuery;
  /** Whether it has to change one row: looked at before the commit. */
  readonly must?: boolean;
  /** What it means that it changed none, or met a key that is there already. */
  readonly otherwise?: () => Error;
  /** Whether it fails because the time is over. */
  readonly late?: boolean;
}

/** What came of a statement. */
export interface Outcome<O> {
  readonly rows: O[];
  /** Rows that it inserted, deleted or found to change. */
  readonly changed: bigint;
  /** The last number that MySQL was told to remember, or gave. */
  readonly insertId: bigint;
}

/** The outcomes of several statements. */
export type Outcomes<Q extends readonly Statement<unknown>[]> = {
  [I in keyof Q]: Outcome<Q[I] extends Statement<infer O> ? O : never>;
};

/**
 * A statement that was put off met a key that is there already, or changed no row though it had to. It fails together with a statement behind it that knows
 * nothing of that, so it does not look like that one's own conflict. The transaction then fails with what it means to who put it off.
 */
export class DeferredConflict extends Error {
  readonly deferred = true;
  readonly meaning: Error | undefined;

  constructor(cause: unknown, { otherwise }: Pick<Deferred, "otherwise"> = {}) {
    super("a statement that was put off met a key that is there already, or no row.", { cause });
    this.meaning = otherwise?.();
  }
}

/** Whether it is one, or what entities made of one: an error of their own, with its properties. */
export function isDeferredConflict(error: unknown): boolean {
  return (error as { deferred?: unknown } | null)?.deferred === true;
}

/** What an error means to who put the statement off; the error itself where nobody did. */
export function meaningOf(error: unknown): unknown {
  return (isDeferredConflict(error) ? (error as DeferredConflict).meaning : undefined) ?? error;
}

/** Throws a DeferredConflict unless a statement that had to change one row did. */
export function requireOne(deferred: Deferred, result: QueryResult<unknown> | undefined): void {
  if (deferred.must === true && result?.numAffectedRows !== 1n) {
    throw new DeferredConflict(undefined, deferred);
  }
}

/** Sends statements of one transaction together. */
export async function executeTogether<const Q extends readonly Statement<unknown>[]>(
  sql: Pick<Kysely<never>, "getExecutor">,
  queries: Q,
): Promise<Outcomes<Q>> {
  const compiled = queries.map(compiledOf);
  const results = await sql.getExecutor().provideConnection(async (connection) => {
    if (isBatching(connection)) {
      return connection.executeAll(compiled);
    }
    const each: QueryResult<unknown>[] = [];
    for (const query of compiled) {
      each.push(await connection.executeQuery(query));
    }
    return each;
  });
  return results.map((result) => ({
    rows: result.rows,
    changed: result.numAffectedRows ?? 0n,
    insertId: result.insertId ?? 0n,
  })) as Outcomes<Q>;
}

/** Writes statements of one transaction: together with the next one, or with the commit. */
export async function executeLater(sql: Pick<Kysely<never>, "getExecutor">, deferred: readonly Deferred[]): Promise<void> {
  await sql.getExecutor().provideConnection(async (connection) => {
    if (isBatching(connection)) {
      connection.defer(deferred);
      return;
    }
    for (const each of deferred) {
      const result = await connection.executeQuery(each.query).catch((error: unknown) => {
        throw each.otherwise !== undefined && isUniqueViolation(error) ? new DeferredConflict(error, each) : error;
      });
      requireOne(each, result);
    }
  });
}

function isBatching(connection: DatabaseConnection): connection is DatabaseConnection & BatchingConnection {
  return "executeAll" in connection;
}
