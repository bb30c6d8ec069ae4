import { setTimeout as sleep } from "node:timers/promises";
import { LockTimeout } from "./scope.ts";

/** How often a file locked by another process is tried again. SQLite's own busy timeout would block the thread, so it is short. */
const BUSY_RETRY_MS = 3;

/** Lets one in at a time, in the order of asking. */
export class Gate {
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

/** Whether SQLite says that another connection holds the lock (SQLITE_BUSY and its extended codes, SQLITE_LOCKED). */
export function isSqliteBusy(error: unknown): boolean {
  const code = (error as { errcode?: unknown } | null)?.errcode;
  return typeof code === "number" && ((code & 0xff) === 5 || (code & 0xff) === 6);
}

/** Tries again while another process holds the lock, until the deadline. */
export async function whileBusy<T>(deadline: number, signal: AbortSignal | undefined, work: () => T): Promise<T> {
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
