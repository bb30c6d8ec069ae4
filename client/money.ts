import type { Money } from "#gen/marketplace/type/v1/money_pb.ts";

/** An amount as any message carries it: minor units as a bigint, never a float. */
export interface MoneyShape {
  /** ISO 4217, such as "USD". */
  readonly currencyCode: string;
  /** 1250n USD is $12.50, 1250n JPY is ¥1,250. */
  readonly amountMinor: bigint;
}

/** An amount as JSON carries it: protobuf's own form, in which an int64 is a string. */
export interface MoneyJson {
  readonly currencyCode: string;
  readonly amountMinor: string;
}

/** The longest text that is read as an amount. */
const MAX_TEXT_CHARS = 40;
const MAX_INT64 = 2n ** 63n - 1n;
let currencies: ReadonlySet<string> | undefined;
const digitsOf = new Map<string, number>();

/** An amount from minor units. */
export function money(currencyCode: string, amountMinor: bigint): Money {
  if (amountMinor > MAX_INT64 || amountMinor < -MAX_INT64 - 1n) throw new RangeError("An amount of money has at most 64 bits.");
  // What `create(MoneySchema, …)` gives, without the schema: a page that only shows prices need not load protobuf.
  return { $typeName: "marketplace.type.v1.Money", currencyCode, amountMinor };
}

/** How many digits a currency has behind its decimal point: 2 for USD, 0 for JPY, 3 for KWD. */
export function minorDigits(currencyCode: string): number {
  let digits = digitsOf.get(currencyCode);
  if (digits === undefined) {
    currencies ??= new Set(Intl.supportedValuesOf("currency"));
    if (!currencies.has(currencyCode)) throw new RangeError(`"${currencyCode}" is no currency of ISO 4217, such as "USD".`);
    digits =
      new Intl.NumberFormat("en", { style: "currency", currency: currencyCode }).resolvedOptions().maximumFractionDigits ?? 0;
    digitsOf.set(currencyCode, digits);
  }
  return digits;
}

/**
 * Reads a decimal such as "12.34" or "-0.5": a point, no grouping. More digits than the currency has are refused, not rounded; so is what is
 * no such number.
 */
export function parseMoney(text: string, currencyCode: string): Money {
  const digits = minorDigits(currencyCode);
  const parts = text.length > MAX_TEXT_CHARS ? null : /^(-?)(\d+)(?:\.(\d+))?$/.exec(text.trim());
  if (parts === null) throw new SyntaxError(`"${text.slice(0, MAX_TEXT_CHARS)}" is not an amount such as "12.34".`);
  const [, sign = "", whole = "", fraction = ""] = parts;
  if (fraction.length > digits) {
    throw new RangeError(`"${text}" has more than the ${digits} decimal digits of ${currencyCode}.`);
  }
  const amountMinor = BigInt(whole + fraction.padEnd(digits, "0"));
  return money(currencyCode, sign === "-" ? -amountMinor : amountMinor);
}

/** The amount as a decimal with all digits of its currency, such as "12.30": what `parseMoney` reads, and what an input field shows. */
export function decimalOf({ currencyCode, amountMinor }: MoneyShape): `${number}` {
  const digits = minorDigits(currencyCode);
  const text = String(amountMinor < 0n ? -amountMinor : amountMinor).padStart(digits + 1, "0");
  const whole = text.slice(0, text.length - digits);
  const sign = amountMinor < 0n ? "-" : "";
  return `${sign}${whole}${digits === 0 ? "" : `.${text.slice(-digits)}`}` as `${number}`;
}

/** The amount as people of a locale write it, such as "12,50 €"; the runtime's own locale unless given. Exact whatever its size. */
export function formatMoney(amount: MoneyShape, locale?: Intl.LocalesArgument, options: Intl.NumberFormatOptions = {}): string {
  const format = new Intl.NumberFormat(locale, { ...options, style: "currency", currency: amount.currencyCode });
  // A decimal in a string is formatted digit by digit; a number would be a float.
  return format.format(decimalOf(amount));
}

/** The sum of amounts of one currency. */
export function addMoney(first: MoneyShape, ...others: readonly MoneyShape[]): Money {
  return money(
    first.currencyCode,
    others.reduce((sum, each) => sum + sameCurrency(first, each).amountMinor, first.amountMinor),
  );
}

/** `a` less `b`. */
export function subtractMoney(a: MoneyShape, b: MoneyShape): Money {
  return money(a.currencyCode, a.amountMinor - sameCurrency(a, b).amountMinor);
}

/** The amount for so many units. */
export function multiplyMoney({ currencyCode, amountMinor }: MoneyShape, units: bigint | number): Money {
  // BigInt refuses a number with a fraction.
  return money(currencyCode, amountMinor * BigInt(units));
}

/** Below 0 when `a` is less than `b`, 0 when they are equal, above 0 otherwise: what `sort` takes. */
export function compareMoney(a: MoneyShape, b: MoneyShape): -1 | 0 | 1 {
  const difference = a.amountMinor - sameCurrency(a, b).amountMinor;
  return difference < 0n ? -1 : difference > 0n ? 1 : 0;
}

/**
 * Splits an amount by weights, such as two units and one: the parts add up to the amount, and no part differs from its exact share by a whole
 * minor unit. What does not divide goes to the first parts that lost most.
 */
export function allocateMoney({ currencyCode, amountMinor }: MoneyShape, weights: readonly (bigint | number)[]): Money[] {
  const shares = weights.map((weight) => BigInt(weight));
  const total = shares.reduce((sum, share) => sum + share, 0n);
  if (shares.some((share) => share < 0n) || total === 0n) throw new RangeError("Weights are 0 or more, and not all 0.");
  const size = amountMinor < 0n ? -amountMinor : amountMinor;
  const parts = shares.map((share, index) => ({ index, floor: (size * share) / total, lost: (size * share) % total }));
  let left = size - parts.reduce((sum, { floor }) => sum + floor, 0n);
  for (const part of parts.toSorted((a, b) => (a.lost === b.lost ? a.index - b.index : a.lost > b.lost ? -1 : 1))) {
    if (left === 0n) break;
    part.floor += 1n;
    left -= 1n;
  }
  return parts.map(({ floor }) => money(currencyCode, amountMinor < 0n ? -floor : floor));
}

/** What JSON can hold: `JSON.stringify` throws on a bigint. Equal to what the API speaks. */
export function moneyToJson({ currencyCode, amountMinor }: MoneyShape): MoneyJson {
  return { currencyCode, amountMinor: String(amountMinor) };
}

/** Reads what `moneyToJson` made or the API sent. */
export function moneyFromJson({ currencyCode, amountMinor = "0" }: { currencyCode: string; amountMinor?: string }): Money {
  if (!/^-?\d{1,19}$/.test(amountMinor)) throw new SyntaxError(`"${amountMinor}" is not an amount in minor units.`);
  return money(currencyCode, BigInt(amountMinor));
}

/** A string that equal amounts share and others do not: "USD:1250". For query keys, maps and lists' keys. */
export function moneyKey({ currencyCode, amountMinor }: MoneyShape): string {
  return `${currencyCode}:${amountMinor}`;
}

function sameCurrency(a: MoneyShape, b: MoneyShape): MoneyShape {
  if (a.currencyCode !== b.currencyCode) throw new RangeError(`${a.currencyCode} and ${b.currencyCode} are different currencies.`);
  return b;
}
