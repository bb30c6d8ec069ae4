import { timestampMs } from "@bufbuild/protobuf/wkt";
import { type Listing, ListingState } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import type { PlaceOrderLine } from "#gen/marketplace/order/v1/order_pb.ts";
import { fail, INVALID_REQUEST } from "#runtime/errors.ts";
import { LISTING_NOT_AVAILABLE, LISTING_NOT_FOUND, MIXED_CURRENCIES, MIXED_SELLERS, OWN_LISTING, PRICE_CHANGED } from "./errors.ts";

/** What an order will hold of one listing. */
export interface QuoteLine {
  readonly listingId: string;
  readonly title: string;
  readonly units: number;
  readonly unitPriceMinor: bigint;
  /** When the listing was published, in ms since the epoch. */
  readonly listingTime: number;
}

/** What an order costs and who sells it. */
export interface Quote {
  readonly sellerId: string;
  readonly currencyCode: string;
  readonly totalMinor: bigint;
  /** The longest handling time of the lines, in days. */
  readonly handlingDays: number;
  readonly lines: readonly QuoteLine[];
}

/**
 * Decides whether a buyer can have these lines at the prices agreed to, given the listings as the catalog shows them to the buyer. Whether there are
 * units left is decided by inventory, not here: what the catalog knows of that is a little old.
 *
 * @throws ConnectError INVALID_REQUEST (a listing twice), LISTING_NOT_FOUND, OWN_LISTING, LISTING_NOT_AVAILABLE, MIXED_SELLERS, MIXED_CURRENCIES,
 * PRICE_CHANGED; the first that applies, in this order.
 */
export function quote(buyerId: string, wanted: readonly PlaceOrderLine[], listings: readonly Listing[]): Quote {
  refuseDuplicates(wanted);
  const byId = new Map(listings.map((listing) => [listing.listingId, listing]));
  const pairs = wanted.map((line) => {
    const listing = byId.get(line.listingId) ?? fail(LISTING_NOT_FOUND, { metadata: { listing_id: line.listingId } });
    return { line, listing };
  });
  for (const { listing } of pairs) {
    const metadata = { listing_id: listing.listingId };
    if (listing.sellerId === buyerId) {
      fail(OWN_LISTING, { metadata });
    }
    if (listing.state === ListingState.DRAFT) {
      // The catalog shows drafts to services; to a buyer another seller's draft is not there.
      fail(LISTING_NOT_FOUND, { metadata });
    }
    if (listing.state !== ListingState.ACTIVE || listing.publishTime === undefined) {
      fail(LISTING_NOT_AVAILABLE, { metadata });
    }
  }
  const sellerId = onlyOne(pairs.map(({ listing }) => listing.sellerId)) ?? fail(MIXED_SELLERS);
  const agreedCurrency = onlyOne(wanted.map((line) => line.unitPrice?.currencyCode)) ?? fail(MIXED_CURRENCIES);
  onlyOne(pairs.map(({ listing }) => listing.price?.currencyCode)) ?? fail(MIXED_CURRENCIES);
  const lines = pairs.map(({ line, listing }) => agreed(line, listing));
  return {
    sellerId,
    currencyCode: agreedCurrency,
    totalMinor: lines.reduce((sum, line) => sum + line.unitPriceMinor * BigInt(line.units), 0n),
    handlingDays: Math.max(...pairs.map(({ listing }) => listing.handlingDays)),
    lines,
  };
}

function refuseDuplicates(wanted: readonly PlaceOrderLine[]): void {
  const seen = new Set<string>();
  wanted.forEach((line, i) => {
    if (seen.has(line.listingId)) {
      const description = "names a listing that another line names: add up the units";
      fail(INVALID_REQUEST, { violations: [{ field: `lines[${i}].listing_id`, description, rule: "lines.listing_id.unique" }] });
    }
    seen.add(line.listingId);
  });
}

function agreed(line: PlaceOrderLine, listing: Listing): QuoteLine {
  const price = listing.price;
  if (
    price === undefined ||
    price.currencyCode !== line.unitPrice?.currencyCode ||
    price.amountMinor !== line.unitPrice.amountMinor
  ) {
    const metadata = {
      listing_id: listing.listingId,
      amount_minor: String(price?.amountMinor ?? ""),
      currency_code: price?.currencyCode ?? "",
    };
    return fail(PRICE_CHANGED, { metadata });
  }
  return {
    listingId: listing.listingId,
    title: listing.title,
    units: line.units === 0 ? 1 : line.units,
    unitPriceMinor: price.amountMinor,
    listingTime: listing.publishTime === undefined ? 0 : timestampMs(listing.publishTime),
  };
}

/** The one value that all of them are; undefined when they differ. */
function onlyOne<T>(values: readonly T[]): T | undefined {
  return values.every((value) => value === values[0]) ? values[0] : undefined;
}
