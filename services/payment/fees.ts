/** A fee schedule as the rules need it. Never changed once it is in force. */
export interface Schedule {
  /** Counts the schedules from 1. */
  readonly version: number;
  /** From when on it holds, in milliseconds since the epoch. */
  readonly effectiveTime: number;
  /** The fee in basis points of a line's amount: 1000 is 10 %. 0..5000. */
  readonly feeBasisPoints: number;
  /** The smallest fee of a line in minor units, by currency; a currency it lacks has none. */
  readonly minimumMinor: Readonly<Record<string, bigint>>;
}

/** The schedules with which a database begins. */
export const initialSchedules: readonly Schedule[] = [
  {
    version: 1,
    effectiveTime: Date.UTC(2020, 0, 1),
    feeBasisPoints: 1000,
    minimumMinor: {},
  },
  {
    version: 2,
    effectiveTime: Date.UTC(2026, 0, 1),
    feeBasisPoints: 1000,
    minimumMinor: { USD: 50n, JPY: 50n },
  },
];

const BASIS_POINTS = 10_000n;

/** The schedule in force at a time: the latest that has taken effect; undefined before the first. */
export function scheduleAt(schedules: Iterable<Schedule>, timeMs: number): Schedule | undefined {
  let found: Schedule | undefined;
  for (const schedule of schedules) {
    if (schedule.effectiveTime <= timeMs && (found === undefined || schedule.effectiveTime > found.effectiveTime)) {
      found = schedule;
    }
  }
  return found;
}

/**
 * The fee of one line in minor units: its share, rounded half to even (as bookkeeping does, so that many roundings do not lean to one
 * side), at least the schedule's minimum, never more than the line itself.
 */
export function feeOf(schedule: Schedule, amountMinor: bigint, currencyCode: string): bigint {
  const share = divideHalfEven(amountMinor * BigInt(schedule.feeBasisPoints), BASIS_POINTS);
  const minimum = schedule.minimumMinor[currencyCode] ?? 0n;
  const fee = share > minimum ? share : minimum;
  return fee < amountMinor ? fee : amountMinor;
}

/** Divides non-negative integers, rounding halves to the even neighbour. */
export function divideHalfEven(dividend: bigint, divisor: bigint): bigint {
  const quotient = dividend / divisor;
  const twiceRest = (dividend % divisor) * 2n;
  const up = twiceRest > divisor || (twiceRest === divisor && quotient % 2n === 1n);
  return up ? quotient + 1n : quotient;
}
