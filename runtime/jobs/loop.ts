import type { Log } from "#runtime/log.ts";

const FAILURE_BACKOFF_MS = 100;
const FAILURE_BACKOFF_MAX_MS = 10_000;

/** Something done again and again: at once while there is more to do, otherwise when woken or after a while. */
export interface Loop {
  /** Takes a turn soon, whatever the loop waits for. */
  wake(): void;
  /** Resolves after a turn that began after this call and found nothing to do. Rejects when the turn fails. */
  drain(): Promise<void>;
  /** Ends after the turn under way. */
  stop(): Promise<void>;
}

/** What a loop is started with. `turn` says whether there may be more to do; or when, in milliseconds from now, there will be. */
export interface LoopOptions {
  readonly name: string;
  readonly log: Log;
  /** The longest wait between two turns. */
  readonly pollMs: number;
  turn(): Promise<boolean | number>;
}

/** Starts a loop. A turn that fails is logged and taken again after a growing pause. */
export function startLoop(options: LoopOptions): Loop {
  const { name, log, pollMs } = options;
  let stopped = false;
  let woken = true;
  let wakeUp: (() => void) | undefined;
  let drainers: { resolve: () => void; reject: (error: unknown) => void }[] = [];

  const wake = () => {
    woken = true;
    wakeUp?.();
  };

  async function pause(ms: number): Promise<void> {
    if (woken || stopped) {
      return;
    }
    const { promise, resolve } = Promise.withResolvers<void>();
    wakeUp = resolve;
    const timer = setTimeout(resolve, ms);
    await promise;
    clearTimeout(timer);
    wakeUp = undefined;
  }

  async function run(): Promise<void> {
    let failures = 0;
    while (!stopped) {
      woken = false;
      const waiting = drainers;
      try {
        const more = await options.turn();
        failures = 0;
        if (more === true) {
          continue;
        }
        drainers = drainers.filter((drainer) => !waiting.includes(drainer));
        for (const drainer of waiting) {
          drainer.resolve();
        }
        await pause(Math.min(pollMs, typeof more === "number" ? Math.max(1, more) : pollMs));
      } catch (error) {
        failures++;
        drainers = drainers.filter((drainer) => !waiting.includes(drainer));
        for (const drainer of waiting) {
          drainer.reject(error);
        }
        if (!stopped) {
          log.error({ loop: name, failures, err: error }, "a loop's turn failed; trying again");
          woken = false;
          await pause(Math.min(FAILURE_BACKOFF_MAX_MS, FAILURE_BACKOFF_MS * 2 ** failures));
        }
      }
    }
    for (const drainer of drainers.splice(0)) {
      drainer.resolve();
    }
  }

  const ended = run();
  return {
    wake,
    drain() {
      if (stopped) {
        return Promise.resolve();
      }
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      drainers = [...drainers, { resolve, reject }];
      wake();
      return promise;
    },
    async stop() {
      stopped = true;
      wakeUp?.();
      await ended;
    },
  };
}
