import type { IndexFacets, IndexQuery, IndexSort } from "./index.ts";
import { priceRangeOf, priceRanges } from "./price-ranges.ts";

/** Values of a property as small numbers: arrays of numbers are compared and counted faster than texts. */
export interface Dictionary {
  /** The number of a value; undefined when no listing ever had it. */
  numberOf(key: string): number | undefined;
  /** The value as it is shown. */
  nameOf(number: number): string;
  readonly size: number;
}

/** The properties that searches filter, sort and count by, in memory: column by column, one place a row. */
export interface Columns {
  /** Rows are 1 to this. */
  readonly lastRow: number;
  /** 1 where the row is a listing on sale. */
  readonly live: Uint8Array;
  readonly listingIds: readonly string[];
  readonly sellers: Int32Array;
  readonly categories: Int32Array;
  readonly brands: Int32Array;
  readonly conditions: Uint8Array;
  readonly currencies: Uint8Array;
  readonly prices: Float64Array;
  readonly publishTimes: Float64Array;
  readonly sellerNames: Dictionary;
  readonly categoryNames: Dictionary;
  readonly brandNames: Dictionary;
  readonly currencyNames: Dictionary;
}

/** Rows that match the words of a query. `scores` (higher is better) only where the order needs them. */
export interface Matches {
  readonly rows: ArrayLike<number>;
  readonly scores?: ArrayLike<number>;
}

/** Rows that satisfy a filter, and what was counted on the way. */
export interface Selected {
  readonly rows: number[];
  readonly scores: number[];
  readonly facets?: IndexFacets;
}

const CATEGORY = 1;
const BRAND = 2;
const CONDITION = 4;
const PRICE = 8;
const CONDITIONS = 7;

type Conditions = Pick<
  IndexQuery,
  "categoryIds" | "brandKeys" | "conditions" | "currencyCode" | "minPriceMinor" | "maxPriceMinor" | "sellerId" | "withFacets"
>;

/**
 * Filters and counts in one walk: a row that fails no condition is a hit and counts in every facet; one that fails a single kind counts in
 * that kind's facet, which is counted as if the kind were not filtered by.
 */
export function select(columns: Columns, matches: Matches, query: Conditions, lastRow = Number.POSITIVE_INFINITY): Selected {
  const misses = missesOf(columns, query);
  const counts = query.withFacets ? new Counts(columns, query.currencyCode) : undefined;
  const rows: number[] = [];
  const scores: number[] = [];
  for (let i = 0; i < matches.rows.length; i++) {
    const row = matches.rows[i] as number;
    if (columns.live[row] !== 1 || row > lastRow) {
      continue;
    }
    const missed = misses(row);
    if (missed === 0) {
      rows.push(row);
      scores.push((matches.scores?.[i] as number | undefined) ?? 0);
    }
    counts?.add(row, missed);
  }
  return { rows, scores, ...(counts === undefined ? {} : { facets: counts.facets() }) };
}

/** Which kinds of conditions a row fails, as bits; all of them where it fails one that no facet counts. */
function missesOf(columns: Columns, query: Conditions): (row: number) => number {
  const categories = flags(columns.categoryNames, query.categoryIds);
  const brands = flags(columns.brandNames, query.brandKeys.length > 0 ? query.brandKeys : undefined);
  const conditions = query.conditions.length > 0 ? new Set(query.conditions) : undefined;
  const seller = query.sellerId === "" ? undefined : (columns.sellerNames.numberOf(query.sellerId) ?? -1);
  const currency = query.currencyCode === "" ? undefined : (columns.currencyNames.numberOf(query.currencyCode) ?? -1);
  const min = query.minPriceMinor ?? 0;
  const max = query.maxPriceMinor ?? Number.POSITIVE_INFINITY;
  return (row) => {
    if (
      (seller !== undefined && columns.sellers[row] !== seller) ||
      (currency !== undefined && columns.currencies[row] !== currency)
    ) {
      return CATEGORY | BRAND | CONDITION | PRICE;
    }
    const price = columns.prices[row] as number;
    return (
      (categories === undefined || categories[columns.categories[row] as number] === 1 ? 0 : CATEGORY) |
      (brands === undefined || brands[columns.brands[row] as number] === 1 ? 0 : BRAND) |
      (conditions === undefined || conditions.has(columns.conditions[row] as number) ? 0 : CONDITION) |
      (price >= min && price <= max ? 0 : PRICE)
    );
  };
}

function flags(dictionary: Dictionary, wanted: readonly string[] | undefined): Uint8Array | undefined {
  if (wanted === undefined) {
    return undefined;
  }
  const found = new Uint8Array(dictionary.size);
  for (const key of wanted) {
    const number = dictionary.numberOf(key);
    if (number !== undefined) {
      found[number] = 1;
    }
  }
  return found;
}

class Counts {
  readonly #columns: Columns;
  readonly #currencyCode: string;
  readonly #categories: Uint32Array;
  readonly #brands: Uint32Array;
  readonly #conditions = new Uint32Array(CONDITIONS);
  readonly #prices: Uint32Array;
  readonly #rangeOf: (priceMinor: number) => number;

  constructor(columns: Columns, currencyCode: string) {
    this.#columns = columns;
    this.#currencyCode = currencyCode;
    this.#categories = new Uint32Array(columns.categoryNames.size);
    this.#brands = new Uint32Array(columns.brandNames.size);
    this.#prices = new Uint32Array(priceRanges(currencyCode).length);
    this.#rangeOf = priceRangeOf(currencyCode);
  }

  add(row: number, missed: number): void {
    const columns = this.#columns;
    if ((missed & ~CATEGORY) === 0) {
      increment(this.#categories, columns.categories[row] as number);
    }
    if ((missed & ~BRAND) === 0) {
      increment(this.#brands, columns.brands[row] as number);
    }
    if ((missed & ~CONDITION) === 0) {
      increment(this.#conditions, columns.conditions[row] as number);
    }
    if (this.#prices.length > 0 && (missed & ~PRICE) === 0) {
      increment(this.#prices, this.#rangeOf(columns.prices[row] as number));
    }
  }

  facets(): IndexFacets {
    const { categoryNames, brandNames } = this.#columns;
    const ranges = priceRanges(this.#currencyCode);
    return {
      categories: byCount(this.#categories, (number) => categoryNames.nameOf(number)),
      // Listings without a brand count in no brand.
      brands: byCount(this.#brands, (number) => brandNames.nameOf(number)).filter(([brand]) => brand !== ""),
      conditions: byCount(this.#conditions, (number) => number),
      priceRanges: byCount(this.#prices, (number) => ranges[number] as string),
    };
  }
}

function increment(counts: Uint32Array, index: number): void {
  counts[index] = (counts[index] as number) + 1;
}

function byCount<T>(counts: Uint32Array, valueAt: (number: number) => T): (readonly [T, number])[] {
  const found: (readonly [T, number])[] = [];
  for (let i = 0; i < counts.length; i++) {
    const count = counts[i] as number;
    if (count > 0) {
      found.push([valueAt(i), count]);
    }
  }
  return found.sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1));
}

/** Compares two hits by their places in `Selected`: negative when the first comes first. No two are equal. */
export type Order = (a: number, b: number) => number;

/** The order of a sort. Equal scores and prices: the latest published first; then by id, so that the order is total. */
export function orderOf(columns: Columns, selected: Selected, sort: IndexSort): Order {
  const { rows, scores } = selected;
  const id = (place: number) => columns.listingIds[rows[place] as number] as string;
  const time = (place: number) => columns.publishTimes[rows[place] as number] as number;
  const byId: Order = (a, b) => (id(a) > id(b) ? -1 : 1);
  if (sort === "relevance") {
    return (a, b) => (scores[b] as number) - (scores[a] as number) || time(b) - time(a) || byId(a, b);
  }
  const value = (place: number) => sortValue(columns, rows[place] as number, sort);
  return (a, b) => value(a) - value(b) || byId(a, b);
}

/** What a row is sorted by, ascending, in the sorts that have such a value. */
export function sortValue(columns: Columns, row: number, sort: Exclude<IndexSort, "relevance">): number {
  const price = columns.prices[row] as number;
  return sort === "newest" ? -(columns.publishTimes[row] as number) : sort === "price-ascending" ? price : -price;
}

/** Above so many, sorting everything is cheaper than keeping the best in order. */
const BEST_MAX = 512;

/** The first `count` of the places 0 to `size`, in order. */
export function firstInOrder(size: number, count: number, order: Order, admits: (place: number) => boolean): number[] {
  if (count > BEST_MAX) {
    return Array.from({ length: size }, (_, place) => place)
      .filter(admits)
      .sort(order)
      .slice(0, count);
  }
  const best: number[] = [];
  // From the end, where the latest listings are: the best are met early then, and the rest is refused by one comparison each.
  for (let place = size - 1; place >= 0; place--) {
    if (!admits(place) || (best.length === count && order(place, best[count - 1] as number) > 0)) {
      continue;
    }
    let low = 0;
    for (let high = best.length; low < high; ) {
      const middle = (low + high) >> 1;
      if (order(place, best[middle] as number) < 0) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    best.splice(low, 0, place);
    best.length = Math.min(best.length, count);
  }
  return best;
}
