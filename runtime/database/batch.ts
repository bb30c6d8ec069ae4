import type { Compilable, CompiledQuery, DatabaseConnection, Kysely, QueryResult } from "kysely";

/** A connection that takes several statements in one round trip. Others are given them one by one. */
export interface BatchingConnection {
  /** Sends them together, in this order; the first that fails keeps the rest from running, and its error is thrown. */
  executeAll(queries: readonly CompiledQuery[]): Promise<QueryResult<unknown>[]>;
  /** Sends them in front of the next statement, or of the commit. */
  defer(queries: readonly CompiledQuery[]): void;
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
export type Outcomes<Q extends readonly Compilable<unknown>[]> = {
  [I in keyof Q]: Outcome<Q[I] extends Compilable<infer O> ? O : never>;
};

/**
 * A statement that was put off met a key that is there already. It fails together with a statement behind it that knows nothing of that, so it does
 * not look like that one's own conflict.
 */
export class DeferredConflict extends Error {
  readonly deferred = true;

  constructor(cause: unknown) {
    super("a statement that was put off met a key that is there already.", { cause });
  }
}

/** Whether it is one, or what entities made of one: an error of their own, with its properties. */
export function isDeferredConflict(error: unknown): boolean {
  return (error as { deferred?: unknown } | null)?.deferred === true;
}

/** Sends statements of one transaction together. */
export async function executeTogether<const Q extends readonly Compilable<unknown>[]>(
  sql: Pick<Kysely<never>, "getExecutor">,
  queries: Q,
): Promise<Outcomes<Q>> {
  const compiled = queries.map((query) => query.compile());
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

/** Writes statements of one transaction whose outcome nobody looks at: together with the next one, or with the commit. */
export async function executeLater(
  sql: Pick<Kysely<never>, "getExecutor">,
  queries: readonly Compilable<unknown>[],
): Promise<void> {
  const compiled = queries.map((query) => query.compile());
  await sql.getExecutor().provideConnection(async (connection) => {
    if (isBatching(connection)) {
      connection.defer(compiled);
      return;
    }
    for (const query of compiled) {
      await connection.executeQuery(query);
    }
  });
}

function isBatching(connection: DatabaseConnection): connection is DatabaseConnection & BatchingConnection {
  return "executeAll" in connection;
}
