import { fail, OVERLOADED } from "#runtime/errors.ts";

/** What a gate lets through. */
export interface GateOptions {
  /** Pieces of work under way at once. */
  readonly atOnce: number;
  /** How many may wait; who comes then is refused at once. */
  readonly waitingMax: number;
  /** How long one may wait. */
  readonly waitMaxMs: number;
}

/** Lets so much work begin at once, in the order of arrival. */
export interface Gate {
  /** @throws ConnectError OVERLOADED, with a time to wait, when the work could not begin; it has left no trace. */
  pass<T>(work: () => Promise<T>): Promise<T>;
}

/**
 * A gate before work that competes for the same processor. Without it everything that arrives in a burst is begun, and each waits for all the
 * others until its time is over: much is done and little is finished. Behind a gate what is begun is finished, and the rest is told early.
 */
export function createGate({ atOnce, waitingMax, waitMaxMs }: GateOptions): Gate {
  const waiting: (() => void)[] = [];
  let begun = 0;

  async function turn(): Promise<void> {
    if (begun < atOnce) {
      begun++;
      return;
    }
    if (waiting.length >= waitingMax) {
      fail(OVERLOADED, { retryAfterMs: waitMaxMs });
    }
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const enter = () => resolve(true);
    waiting.push(enter);
    const timer = setTimeout(() => resolve(false), waitMaxMs);
    const mine = await promise;
    clearTimeout(timer);
    if (!mine) {
      const index = waiting.indexOf(enter);
      if (index === -1) {
        // Its turn came in the moment it gave up.
        leave();
      } else {
        waiting.splice(index, 1);
      }
      fail(OVERLOADED, { retryAfterMs: waitMaxMs });
    }
  }

  /** Hands the place on, so that nobody who comes now can take it before those who wait. */
  function leave(): void {
    const next = waiting.shift();
    if (next === undefined) {
      begun--;
    } else {
      next();
    }
  }

  return {
    async pass(work) {
      await turn();
      try {
        return await work();
      } finally {
        leave();
      }
    },
  };
}
