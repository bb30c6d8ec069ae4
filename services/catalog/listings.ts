import type { Timestamp } from "@bufbuild/protobuf/wkt";
import type { Kysely } from "kysely";
import { Condition, type Listing } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
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

/** A row as the contract shows it. A literal: the compiler sees that no field is missing, and it takes half as long as `create`. */
export function toListing(row: ReadRow): Listing {
  const listing: Listing = {
    $typeName: "marketplace.catalog.v1.Listing",
    listingId: row.listing_id,
    sellerId: row.seller_id,
    state: stateToProto(row.state),
    title: row.title,
    description: row.description,
    categoryId: row.category_id,
    brand: row.brand,
    condition: conditions[row.condition_grade],
    price: { $typeName: "marketplace.type.v1.Money", currencyCode: row.currency_code, amountMinor: row.price_minor },
    // What is not on sale cannot be bought, whatever inventory was told on the way there.
    availableUnits: publicStates.includes(row.state) ? row.available_units : 0,
    handlingDays: row.handling_days,
    shipsFrom: row.ships_from,
    photos: [],
    likeCount: 0,
    externalId: row.external_id ?? "",
    createTime: timestamp(row.create_time),
    updateTime: timestamp(row.update_time),
    etag: String(row.version),
  };
  if (row.publish_time != null) {
    listing.publishTime = timestamp(row.publish_time);
  }
  return listing;
}

function timestamp(ms: number): Timestamp {
  const seconds = Math.floor(ms / 1_000);
  return { $typeName: "google.protobuf.Timestamp", seconds: BigInt(seconds), nanos: (ms - seconds * 1_000) * 1_000_000 };
}

/** Whether the caller may see the listing: drafts and withdrawn ones only their seller, operators and services. */
export function maySee(call: Pick<Call, "caller">, row: Pick<ListingRow, "seller_id" | "state">): boolean {
  return publicStates.includes(row.state) || isService(call) || isOperator(call) || accountIfAny(call) === row.seller_id;
}

/** A listing with all its columns, by the primary key. */
export function loadListing(sql: Kysely<CatalogTables>, listingId: string): Promise<ListingRow | undefined> {
  return sql.selectFrom("listing").selectAll().where("listing_id", "=", listingId).executeTakeFirst();
}
