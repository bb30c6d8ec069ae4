/** How arrivals follow each other: as independent people come, or as a metronome ticks. */
export type Shape = "poisson" | "constant";

/** When work arrives. */
export interface Schedule {
  readonly shape: Shape;
  /** Arrivals a second once the ramp is over. */
  readonly perSecond: number;
  /** How long the rate rises, from nothing and evenly, in ms. */
  readonly rampMs: number;
  /** How long it stays, in ms. */
  readonly durationMs: number;
}

/** The times of all arrivals, in ms from the beginning. They are known before the first one: nothing that happens can move them. */
export function* arrivals({ shape, perSecond, rampMs, durationMs }: Schedule, random: () => number): Generator<number> {
  if (perSecond === 0) return;
  const perMs = perSecond / 1000;
  const duringRamp = (perMs * rampMs) / 2;
  const end = rampMs + durationMs;
  for (let expected = shape === "constant" ? 0.5 : 0; ; ) {
    // The number of arrivals expected by a moment, turned round: what is even in numbers is dense in time where the rate is high.
    if (shape === "poisson") expected -= Math.log(1 - random());
    const time = expected < duringRamp ? Math.sqrt((2 * expected * rampMs) / perMs) : rampMs + (expected - duringRamp) / perMs;
    if (time >= end) return;
    yield time;
    if (shape === "constant") expected += 1;
  }
}

/** How many arrivals are to be expected. */
export function expectedArrivals({ perSecond, rampMs, durationMs }: Schedule): number {
  return (perSecond / 1000) * (rampMs / 2 + durationMs);
}

/** Numbers from 0 to 1 that a seed decides (the generator known as mulberry32). */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
