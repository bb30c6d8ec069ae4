/** Where price ranges begin, in minor units: as people shop, a few below what most things cost, wider above. */
const STARTS: Readonly<Record<string, readonly number[]>> = {
  USD: [0, 1_000, 2_500, 5_000, 10_000, 20_000, 50_000, 100_000, 250_000, 1_000_000],
  JPY: [0, 1_000, 3_000, 5_000, 10_000, 20_000, 50_000, 100_000, 300_000, 1_000_000],
};
/** The highest price there is. */
const PRICE_MAX = 100_000_000;

/** The ranges of a currency as they are written, such as "1000-2499"; both ends belong to the range. Empty for a currency without ranges. */
export function priceRanges(currencyCode: string): readonly string[] {
  const starts = STARTS[currencyCode] ?? [];
  return starts.map((start, i) => `${start}-${(starts[i + 1] ?? PRICE_MAX + 1) - 1}`);
}

/** Finds the place of a price's range among `priceRanges`; 0 where there are none. */
export function priceRangeOf(currencyCode: string): (priceMinor: number) => number {
  const starts = STARTS[currencyCode] ?? [];
  return (priceMinor) => {
    let range = 0;
    while (range + 1 < starts.length && priceMinor >= (starts[range + 1] as number)) {
      range++;
    }
    return range;
  };
}
