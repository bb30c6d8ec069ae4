/** Who in this process waits for the answers of which commands. */
export class AnswerSignals {
  readonly #waiting = new Map<string, Set<() => void>>();

  /** The command has its answer, or was forgotten: wakes those who wait for it. */
  announce(key: string): void {
    for (const wake of this.#waiting.get(key) ?? []) {
      wake();
    }
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
