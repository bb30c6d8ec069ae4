import { isDeepStrictEqual } from "node:util";
import { equals } from "@bufbuild/protobuf";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { CatalogService, type Listing, ListingSchema } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { SearchService, Sort } from "#gen/marketplace/search/v1/search_pb.ts";
import type { ListingRow } from "../../services/catalog/entities.ts";
import { toListing } from "../../services/catalog/listings.ts";
import { publicStates, stateByUnits } from "../../services/catalog/states.ts";
import type { Fleet } from "../support/processes.ts";
import type { AllTables } from "./tables.ts";

const BATCH = 100;

/** What each seller earned, as account counts it from events and as the orders say. */
export async function checkRatings({ account, order }: AllTables): Promise<string[]> {
  const completed = await order.sql.selectFrom("orders").selectAll().where("state", "=", "COMPLETED").execute();
  const totals = new Map<string, number[]>();
  const ratings = new Map<string, unknown[]>();
  for (const row of completed) {
    const counts = totals.get(row.seller_id) ?? [0, 0, 0, 0, 0, 0];
    totals.set(row.seller_id, counts);
    (counts[5] as number)++;
    if (row.rating_stars === null) continue;
    (counts[row.rating_stars - 1] as number)++;
    ratings.set(row.order_id, [row.seller_id, row.rating_stars, row.rating_comment, row.end_time]);
  }
  const haveTotals = (await account.sql.selectFrom("seller_totals").selectAll().execute()).map(
    (row) =>
      [
        row.account_id,
        [row.one_star, row.two_stars, row.three_stars, row.four_stars, row.five_stars, row.completed_sales],
      ] as const,
  );
  const haveRatings = (await account.sql.selectFrom("seller_rating").selectAll().execute()).map(
    (row) => [row.order_id, [row.seller_id, row.stars, row.comment, row.create_time]] as const,
  );
  return [
    ...differences("The sales of the seller", new Map(haveTotals), totals),
    ...differences("The rating of the order", new Map(haveRatings), ratings),
  ];
}

/** The units and the state of each listing, as the catalog heard of them and as inventory has them. */
export async function checkUnits({ catalog, inventory }: AllTables): Promise<string[]> {
  const stocks = await inventory.sql.selectFrom("stock").selectAll().execute();
  const sequences = await inventory.sql.selectFrom("sequence").selectAll().where("aggregate_type", "=", "stock").execute();
  const counted = new Map(sequences.map((row) => [row.aggregate_id, row.value]));
  const numbers = new Map(stocks.map((row) => [row.listing_id, row.event_sequence ?? counted.get(row.listing_id) ?? 0]));
  const rows = new Map((await catalog.sql.selectFrom("listing").selectAll().execute()).map((row) => [row.listing_id, row]));
  const have = new Map<string, unknown[]>();
  const want = new Map<string, unknown[]>();
  for (const stock of stocks) {
    const row = rows.get(stock.listing_id);
    // A creation that nobody finished: its units are nobody's.
    if (row === undefined && stock.available_units === stock.offered_units) continue;
    if (row !== undefined) have.set(row.listing_id, [row.available_units, row.reserved_units, row.stock_sequence, row.state]);
    const state = row && stateByUnits(row.state, { available: stock.available_units, reserved: stock.reserved_units });
    // What the first event said was there when the listing was created.
    const number = row?.stock_sequence === 0 ? (numbers.get(stock.listing_id) ?? 0) - 1 : numbers.get(stock.listing_id);
    want.set(stock.listing_id, [stock.available_units, stock.reserved_units, number, state]);
  }
  const withdrawing = [...rows.values()].filter((row) => row.withdraw_key !== null && row.state !== "WITHDRAWN");
  return [
    ...differences("The listing", have, want),
    ...withdrawing.map((row) => `The listing ${row.listing_id} is being withdrawn for ever.`),
  ];
}

/** The index of one process against what the catalog has on sale, with its contents. */
export async function checkIndex(fleet: Fleet, index: number, { catalog }: AllTables): Promise<string[]> {
  const rows = await catalog.sql.selectFrom("listing").selectAll().execute();
  const want = new Map(rows.filter(({ state }) => state === "ACTIVE").map((row) => [row.listing_id, contentsOf(row)]));
  const have = new Map<string, unknown[]>();
  const search = fleet.client(SearchService, undefined, index);
  for (const sellerId of new Set(rows.map((row) => row.seller_id))) {
    for (let pageToken = "", more = true; more; more = pageToken !== "") {
      const page = await search.searchListings({ filter: { sellerId }, sort: Sort.NEWEST, pageSize: BATCH, pageToken });
      for (const { listingId, ...found } of page.results) {
        const { title, brand, categoryId, condition, price, publishTime } = found;
        const time = publishTime && timestampMs(publishTime);
        have.set(listingId, [found.sellerId, title, brand, categoryId, condition, price?.currencyCode, price?.amountMinor, time]);
      }
      pageToken = page.nextPageToken;
    }
  }
  return differences(`In the index of process ${index} the listing`, have, want);
}

function contentsOf(row: ListingRow): unknown[] {
  const { title, brand, categoryId, condition, price } = toListing(row);
  return [row.seller_id, title, brand, categoryId, condition, price?.currencyCode, price?.amountMinor, row.publish_time];
}

/** What one process shows the public of all listings, from its caches, against the catalog's table. */
export async function checkCache(fleet: Fleet, index: number, { catalog }: AllTables): Promise<string[]> {
  const rows = await catalog.sql.selectFrom("listing").selectAll().execute();
  const reader = fleet.client(CatalogService, undefined, index);
  const seen = new Map<string, Listing>();
  for (let start = 0; start < rows.length; start += BATCH) {
    const listingIds = rows.slice(start, start + BATCH).map((row) => row.listing_id);
    for (const listing of (await reader.batchGetListings({ listingIds })).listings) seen.set(listing.listingId, listing);
  }
  return rows.flatMap((row) => {
    const listing = seen.get(row.listing_id);
    const isRight = publicStates.includes(row.state)
      ? listing !== undefined && equals(ListingSchema, listing, toListing(row))
      : listing === undefined;
    return isRight
      ? []
      : [`Process ${index} shows the listing ${row.listing_id} as it is not: ${listing?.etag} for ${row.version}.`];
  });
}

/** What is not as it would be, rebuilt from its owner. */
function differences(
  what: string,
  have: ReadonlyMap<string, readonly unknown[]>,
  want: ReadonlyMap<string, readonly unknown[]>,
): string[] {
  return [...new Set([...have.keys(), ...want.keys()])].flatMap((key) => {
    const [has, wants] = [have.get(key), want.get(key)];
    return isDeepStrictEqual(has, wants) ? [] : [`${what} ${key} is [${has}], and by its owner [${wants}].`];
  });
}
