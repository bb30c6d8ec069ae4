import { ConnectError } from "@connectrpc/connect";
import { isUniqueViolation } from "#runtime/database/errors.ts";
import { failure, UNAVAILABLE } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { spellBrands } from "./brands.ts";
import type { Contents } from "./contents.ts";
import type { CatalogTransaction, ListingRow } from "./entities.ts";
import { EXTERNAL_ID_CONFLICT } from "./errors.ts";

/** How often an insert is tried again because another command took an external_id between looking and writing. */
const ATTEMPTS_MAX = 5;

/** What a new listing is to hold, or what is wrong with its draft. */
export type Drafted = Contents | ConnectError;

/** What became of it: a row, or why there is none. */
export type Created = { readonly row: ListingRow; readonly alreadyExisted: boolean } | ConnectError;

/** One seller's listings to be created by one command. */
export interface Wanted {
  readonly sellerId: string;
  readonly drafts: readonly Drafted[];
  /** What publishes them as soon as inventory knows their units; null for drafts. */
  readonly creationId: string | null;
}

/**
 * Inserts the listings as drafts, in few statements; one result for each, in their order. A seller's unique key decides which of two with the
 * same external_id is the first.
 */
export async function insertListings(tx: CatalogTransaction, wanted: Wanted): Promise<Created[]> {
  const contents = wanted.drafts.flatMap((draft) => (draft instanceof ConnectError ? [] : [draft]));
  const spelling = await spellBrands(
    tx.sql,
    contents.map(({ brand }) => brand),
  );
  for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt++) {
    const known = await knownListings(tx, wanted.sellerId, contents);
    const fresh: ListingRow[] = [];
    const results = wanted.drafts.map((draft): Created => {
      if (draft instanceof ConnectError) {
        return draft;
      }
      const existing = draft.externalId === null ? undefined : known.get(draft.externalId);
      if (existing !== undefined) {
        return existing.content_hash === draft.hash ? { row: existing, alreadyExisted: true } : conflict(existing);
      }
      const row = newRow(tx, wanted, draft, spelling.get(draft.brand) ?? "");
      fresh.push(row);
      if (draft.externalId !== null) {
        known.set(draft.externalId, row);
      }
      return { row, alreadyExisted: false };
    });
    if (await inserted(tx, fresh)) {
      return results;
    }
  }
  throw failure(UNAVAILABLE, { message: "Others are creating the same listings. Try again.", retryAfterMs: 200 });
}

function conflict(existing: ListingRow): ConnectError {
  return failure(EXTERNAL_ID_CONFLICT, {
    metadata: { external_id: existing.external_id ?? "", listing_id: existing.listing_id },
  });
}

function newRow(tx: CatalogTransaction, wanted: Wanted, contents: Contents, brand: string): ListingRow {
  return {
    listing_id: newId(),
    seller_id: wanted.sellerId,
    state: "DRAFT",
    title: contents.title,
    description: contents.description,
    category_id: contents.categoryId,
    brand: brand,
    condition_grade: contents.condition,
    currency_code: contents.currencyCode,
    price_minor: contents.priceMinor,
    offered_units: contents.units,
    available_units: 0,
    reserved_units: 0,
    stock_sequence: 0,
    handling_days: contents.handlingDays,
    ships_from: contents.shipsFrom,
    external_id: contents.externalId,
    content_hash: contents.hash,
    create_time: tx.now,
    update_time: tx.now,
    publish_time: null,
    withdraw_key: null,
    creation_id: wanted.creationId,
    version: 1,
  };
}

/** The seller's listings that are there already, by external_id, through the unique key. */
async function knownListings(
  tx: CatalogTransaction,
  sellerId: string,
  contents: readonly Contents[],
): Promise<Map<string, ListingRow>> {
  const externalIds = new Set(contents.map(({ externalId }) => externalId).filter((externalId) => externalId !== null));
  if (externalIds.size === 0) {
    return new Map();
  }
  const rows = await tx.sql
    .selectFrom("listing")
    .selectAll()
    .where("seller_id", "=", sellerId)
    .where("external_id", "in", [...externalIds])
    .execute();
  return new Map(rows.map((row) => [row.external_id as string, row]));
}

/** Whether the rows went in; false when a key is taken, and then none did. */
async function inserted(tx: CatalogTransaction, rows: readonly ListingRow[]): Promise<boolean> {
  if (rows.length === 0) {
    return true;
  }
  try {
    await tx.sql.insertInto("listing").values(rows).execute();
    return true;
  } catch (error) {
    if (isUniqueViolation(error)) {
      return false;
    }
    throw error;
  }
}
