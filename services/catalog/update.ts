import type { UpdateListingRequest } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { ListingUpdatedSchema } from "#gen/marketplace/catalog/v1/events_pb.ts";
import type { Call } from "#runtime/call.ts";
import { ETAG_MISMATCH, fail } from "#runtime/errors.ts";
import { spellBrands } from "./brands.ts";
import type { Categories } from "./categories.ts";
import { change, loadOwn, requireEditable, tell } from "./changes.ts";
import type { CatalogTransaction, ListingRow } from "./entities.ts";
import { CURRENCY_FIXED } from "./errors.ts";
import { conditionFromProto } from "./listings.ts";

/** The columns that a seller edits. */
type Edit = Partial<
  Pick<
    ListingRow,
    "title" | "description" | "category_id" | "brand" | "condition_grade" | "currency_code" | "price_minor" | "handling_days"
  >
>;

/** Replaces what the request gives. A request that changes nothing leaves the listing and its etag alone. */
export async function updateListing(
  tx: CatalogTransaction,
  call: Call,
  categories: Categories,
  request: UpdateListingRequest,
): Promise<ListingRow> {
  const row = await loadOwn(tx, call, request.listingId);
  requireEditable(row);
  if (String(row.version) !== request.etag) {
    fail(ETAG_MISMATCH, { metadata: { listing_id: row.listing_id, etag: String(row.version) } });
  }
  const given = editOf(request);
  if (given.brand !== undefined) {
    given.brand = (await spellBrands(tx.sql, [given.brand])).get(given.brand) ?? "";
  }
  const edit = differing(row, given);
  const problem = edit.category_id === undefined ? undefined : categories.problem(edit.category_id);
  if (problem !== undefined) {
    throw problem;
  }
  if (edit.currency_code !== undefined && row.state === "ACTIVE") {
    fail(CURRENCY_FIXED, { metadata: { currency_code: row.currency_code } });
  }
  if (Object.keys(edit).length === 0) {
    return row;
  }
  const changed = await change(tx, row, edit);
  if (changed.state === "ACTIVE") {
    tell(tx, ListingUpdatedSchema, changed);
  }
  return changed;
}

function editOf(request: UpdateListingRequest): Edit {
  const edit: Edit = {};
  if (request.title !== undefined) {
    edit.title = request.title;
  }
  if (request.description !== undefined) {
    edit.description = request.description;
  }
  if (request.categoryId !== undefined) {
    edit.category_id = request.categoryId;
  }
  if (request.brand !== undefined) {
    edit.brand = request.brand;
  }
  if (request.condition !== undefined) {
    edit.condition_grade = conditionFromProto(request.condition);
  }
  if (request.price !== undefined) {
    edit.currency_code = request.price.currencyCode;
    edit.price_minor = request.price.amountMinor;
  }
  if (request.handlingDays !== undefined) {
    edit.handling_days = request.handlingDays;
  }
  return edit;
}

function differing(row: ListingRow, edit: Edit): Edit {
  return Object.fromEntries(Object.entries(edit).filter(([column, value]) => row[column as keyof Edit] !== value));
}
