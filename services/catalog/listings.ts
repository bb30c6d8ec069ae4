import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Kysely } from "kysely";
import { Condition, type Listing, ListingSchema } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { MoneySchema } from "#gen/marketplace/type/v1/money_pb.ts";
import { accountIfAny, type Call, isOperator, isService } from "#runtime/call.ts";
import type { CatalogTables, ConditionName, ListingRow } from "./entities.ts";
import { publicStates, stateToProto } from "./states.ts";

const conditions: Readonly<Record<ConditionName, Condition>> = {
  NEW: Condition.NEW,
  LIKE_NEW: Condition.LIKE_NEW,
  VERY_GOOD: Condition.VERY_GOOD,
  GOOD: Condition.GOOD,
  ACCEPTABLE: Condition.ACCEPTABLE,
  FOR_PARTS: Condition.FOR_PARTS,
};

/** The condition as the table names it. Throws on unspecified, which validation has refused. */
export function conditionFromProto(condition: Condition): ConditionName {
  for (const name in conditions) {
    if (conditions[name as ConditionName] === condition) {
      return name as ConditionName;
    }
  }
  throw new RangeError(`the condition ${condition} is not one of the table's.`);
}

/** The columns that a reader sees. */
export const readColumns = [
  "listing_id",
  "seller_id",
  "state",
  "title",
  "description",
  "category_id",
  "brand",
  "condition_grade",
  "currency_code",
  "price_minor",
  "available_units",
  "handling_days",
  "ships_from",
  "external_id",
  "create_time",
  "update_time",
  "publish_time",
  "version",
] as const satisfies readonly (keyof ListingRow)[];

/** The part of a row that a reader sees. */
export type ReadRow = Pick<ListingRow, (typeof readColumns)[number]>;

/** A row as the contract shows it. */
export function toListing(row: ReadRow): Listing {
  const listing = create(ListingSchema);
  listing.listingId = row.listing_id;
  listing.sellerId = row.seller_id;
  listing.state = stateToProto(row.state);
  listing.title = row.title;
  listing.description = row.description;
  listing.categoryId = row.category_id;
  listing.brand = row.brand;
  listing.condition = conditions[row.condition_grade];
  const price = create(MoneySchema);
  price.currencyCode = row.currency_code;
  price.amountMinor = row.price_minor;
  listing.price = price;
  // What is not on sale cannot be bought, whatever inventory was told on the way there.
  listing.availableUnits = publicStates.includes(row.state) ? row.available_units : 0;
  listing.handlingDays = row.handling_days;
  listing.shipsFrom = row.ships_from;
  listing.externalId = row.external_id ?? "";
  listing.createTime = timestampFromMs(row.create_time);
  listing.updateTime = timestampFromMs(row.update_time);
  if (row.publish_time != null) {
    listing.publishTime = timestampFromMs(row.publish_time);
  }
  listing.etag = String(row.version);
  return listing;
}

/** Whether the caller may see the listing: drafts and withdrawn ones only their seller, operators and services. */
export function maySee(call: Pick<Call, "caller">, row: Pick<ListingRow, "seller_id" | "state">): boolean {
  return publicStates.includes(row.state) || isService(call) || isOperator(call) || accountIfAny(call) === row.seller_id;
}

/** A listing with all its columns, by the primary key. */
export function loadListing(sql: Kysely<CatalogTables>, listingId: string): Promise<ListingRow | undefined> {
  return sql.selectFrom("listing").selectAll().where("listing_id", "=", listingId).executeTakeFirst();
}
