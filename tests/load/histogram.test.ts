import assert from "node:assert/strict";
import fc from "fast-check";
import { Histogram, MAX_VALUE } from "../../tools/load/histogram.ts";

const PERCENTS = [0.1, 1, 50, 90, 99, 99.9, 100];

function histogramOf(values: readonly number[]): Histogram {
  const histogram = new Histogram();
  for (const value of values) histogram.record(value);
  return histogram;
}

/** The least value that so many percent do not exceed. */
function exactly(values: readonly number[], percent: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil((percent * sorted.length) / 100 - 1e-9) - 1)] as number;
}

describe("A histogram of durations", () => {
  const durations = fc.array(fc.oneof(fc.nat(300), fc.nat(100_000), fc.integer({ min: 0, max: MAX_VALUE })), {
    minLength: 1,
    maxLength: 200,
  });

  it("gives percentiles that are never too low and at most 0.8 % too high", () => {
    fc.assert(
      fc.property(durations, fc.constantFrom(...PERCENTS), (values, percent) => {
        const [found, exact] = [histogramOf(values).percentile(percent), exactly(values, percent)];
        assert.ok(found >= exact && found <= exact + exact / 128, `${found} for ${exact}`);
      }),
    );
  });

  it("is exact below 256 µs, in its maximum, its count and its mean", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(255), { minLength: 1 }), fc.constantFrom(...PERCENTS), (values, percent) => {
        assert.equal(histogramOf(values).percentile(percent), exactly(values, percent));
      }),
    );
    const histogram = histogramOf([1_000_003, 1, 5_000_001]);
    assert.deepEqual([histogram.percentile(100), histogram.max, histogram.count], [5_000_001, 5_000_001, 3]);
    assert.equal(histogram.mean, 6_000_005 / 3);
  });

  it("that is added up from several, over JSON, is the one of all of them", () => {
    fc.assert(
      fc.property(durations, durations, (some, others) => {
        const sum = new Histogram();
        for (const part of [some, others]) sum.add(JSON.parse(JSON.stringify(histogramOf(part))));
        assert.deepEqual(sum.toJSON(), histogramOf([...some, ...others]).toJSON());
        assert.equal(sum.count, some.length + others.length);
      }),
    );
  });

  it("takes 99 of 100 for 99 %, rounds parts of a µs up, and holds what is longer than an hour", () => {
    const hundred = histogramOf(Array.from({ length: 100 }, (_, index) => index + 1));
    assert.deepEqual([hundred.percentile(99), hundred.percentile(50), hundred.percentile(100)], [99, 50, 100]);
    assert.equal(histogramOf([0.2]).percentile(50), 1);
    assert.equal(histogramOf([2 ** 40]).percentile(50), MAX_VALUE);
    assert.equal(new Histogram().percentile(99), 0);
  });
});
