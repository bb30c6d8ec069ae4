import assert from "node:assert/strict";
import fc from "fast-check";
import { divideHalfEven, feeOf, initialSchedules, type Schedule, scheduleAt } from "../../services/payment/fees.ts";

const [first, second] = initialSchedules as [Schedule, Schedule];
const amount = fc.bigInt({ min: 1n, max: 1_000_000_000_000n });

describe("fees", () => {
  it("take 10 % of a line", () => {
    assert.equal(feeOf(first, 10_000n, "USD"), 1_000n);
    assert.equal(feeOf(first, 123_450n, "JPY"), 12_345n);
  });

  it("are rounded half to even", () => {
    assert.equal(feeOf(first, 5n, "USD"), 0n);
    assert.equal(feeOf(first, 15n, "USD"), 2n);
    assert.equal(feeOf(first, 25n, "USD"), 2n);
    assert.equal(feeOf(first, 26n, "USD"), 3n);
    assert.equal(feeOf(first, 24n, "USD"), 2n);
  });

  it("have a minimum since 2026", () => {
    assert.equal(feeOf(second, 400n, "USD"), 50n);
    assert.equal(feeOf(second, 400n, "JPY"), 50n);
    assert.equal(feeOf(second, 10_000n, "USD"), 1_000n);
  });

  it("are never more than the line", () => {
    assert.equal(feeOf(second, 30n, "USD"), 30n);
  });

  it("stay between nothing and the amount, and within half a unit of the share where the minimum does not reach", () => {
    fc.assert(
      fc.property(amount, fc.integer({ min: 0, max: 5000 }), fc.bigInt({ min: 0n, max: 1000n }), (minor, points, minimum) => {
        const fee = feeOf({ version: 1, effectiveTime: 0, feeBasisPoints: points, minimumMinor: { USD: minimum } }, minor, "USD");
        assert.ok(fee >= 0n && fee <= minor);
        if (fee !== minimum && fee !== minor) {
          const error = fee * 10_000n - minor * BigInt(points);
          assert.ok(error <= 5_000n && error >= -5_000n);
        }
      }),
    );
  });

  it("never fall when the amount grows", () => {
    fc.assert(
      fc.property(amount, amount, (a, b) => {
        const [less, more] = a < b ? [a, b] : [b, a];
        assert.ok(feeOf(second, less, "USD") <= feeOf(second, more, "USD"));
      }),
    );
  });

  it("do not lean to one side: halves go up as often as down", () => {
    let balance = 0n;
    for (let quotient = 0n; quotient < 100n; quotient++) {
      balance += divideHalfEven(quotient * 10n + 5n, 10n) * 10n - (quotient * 10n + 5n);
    }
    assert.equal(balance, 0n);
  });

  it("follow the schedule in force at the listing's time", () => {
    const start = second.effectiveTime;
    assert.equal(scheduleAt(initialSchedules, start - 1)?.version, 1);
    assert.equal(scheduleAt(initialSchedules, start)?.version, 2);
    assert.equal(scheduleAt(initialSchedules, first.effectiveTime - 1), undefined);
    assert.equal(scheduleAt([...initialSchedules].reverse(), start + 1)?.version, 2);
  });
});
