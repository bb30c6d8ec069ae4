// The port behind which the index stands. One implementation so far: SQLite's FTS5 in worker threads (`sqlite/sqlite-index.ts`).

/** What the index knows of a listing on sale. */
export interface ListingDocument {
  readonly sellerId: string;
  readonly title: string;
  readonly brand: string;
  readonly description: string;
  readonly categoryId: string;
  /** The number of the Condition, 1 (best) to 6. */
  readonly condition: number;
  readonly currencyCode: string;
  /** At most 100,000,000, so a number is exact. */
  readonly priceMinor: number;
  readonly photoUrl: string;
  /** Milliseconds since the epoch. */
  readonly publishTime: number;
}

/** What an event did to a listing: it is on sale like this, or (no document) it is not on sale. */
export interface Change {
  readonly listingId: string;
  /** The sequence of the listing's event. A change that is not newer than what the index has is skipped. */
  readonly sequence: number;
  readonly document?: ListingDocument;
}

/** The order of hits. */
export type IndexSort = "relevance" | "newest" | "price-ascending" | "price-descending";

/** Where a page begins. */
export type Position =
  /** After the hit with this sort value and id: nothing is seen twice or missed when listings come and go. */
  | { readonly kind: "after"; readonly value: number; readonly listingId: string }
  /**
   * After so many of the best hits. Listings that the index `generation` got after row `lastRow` are left out, so that new ones move nothing; a listing that
   * leaves moves the rest up by one. In another generation (after a rebuild) new ones count too.
   */
  | { readonly kind: "offset"; readonly offset: number; readonly generation: string; readonly lastRow: number };

/** A search. Conditions of different kinds all hold; of one kind, one of them. Empty means no condition. */
export interface IndexQuery {
  readonly text: string;
  /** Leaves of the category tree. */
  readonly categoryIds?: readonly string[];
  /** Folded by `brandKey`. */
  readonly brandKeys: readonly string[];
  readonly conditions: readonly number[];
  readonly currencyCode: string;
  readonly minPriceMinor?: number;
  readonly maxPriceMinor?: number;
  readonly sellerId: string;
  readonly sort: IndexSort;
  readonly limit: number;
  readonly from?: Position;
  readonly withFacets: boolean;
}

/** A listing found. */
export type Hit = Omit<ListingDocument, "description"> & { readonly listingId: string };

/** How many hits have each value, each kind counted as if it were not filtered by; the most frequent first, not cut. */
export interface IndexFacets {
  /** By the leaf category of the listing. */
  readonly categories: readonly (readonly [categoryId: string, count: number])[];
  /** By brand, in the spelling seen last. */
  readonly brands: readonly (readonly [brand: string, count: number])[];
  readonly conditions: readonly (readonly [condition: number, count: number])[];
  /** By price range such as "1000-2499"; empty without a currency. */
  readonly priceRanges: readonly (readonly [range: string, count: number])[];
}

/** What a search found. */
export interface IndexAnswer {
  readonly hits: readonly Hit[];
  /** Where the next page begins; absent on the last. */
  readonly next?: Position;
  /** How many match in all. */
  readonly total: number;
  /** Whether too few listings had every word, so that those with some follow. */
  readonly relaxed: boolean;
  readonly facets?: IndexFacets;
}

/** What the index holds. */
export interface IndexStatus {
  readonly listingCount: number;
  /** The time of the latest event applied, in milliseconds since the epoch. */
  readonly lastEventTime?: number;
}

/** The derived, rebuildable copy of the listings on sale. All methods fail with INDEX_UNAVAILABLE while it cannot answer; none hangs. */
export interface SearchIndex {
  /** Opens it. False: there is nothing usable, it must be rebuilt before anything else works. */
  open(): Promise<boolean>;
  /**
   * Applies changes in their order, all or none; when it resolves they are durable and can be found. During a rebuild they go into both indexes.
   *
   * @param lastEventTime the time of the latest event among them, in milliseconds since the epoch
   */
  apply(changes: readonly Change[], lastEventTime: number): Promise<void>;
  search(query: IndexQuery, signal?: AbortSignal): Promise<IndexAnswer>;
  status(): Promise<IndexStatus>;
  /** Begins a new index beside the live one; one that was being built is dropped. */
  beginRebuild(): Promise<void>;
  /** Adds what a scan of the catalog found to the new index. */
  addToRebuild(changes: readonly Change[]): Promise<void>;
  /** The new index takes the place of the live one, which is removed. */
  finishRebuild(): Promise<void>;
  /** Drops the new index. */
  abortRebuild(): Promise<void>;
  close(): Promise<void>;
}

/** A brand as it is compared: upper and lower case, full and half width alike. */
export function brandKey(brand: string): string {
  return brand.normalize("NFKC").toLowerCase().trim();
}
