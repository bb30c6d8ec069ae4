import { Code } from "@connectrpc/connect";
import { reason } from "#runtime/errors.ts";

/** No category with this id. Metadata: `category_id`. */
export const CATEGORY_NOT_FOUND = reason("CATEGORY_NOT_FOUND", Code.NotFound, "There is no such category.");

/** Price bounds or a sort by price without a currency, or bounds that exclude each other. Metadata: `field`. */
export const PRICE_RANGE_INVALID = reason(
  "PRICE_RANGE_INVALID",
  Code.InvalidArgument,
  "Prices can only be compared in one currency, and the lowest price must not exceed the highest.",
);

/** The page lies past the last result that can be reached. Metadata: `results_max`. */
export const SEARCH_TOO_DEEP = reason(
  "SEARCH_TOO_DEEP",
  Code.OutOfRange,
  "Only the first 10,000 results can be paged through. Narrow the search.",
);

/** The index is being built, is overloaded, or has just failed and is coming back. */
export const INDEX_UNAVAILABLE = reason("INDEX_UNAVAILABLE", Code.Unavailable, "The search index cannot answer now. Try again.");
