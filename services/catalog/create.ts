import { createHash } from "node:crypto";
import type { CallOptions, Client } from "@connectrpc/connect";
import { ListingPublishedSchema } from "#gen/marketplace/catalog/v1/events_pb.ts";
import type { InventoryService } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import { isUniqueViolation } from "#runtime/database/errors.ts";
import { failure, UNAVAILABLE } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { spellBrands } from "./brands.ts";
import { tell } from "./changes.ts";
import { type Contents, derivedListingId } from "./contents.ts";
import type { CatalogDatabase, CatalogTransaction, ListingRow } from "./entities.ts";
import { EXTERNAL_ID_CONFLICT } from "./errors.ts";
import { publishKey } from "./publish.ts";

/** How often an insert is tried again because another command took an external_id between looking and writing. */
const ATTEMPTS_MAX = 5;

/** A listing to be created. */
export interface Planned {
  readonly listingId: string;
  readonly contents: Contents;
}

/** What became of it. */
export type Created =
  | { readonly row: ListingRow; readonly alreadyExisted: boolean }
  | { readonly conflict: { readonly externalId: string; readonly listingId: string } };

/** One seller's listings to be created by one command. */
export interface Creation {
  readonly sellerId: string;
  readonly publish: boolean;
  readonly planned: readonly Planned[];
}

/** Gives the contents their ids. `requestId` and the place in the command tell listings without an external_id apart. */
export function plan(sellerId: string, publish: boolean, requestId: string, contents: readonly (Contents | undefined)[]): Creation {
  const planned: Planned[] = [];
  for (const [index, content] of contents.entries()) {
    if (content !== undefined) {
      // A draft is told to nobody before its transaction, so its id may be a fresh one, which sorts by time.
      const listingId = publish ? derivedListingId(sellerId, requestId, index, content) : newId();
      planned.push({ listingId, contents: content });
    }
  }
  return { sellerId, publish, planned };
}

/**
 * Tells inventory of the units of those listings that are about to be published and are not there yet: all at once, before anything
 * is written here. A listing alone is told under its own key, several under a key of all of them; a repeat of a command that died after
 * this comes to the same keys, and inventory does nothing twice.
 */
export async function offerUnits(
  database: CatalogDatabase,
  inventory: Client<typeof InventoryService>,
  options: CallOptions,
  creation: Creation,
): Promise<void> {
  if (!creation.publish) {
    return;
  }
  const known = await knownListings(database, creation);
  const units = new Map<string, number>();
  const externalIds = new Set<string>();
  for (const { listingId, contents } of creation.planned) {
    const first = contents.externalId === null || !externalIds.has(contents.externalId);
    if (first && known.of(listingId, contents.externalId) === undefined) {
      units.set(listingId, contents.units);
    }
    if (contents.externalId !== null) {
      externalIds.add(contents.externalId);
    }
  }
  const listings = [...units].map(([listingId, count]) => ({ listingId, units: count }));
  const [only] = listings;
  if (only === undefined) {
    return;
  }
  const all = createHash("sha256").update(listings.map((listing) => listing.listingId).join());
  const requestId = listings.length === 1 ? publishKey(only.listingId) : `publish/${all.digest("base64url")}`;
  await inventory.batchSetUnits({ requestId, sellerId: creation.sellerId, listings }, options);
}

/**
 * Inserts the listings with their events, in few statements; one result for each planned listing, in their order. A seller's unique key
 * decides which of two with the same external_id is the first.
 */
export async function insertListings(tx: CatalogTransaction, creation: Creation): Promise<Created[]> {
  const spelling = await spellBrands(
    tx.sql,
    creation.planned.map(({ contents }) => contents.brand),
  );
  for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt++) {
    const known = await knownListings(tx, creation);
    const fresh: ListingRow[] = [];
    const results = creation.planned.map((planned): Created => {
      const { listingId, contents } = planned;
      const existing = known.of(listingId, contents.externalId);
      if (existing !== undefined) {
        return existing.content_hash === contents.hash
          ? { row: existing, alreadyExisted: true }
          : { conflict: { externalId: contents.externalId ?? "", listingId: existing.listing_id } };
      }
      const row = newRow(tx, creation, planned, spelling.get(contents.brand) ?? "");
      fresh.push(row);
      known.add(row);
      return { row, alreadyExisted: false };
    });
    if (await inserted(tx, fresh)) {
      if (creation.publish) {
        for (const row of fresh) {
          tell(tx, ListingPublishedSchema, row);
        }
      }
      return results;
    }
  }
  throw failure(UNAVAILABLE, { message: "Others are creating the same listings. Try again.", retryAfterMs: 200 });
}

/** The error of a listing that could not be created. */
export function conflictError(conflict: { externalId: string; listingId: string }) {
  return failure(EXTERNAL_ID_CONFLICT, {
    metadata: { external_id: conflict.externalId, listing_id: conflict.listingId },
  });
}

function newRow(tx: CatalogTransaction, creation: Creation, planned: Planned, brand: string): ListingRow {
  const { contents, listingId } = planned;
  return {
    listing_id: listingId,
    seller_id: creation.sellerId,
    state: creation.publish ? "ACTIVE" : "DRAFT",
    title: contents.title,
    description: contents.description,
    category_id: contents.categoryId,
    brand: brand,
    condition_grade: contents.condition,
    currency_code: contents.currencyCode,
    price_minor: contents.priceMinor,
    offered_units: contents.units,
    available_units: creation.publish ? contents.units : 0,
    reserved_units: 0,
    // Stock events that came before the row are not waited for: they say what the row says.
    stock_sequence: 0,
    handling_days: contents.handlingDays,
    ships_from: contents.shipsFrom,
    external_id: contents.externalId,
    content_hash: contents.hash,
    create_time: tx.now,
    update_time: tx.now,
    publish_time: creation.publish ? tx.now : null,
    withdraw_key: null,
    version: 1,
  };
}

/** The seller's listings that are there already, by external_id (through the unique key) and by id. */
async function knownListings(database: Pick<CatalogDatabase, "sql">, creation: Creation) {
  const externalIds = new Set<string>();
  const listingIds: string[] = [];
  for (const { listingId, contents } of creation.planned) {
    if (contents.externalId !== null) {
      externalIds.add(contents.externalId);
    } else if (creation.publish) {
      listingIds.push(listingId);
    }
  }
  const all = database.sql.selectFrom("listing").selectAll().where("seller_id", "=", creation.sellerId);
  const rows = [
    ...(externalIds.size === 0 ? [] : await all.where("external_id", "in", [...externalIds]).execute()),
    ...(listingIds.length === 0 ? [] : await all.where("listing_id", "in", listingIds).execute()),
  ];
  const byExternalId = new Map<string, ListingRow>();
  const byListingId = new Map<string, ListingRow>();
  const add = (row: ListingRow): void => {
    byListingId.set(row.listing_id, row);
    if (row.external_id != null) {
      byExternalId.set(row.external_id, row);
    }
  };
  rows.forEach(add);
  return {
    add,
    of: (listingId: string, externalId: string | null): ListingRow | undefined =>
      externalId === null ? byListingId.get(listingId) : byExternalId.get(externalId),
  };
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
