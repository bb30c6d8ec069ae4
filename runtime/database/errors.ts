import { DeadlockException, LockWaitTimeoutException, UniqueConstraintViolationException } from "@mikro-orm/core";
import { isSqliteBusy, LockTimeout } from "./gate.ts";

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
