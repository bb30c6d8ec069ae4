import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { HandlerContext } from "@connectrpc/connect";
import { type Condition, ConditionSchema } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import {
  type FacetsSchema,
  type Filter,
  FilterSchema,
  type SearchListingsRequest,
  SearchListingsRequestSchema,
  type SearchListingsResponseSchema,
  type SearchResultSchema,
  Sort,
} from "#gen/marketplace/search/v1/search_pb.ts";
import { callOf } from "#runtime/call.ts";
import { fail, PAGE_TOKEN_INVALID } from "#runtime/errors.ts";
import { type PageTokens, type PageValue, pageSizeOf } from "#runtime/pages.ts";
import type { Categories } from "./categories.ts";
import { PRICE_RANGE_INVALID, SEARCH_TOO_DEEP } from "./errors.ts";
import { brandKey, type Hit, type IndexFacets, type IndexSort, type Position, type SearchIndex } from "./index.ts";

const PAGE = { standard: 20, max: 100 };
/** Results that can be paged through, and up to which they are counted. */
const RESULTS_MAX = 10_000;
const FACET_VALUES_MAX = 50;

/** A page's place: how many results came before, and where in the index it begins. */
interface Place {
  readonly depth: number;
  readonly from: Position;
}

/** The question of the service: SearchListings. */
export function searching({ index, categories, pages }: { index: SearchIndex; categories: Categories; pages: PageTokens }) {
  return {
    async searchListings(
      request: SearchListingsRequest,
      context: HandlerContext,
    ): Promise<MessageInitShape<typeof SearchListingsResponseSchema>> {
      const { signal } = callOf(context);
      const filter = request.filter ?? create(FilterSchema);
      const text = request.query.trim();
      const sort = sortOf(request.sort, text);
      checkPrices(filter, sort);
      const bound = boundRequest(request);
      const place = placeOf(pages.decode(context.method, bound), sort);
      const depth = place?.depth ?? 0;
      if (depth >= RESULTS_MAX) {
        fail(SEARCH_TOO_DEEP, { metadata: { results_max: String(RESULTS_MAX) } });
      }
      const limit = Math.min(pageSizeOf(request, PAGE), RESULTS_MAX - depth);
      const answer = await index.search(
        {
          text,
          ...(filter.categoryId === "" ? {} : { categoryIds: await categories.subtree(filter.categoryId, signal) }),
          brandKeys: filter.brands.map(brandKey),
          conditions: filter.conditions,
          currencyCode: filter.currencyCode,
          ...(filter.minPriceMinor === undefined ? {} : { minPriceMinor: Number(filter.minPriceMinor) }),
          ...(filter.maxPriceMinor === undefined ? {} : { maxPriceMinor: Number(filter.maxPriceMinor) }),
          sellerId: filter.sellerId.toLowerCase(),
          sort,
          limit,
          ...(place === undefined ? {} : { from: place.from }),
          withFacets: request.includeFacets,
        },
        signal,
      );
      const next = answer.next && { depth: depth + answer.hits.length, from: answer.next };
      return {
        results: answer.hits.map(resultOf),
        nextPageToken: next === undefined ? "" : pages.encode(context.method, bound, valuesOf(next)),
        totalCount: Math.min(answer.total, RESULTS_MAX),
        relaxed: answer.relaxed,
        ...(answer.facets === undefined ? {} : { facets: await facetsOf(answer.facets, filter.categoryId, signal) }),
      };
    },
  };

  async function facetsOf(
    facets: IndexFacets,
    categoryId: string,
    signal: AbortSignal,
  ): Promise<MessageInitShape<typeof FacetsSchema>> {
    const byCategory = await categories.rollUp(facets.categories, categoryId, signal);
    const conditions = [...facets.conditions].sort(([a], [b]) => a - b);
    return {
      categories: counts(byCategory),
      brands: counts(facets.brands),
      conditions: counts(
        conditions.map(([condition, count]) => [ConditionSchema.value[condition as Condition]?.name ?? "", count]),
      ),
      priceRanges: counts(facets.priceRanges),
    };
  }
}

function counts(values: readonly (readonly [string, number])[]): { value: string; count: number }[] {
  return values.slice(0, FACET_VALUES_MAX).map(([value, count]) => ({ value, count }));
}

const SORTS: Readonly<Record<Sort, IndexSort | undefined>> = {
  [Sort.UNSPECIFIED]: undefined,
  [Sort.RELEVANCE]: undefined,
  [Sort.NEWEST]: "newest",
  [Sort.PRICE_ASCENDING]: "price-ascending",
  [Sort.PRICE_DESCENDING]: "price-descending",
};

function sortOf(sort: Sort, text: string): IndexSort {
  // Without words nothing is more relevant than anything else.
  return SORTS[sort] ?? (text === "" ? "newest" : "relevance");
}

/** Prices of two currencies cannot be compared: bounds and a sort by price need one. */
function checkPrices(filter: Filter, sort: IndexSort): void {
  const { minPriceMinor: min, maxPriceMinor: max } = filter;
  const refuse = (field: string, description: string): never =>
    fail(PRICE_RANGE_INVALID, { metadata: { field }, violations: [{ field, description }] });
  if (filter.currencyCode === "") {
    if (min !== undefined || max !== undefined) {
      refuse("filter.currency_code", "is needed by price bounds");
    }
    if (sort === "price-ascending" || sort === "price-descending") {
      refuse("filter.currency_code", "is needed by a sort by price");
    }
  }
  if (min !== undefined && max !== undefined && min > max) {
    refuse("filter.min_price_minor", "exceeds filter.max_price_minor");
  }
}

/** The request as its page tokens are bound to it: facets are asked for on the first page only. */
function boundRequest(request: SearchListingsRequest): SearchListingsRequest {
  return Object.assign(create(SearchListingsRequestSchema), request, { includeFacets: false });
}

function valuesOf({ depth, from }: Place): PageValue[] {
  return from.kind === "after" ? [depth, from.value, from.listingId] : [depth, from.offset, from.generation, from.lastRow];
}

function placeOf(values: readonly PageValue[] | undefined, sort: IndexSort): Place | undefined {
  if (values === undefined) {
    return undefined;
  }
  const [depth, first, second, third] = values as [number, number, string, number];
  if (values.length !== (sort === "relevance" ? 4 : 3)) {
    // Signed by us, for a rule of ordering that has changed since.
    fail(PAGE_TOKEN_INVALID);
  }
  return {
    depth,
    from:
      sort === "relevance"
        ? { kind: "offset", offset: first, generation: second, lastRow: third }
        : { kind: "after", value: first, listingId: second },
  };
}

function resultOf(hit: Hit): MessageInitShape<typeof SearchResultSchema> {
  return {
    listingId: hit.listingId,
    sellerId: hit.sellerId,
    title: hit.title,
    brand: hit.brand,
    categoryId: hit.categoryId,
    condition: hit.condition as Condition,
    price: { currencyCode: hit.currencyCode, amountMinor: BigInt(hit.priceMinor) },
    photoUrl: hit.photoUrl,
    publishTime: timestampFromMs(hit.publishTime),
  };
}
