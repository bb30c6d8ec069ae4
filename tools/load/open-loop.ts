import { setTimeout as sleep } from "node:timers/promises";

/** Work that arrives by a schedule. */
export interface OpenLoop {
  /** Times of arrival, in ms from the beginning, rising. */
  readonly arrivals: Iterable<number>;
  /** Begins one piece of work. `intendedTime` is when it should have begun, by `performance.now()`; durations count from there. */
  readonly begin: (arrival: { readonly intendedTime: number; readonly atMs: number }) => Promise<void>;
  /** Whether there is room for one more. */
  readonly hasRoom: () => boolean;
  /** An arrival that found too many under way: it is never begun. */
  readonly onTurnedAway: () => void;
  /** The beginning of the schedule, by `performance.now()`. */
  readonly startTime: number;
  /** Ends the arrivals; what is under way goes on. */
  readonly signal: AbortSignal;
}

/**
 * Begins each piece of work when it is due, however long those before it take: whoever is slow meets a queue, as among real people, and its work's
 * durations show the wait. Resolves when all that was begun has ended; rejects with the first error that `begin` lets through.
 */
export async function runOpenLoop(loop: OpenLoop): Promise<void> {
  const underWay = new Set<Promise<void>>();
  const { promise: failed, reject: fail } = Promise.withResolvers<never>();
  failed.catch(() => {});
  let broken = false;
  for (const atMs of loop.arrivals) {
    const intendedTime = loop.startTime + atMs;
    const waitMs = intendedTime - performance.now();
    if (waitMs > 0) await sleep(waitMs, undefined, { signal: loop.signal }).catch(() => {});
    if (loop.signal.aborted || broken) break;
    if (!loop.hasRoom()) {
      loop.onTurnedAway();
      continue;
    }
    const work = loop.begin({ intendedTime, atMs }).then(
      () => void underWay.delete(work),
      (error: unknown) => {
        underWay.delete(work);
        broken = true;
        fail(error);
      },
    );
    underWay.add(work);
  }
  await Promise.race([Promise.all(underWay), failed]);
  if (broken) await failed;
}
