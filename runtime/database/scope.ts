import { AsyncLocalStorage } from "node:async_hooks";

/** What the code running inside a transaction may not do twice; found through the asynchronous call chain. */
export interface Scope {
  /** The database whose transaction this is, by its service's name. */
  readonly database: string;
  /** When waiting for a lock must end, in real milliseconds since the epoch. */
  readonly deadline: number;
  readonly signal: AbortSignal | undefined;
  /** Whether a crash of the machine (not only of the process) may undo this transaction's commit. */
  readonly durable: boolean;
  /** "ended": work that the transaction started and left behind is free again. */
  state: "starting" | "open" | "ended";
}

const storage = new AsyncLocalStorage<Scope>();

/** Runs `work` as the inside of a transaction. */
export function insideScope<T>(scope: Scope, work: () => Promise<T>): Promise<T> {
  return storage.run(scope, work);
}

/** The transaction around the running code, if there is one and it is still open. */
export function currentScope(): Scope | undefined {
  const scope = storage.getStore();
  return scope?.state === "open" ? scope : undefined;
}

/** The bounds of the transaction that is being started here. */
export function startingScope(): Scope | undefined {
  const scope = storage.getStore();
  return scope?.state === "starting" ? scope : undefined;
}

/**
 * Throws when the running code is inside a transaction. A second connection there would wait for the first for ever (a pool of one), or
 * not see its changes; a call to another service holds locks over the network. Both are mistakes of the program, so they are loud.
 */
export function refuseInsideTransaction(database: string, what: string): void {
  const scope = currentScope();
  if (scope === undefined) {
    return;
  }
  const advice =
    scope.database === database
      ? "use the transaction's own tx.em and tx.sql"
      : "finish the transaction first (no network call inside a database transaction)";
  throw new Error(`${what} of database "${database}" inside an open transaction of "${scope.database}": ${advice}.`);
}

/**
 * Throws at a statement that would run beside the transaction around the running code: a write would wait for the transaction for ever, a read
 * would not see its changes, and either takes a second connection from a pool.
 */
export function refuseBesideTransaction(): void {
  const scope = currentScope();
  if (scope !== undefined) {
    throw new Error(`a statement beside the open transaction of "${scope.database}": use the transaction's tx.em and tx.sql.`);
  }
}

/** The deadline passed while waiting for another transaction to end, or for a connection. */
export class LockTimeout extends Error {
  constructor() {
    super("database is locked: the deadline passed while waiting for another transaction");
  }
}
