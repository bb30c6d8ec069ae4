/** Buckets of each power of two: a value is known to 1 part in 128. */
const HALF = 128;
/** The largest value, in µs: a little more than an hour. */
export const MAX_VALUE = 2 ** 32 - 1;

/** How a histogram travels: its buckets that hold something, by index. */
export interface HistogramJson {
  readonly buckets: readonly (readonly [index: number, count: number])[];
  readonly max: number;
  readonly sum: number;
}

/**
 * Counts durations in whole µs, exactly below 256 µs and to within 0.8 % above. Its size does not depend on how many there are, and histograms of
 * several processes add up to the one that a single process would have.
 */
export class Histogram {
  readonly #counts = new Float64Array(26 * HALF);
  count = 0;
  max = 0;
  #sum = 0;

  /** @param us a duration; a part of a µs counts as a whole one, and what is longer than an hour as an hour. */
  record(us: number): void {
    const value = Math.min(MAX_VALUE, Math.max(0, Math.ceil(us)));
    (this.#counts[indexOf(value)] as number)++;
    this.count++;
    this.#sum += value;
    this.max = Math.max(this.max, value);
  }

  get mean(): number {
    return this.count === 0 ? 0 : this.#sum / this.count;
  }

  /** The least value, in µs, that so many percent of all do not exceed; rounded up to the end of its bucket. 0 when there is nothing. */
  percentile(percent: number): number {
    // 99 % of 100 are 99, whatever the product is in binary.
    const wanted = Math.max(1, Math.ceil((percent * this.count) / 100 - 1e-9));
    let seen = 0;
    for (let index = 0; index < this.#counts.length; index++) {
      seen += this.#counts[index] as number;
      if (seen >= wanted) return Math.min(this.max, endOf(index));
    }
    return this.max;
  }

  /** Adds what another one holds. */
  add(other: HistogramJson): void {
    for (const [index, count] of other.buckets) {
      (this.#counts[index] as number) += count;
      this.count += count;
    }
    this.#sum += other.sum;
    this.max = Math.max(this.max, other.max);
  }

  toJSON(): HistogramJson {
    const buckets = [...this.#counts].flatMap((count, index) => (count === 0 ? [] : [[index, count] as const]));
    return { buckets, max: this.max, sum: this.#sum };
  }
}

/** Values below 256 have a bucket each; then 128 buckets for each doubling. */
function indexOf(value: number): number {
  const shift = Math.max(0, 24 - Math.clz32(value));
  return shift * HALF + (value >>> shift);
}

/** The largest value of a bucket. */
function endOf(index: number): number {
  const shift = Math.max(0, Math.floor(index / HALF) - 1);
  return (index - shift * HALF + 1) * 2 ** shift - 1;
}
