/**
 * Where business time comes from: due times, expiries, creation times. Injected, so that a test can move it. Deadlines and timeouts
 * are not business time: they bound real work and are always measured against `Date.now()`.
 */
export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number;
}

/** The machine's clock. */
export const systemClock: Clock = { now: () => Date.now() };

/** A clock that a test moves by hand. */
export interface ManualClock extends Clock {
  /** Moves the clock forward (or, with a negative number, back). */
  advance(ms: number): void;
  /** Puts the clock at a moment. */
  set(timeMs: number): void;
}

/** A clock that stands still until it is moved; starts now unless told otherwise. */
export function manualClock(startMs: number = Date.now()): ManualClock {
  let time = startMs;
  return {
    now: () => time,
    advance: (ms) => {
      time += ms;
    },
    set: (timeMs) => {
      time = timeMs;
    },
  };
}
