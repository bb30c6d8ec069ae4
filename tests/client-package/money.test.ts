import assert from "node:assert/strict";
import { create, toJson } from "@bufbuild/protobuf";
import fc from "fast-check";
import { MoneySchema } from "#gen/marketplace/type/v1/money_pb.ts";
import {
  addMoney,
  allocateMoney,
  compareMoney,
  decimalOf,
  formatMoney,
  minorDigits,
  money,
  moneyFromJson,
  moneyKey,
  moneyToJson,
  multiplyMoney,
  parseMoney,
  subtractMoney,
} from "../../client/money.ts";

/** No decimal digit, two and three. */
const CURRENCIES = ["JPY", "USD", "KWD"] as const;
const currency = fc.constantFrom(...CURRENCIES);
const minor = fc.bigInt({ min: -(2n ** 62n), max: 2n ** 62n });
const amounts = (max: bigint) => fc.bigInt({ min: -max, max });

describe("money in a client", () => {
  it("has the digits of its currency", () => {
    assert.deepEqual(CURRENCIES.map(minorDigits), [0, 2, 3]);
    assert.throws(() => minorDigits("XYZ"), RangeError);
    assert.throws(() => minorDigits("usd"), RangeError);
  });

  it("comes back from its decimal, whatever its size and currency", () => {
    fc.assert(
      fc.property(currency, minor, (code, amountMinor) => {
        const text = decimalOf(money(code, amountMinor));
        assert.equal(parseMoney(text, code).amountMinor, amountMinor);
        assert.equal(text.split(".")[1]?.length ?? 0, minorDigits(code));
      }),
    );
  });

  it("is read from what people write, and refused rather than rounded", () => {
    const read = (text: string, code = "USD") => parseMoney(text, code).amountMinor;
    assert.deepEqual([read("12.34"), read("12.3"), read("12"), read("-0.05"), read(" 0 ")], [1234n, 1230n, 1200n, -5n, 0n]);
    assert.deepEqual([read("1250", "JPY"), read("1.234", "KWD")], [1250n, 1234n]);
    for (const text of ["12.345", "9".repeat(30)]) assert.throws(() => read(text), RangeError, text);
    assert.throws(() => read("12.0", "JPY"), RangeError);
    for (const text of ["", ".", "12.", ".5", "1,250.00", "1e3", "0x10", "NaN", "$5", "--1", "1 2", "9".repeat(50)]) {
      assert.throws(() => read(text), SyntaxError, text);
    }
  });

  it("is shown by locale with every digit it has, where a float would lose some", () => {
    assert.equal(formatMoney(money("USD", 9_007_199_254_740_993n), "en"), "$90,071,992,547,409.93");
    assert.equal(formatMoney(money("USD", 900_719_925_474_099_312n), "en"), "$9,007,199,254,740,993.12");
    assert.equal(formatMoney(money("JPY", 1250n), "ja"), "￥1,250");
    assert.equal(formatMoney(money("USD", -5n), "en"), "-$0.05");
    assert.equal(formatMoney(money("USD", 1250n), "de").replaceAll(/\s/g, " "), "12,50 $");
    fc.assert(
      fc.property(currency, minor, (code, amountMinor) => {
        const digits = formatMoney(money(code, amountMinor), "en").replaceAll(/[^\d.-]/g, "");
        assert.equal(digits, decimalOf(money(code, amountMinor)));
      }),
    );
  });

  it("is added, subtracted, multiplied and compared exactly, and never across currencies", () => {
    fc.assert(
      fc.property(currency, amounts(2n ** 50n), amounts(2n ** 50n), fc.integer({ min: 0, max: 1000 }), (code, a, b, units) => {
        const [x, y] = [money(code, a), money(code, b)];
        assert.equal(addMoney(x, y, y).amountMinor, a + b + b);
        assert.equal(subtractMoney(x, y).amountMinor, a - b);
        assert.equal(multiplyMoney(x, units).amountMinor, a * BigInt(units));
        assert.equal(compareMoney(x, y), a < b ? -1 : a > b ? 1 : 0);
      }),
    );
    for (const mix of [addMoney, subtractMoney, compareMoney]) {
      assert.throws(() => mix(money("USD", 1n), money("JPY", 1n)), /different currencies/);
    }
    assert.throws(() => multiplyMoney(money("USD", 1n), 1.5), RangeError);
    assert.throws(() => addMoney(money("USD", 2n ** 63n - 1n), money("USD", 1n)), RangeError);
  });

  it("is split into parts that add up to it, each within one minor unit of its share", () => {
    const weights = fc
      .array(fc.bigInt({ min: 0n, max: 1000n }), { minLength: 1, maxLength: 20 })
      .filter((list) => list.some((w) => w > 0n));
    fc.assert(
      fc.property(amounts(10n ** 12n), weights, (amountMinor, shares) => {
        const parts = allocateMoney(money("USD", amountMinor), shares);
        const total = shares.reduce((sum, share) => sum + share, 0n);
        assert.equal(
          parts.reduce((sum, part) => sum + part.amountMinor, 0n),
          amountMinor,
        );
        for (const [index, part] of parts.entries()) {
          const off = part.amountMinor * total - amountMinor * (shares[index] ?? 0n);
          assert.ok(off < total && off > -total, `${shares} of ${amountMinor}: ${parts.map(({ amountMinor: each }) => each)}`);
        }
      }),
    );
    const thirds = allocateMoney(money("USD", 100n), [1, 1, 1]).map((part) => part.amountMinor);
    assert.deepEqual(thirds, [34n, 33n, 33n]);
    for (const none of [[], [0], [1, -1]]) assert.throws(() => allocateMoney(money("USD", 1n), none), RangeError);
  });

  it("is a message, goes through JSON as the API writes it, and has a key that only equal amounts share", () => {
    fc.assert(
      fc.property(currency, minor, currency, minor, fc.boolean(), (code, amountMinor, otherCode, another, isSame) => {
        const otherMinor = isSame ? amountMinor : another;
        const one = money(code, amountMinor);
        assert.deepEqual(one, { ...create(MoneySchema, { currencyCode: code, amountMinor }) });
        assert.deepEqual(moneyFromJson(JSON.parse(JSON.stringify(moneyToJson(one)))), one);
        // The API leaves out an amount of 0.
        assert.deepEqual({ amountMinor: "0", ...(toJson(MoneySchema, one) as object) }, moneyToJson(one));
        assert.deepEqual(moneyFromJson(toJson(MoneySchema, one) as { currencyCode: string }), one);
        const equal = code === otherCode && amountMinor === otherMinor;
        assert.equal(moneyKey(one) === moneyKey(money(otherCode, otherMinor)), equal);
      }),
    );
    assert.throws(() => moneyFromJson({ currencyCode: "USD", amountMinor: "1.5" }), SyntaxError);
  });
});
