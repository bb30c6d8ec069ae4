import type { ConnectError } from "@connectrpc/connect";
import { DeadlockException, LockWaitTimeoutException, UniqueConstraintViolationException } from "@mikro-orm/core";
import { DEADLINE_EXCEEDED, failure, UNAVAILABLE } from "#runtime/errors.ts";
import { isSqliteBusy } from "./gate.ts";
import { LockTimeout } from "./scope.ts";

/** Whether a unique or primary key refused the row (SQLite's 2067 and 1555, MySQL's 1062), from an entity or from Kysely. */
export function isUniqueViolation(error: unknown): boolean {
  if (error instanceof UniqueConstraintViolationException) {
    return true;
  }
  const { errcode, errno } = (error ?? {}) as { errcode?: unknown; errno?: unknown };
  return errcode === 2067 || errcode === 1555 || errno === 1062;
}

/** Whether the transaction lost against another one and may simply be tried again from its start. */
export function isContention(error: unknown): boolean {
  if (error instanceof LockTimeout) {
    return false;
  }
  if (error instanceof DeadlockException || error instanceof LockWaitTimeoutException || isSqliteBusy(error)) {
    return true;
  }
  const { errno } = (error ?? {}) as { errno?: unknown };
  return errno === 1213 || errno === 1205;
}

/** Whether the deadline passed while the transaction waited for another one. */
export function isLockTimeout(error: unknown): boolean {
  return error instanceof LockTimeout || (error as { cause?: unknown } | null)?.cause instanceof LockTimeout;
}

/** Whether the server is out of reach, or the connection to it broke: nothing is known of a commit under way then. */
export function isLost(error: unknown): boolean {
  const { fatal, code } = (error ?? {}) as { fatal?: unknown; code?: unknown };
  return fatal === true || (typeof code === "string" && LOST.has(code));
}

/** What the caller of a statement outside a transaction gets when the server is away; undefined for other errors. Transactions see to it themselves. */
export function told(error: unknown): ConnectError | undefined {
  if (isLockTimeout(error)) {
    return failure(DEADLINE_EXCEEDED, { cause: error });
  }
  return isLost(error) ? failure(UNAVAILABLE, { cause: error }) : undefined;
}

/** Whether a statement names a table that is not there. */
export function isMissingTable(error: unknown): boolean {
  const { errno, errcode, message } = (error ?? {}) as { errno?: unknown; errcode?: unknown; message?: unknown };
  return errno === 1146 || (errcode === 1 && /^no such table/.test(String(message)));
}

const LOST: ReadonlySet<string> = new Set([
  "ECONNREFUSED",
  "ECONNRESET",
  "EPIPE",
  "ETIMEDOUT",
  "PROTOCOL_CONNECTION_LOST",
  "ER_SERVER_SHUTDOWN",
  "ER_CONNECTION_KILLED",
  "ER_CON_COUNT_ERROR",
  "ER_TOO_MANY_USER_CONNECTIONS",
  "ER_USER_LIMIT_REACHED",
  "ER_OPTION_PREVENTS_STATEMENT",
  "ECONNABORTED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
]);
