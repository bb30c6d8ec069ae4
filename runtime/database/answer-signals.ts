import type { StoredAnswer } from "./transaction.ts";

/** Answers that are remembered for who comes for them just after the commit. */
const LATE_MAX = 256;
const LATE_MAX_BYTES = 16 * 1024;

interface KeptAnswer {
  readonly state: "answered" | "failed";
  readonly answer: Uint8Array;
}

/** Who in this process waits for the answers of which commands. */
export class AnswerSignals {
  readonly #late = new Map<string, KeptAnswer>();
  readonly #waiting = new Map<string, Set<() => void>>();

  /** The command has its answer, or was forgotten: wakes those who wait for it. */
  announce(stored: StoredAnswer): void {
    const { key, state, answer: bytes } = stored;
    // A claim that was dropped may be made anew; an answer is for good.
    if (state !== "forgotten" && bytes !== null && bytes.length <= LATE_MAX_BYTES) {
      this.#late.set(key, { state, answer: bytes });
    }
    if (this.#late.size > LATE_MAX) {
      this.#late.delete(this.#late.keys().next().value as string);
    }
    for (const wake of this.#waiting.get(key) ?? []) {
      wake();
    }
  }

  /** The answer that this process committed a moment ago, once. */
  take(key: string): KeptAnswer | undefined {
    const answer = this.#late.get(key);
    this.#late.delete(key);
    return answer;
  }

  /** Listens from now on, so that an answer committed while its row is being read is not missed. To be stopped. */
  listen(key: string) {
    const { promise, resolve } = Promise.withResolvers<void>();
    const waiting = this.#waiting.get(key) ?? new Set();
    this.#waiting.set(key, waiting.add(resolve));
    return {
      /** Resolves at the answer, after `ms` or when the caller goes away. */
      orAfter: async (ms: number, signal: AbortSignal | undefined): Promise<void> => {
        const timer = setTimeout(resolve, ms);
        const aborted = () => resolve();
        signal?.addEventListener("abort", aborted, { once: true });
        await promise;
        clearTimeout(timer);
        signal?.removeEventListener("abort", aborted);
      },
      stop: (): void => {
        waiting.delete(resolve);
        if (waiting.size === 0 && this.#waiting.get(key) === waiting) {
          this.#waiting.delete(key);
        }
      },
    };
  }
}
