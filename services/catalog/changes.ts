import type { MessageInitShape } from "@bufbuild/protobuf";
import type { GenMessage } from "@bufbuild/protobuf/codegenv2";
import {
  type ListingPublished,
  type ListingReactivated,
  ListingReactivatedSchema,
  type ListingReserved,
  ListingReservedSchema,
  type ListingSold,
  ListingSoldSchema,
  type ListingUpdated,
  type ListingWithdrawn,
} from "#gen/marketplace/catalog/v1/events_pb.ts";
import { accountIfAny, type Call } from "#runtime/call.ts";
import { fail, UNAVAILABLE } from "#runtime/errors.ts";
import type { CatalogTransaction, ListingRow } from "./entities.ts";
import { LISTING_NOT_EDITABLE, LISTING_NOT_FOUND, NOT_YOUR_LISTING } from "./errors.ts";
import { loadListing, maySee, toListing } from "./listings.ts";
import { isEditable, mayBecome, stateByUnits } from "./states.ts";

/** How often a change is decided anew because another writer came between reading and writing. */
const ATTEMPTS_MAX = 8;

/** The messages of events.proto, which are alike: each holds the listing as it is then. */
type ListingEvent = ListingPublished | ListingUpdated | ListingReserved | ListingReactivated | ListingSold | ListingWithdrawn;

/** Another writer came between reading the row and writing it; nothing was written. */
export class Overtaken extends Error {}

/**
 * Runs a change that reads a listing, decides and writes by `change` or `record`; again from the start when another writer came between.
 * At READ COMMITTED the second reading sees what the other wrote.
 */
export async function deciding<T>(decide: () => Promise<T>): Promise<T> {
  for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt++) {
    try {
      return await decide();
    } catch (error) {
      if (!(error instanceof Overtaken)) {
        throw error;
      }
    }
  }
  return fail(UNAVAILABLE, { message: "Too many changes of this listing at once. Try again.", retryAfterMs: 100 });
}

/** Writes only what no reader sees: one conditional update that must hit the row as it was read. */
export async function record(tx: CatalogTransaction, row: ListingRow, set: Partial<ListingRow>): Promise<ListingRow> {
  const result = await tx.sql
    .updateTable("listing")
    .set(set)
    .where("listing_id", "=", row.listing_id)
    .where("version", "=", row.version)
    .where("stock_sequence", "=", row.stock_sequence)
    .executeTakeFirst();
  if (result.numUpdatedRows !== 1n) {
    throw new Overtaken();
  }
  return { ...row, ...set };
}

/** Writes a change that readers see, with a new version (the etag). Gives the row as it is now. */
export function change(tx: CatalogTransaction, row: ListingRow, set: Partial<ListingRow>): Promise<ListingRow> {
  if (set.state !== undefined && set.state !== row.state && !mayBecome(row.state, set.state)) {
    throw new Error(`a listing in state ${row.state} cannot become ${set.state}.`);
  }
  return record(tx, row, { ...set, update_time: tx.now, version: row.version + 1 }).then((changed) => {
    tx.changed({ kind: "listing", id: changed.listing_id, version: changed.version });
    return changed;
  });
}

/** Tells what happened to a listing, with the listing as it is now. */
export function tell<E extends ListingEvent>(tx: CatalogTransaction, schema: GenMessage<E>, row: ListingRow): void {
  const message = { listing: toListing(row) } as MessageInitShape<GenMessage<E>>;
  tx.append({ aggregateType: "listing", aggregateId: row.listing_id, schema, message });
}

/** What a listing that moves to a state by its units tells. */
function tellState(tx: CatalogTransaction, row: ListingRow): void {
  switch (row.state) {
    case "ACTIVE":
      tell(tx, ListingReactivatedSchema, row);
      break;
    case "RESERVED":
      tell(tx, ListingReservedSchema, row);
      break;
    case "SOLD":
      tell(tx, ListingSoldSchema, row);
      break;
    default:
      throw new Error(`no listing becomes ${row.state} by its units.`);
  }
}

/** What inventory said of a listing's units. */
type StockColumns = Pick<ListingRow, "available_units" | "reserved_units" | "stock_sequence">;

/**
 * Takes over the units and moves a published listing to the state they give it, unless it is being withdrawn. Tells of a change of the
 * state; a change of the count alone is seen by readers and told to nobody.
 */
export async function followUnits(tx: CatalogTransaction, row: ListingRow, stock: StockColumns): Promise<ListingRow> {
  const units = { available: stock.available_units, reserved: stock.reserved_units };
  const state = row.withdraw_key == null ? stateByUnits(row.state, units) : row.state;
  if (state !== row.state) {
    const changed = await change(tx, row, { ...stock, state });
    tellState(tx, changed);
    return changed;
  }
  const seen = toListing({ ...row, ...stock }).availableUnits !== toListing(row).availableUnits;
  return seen ? change(tx, row, stock) : record(tx, row, stock);
}

/** Loads the listing for a change by its caller. Fails with LISTING_NOT_FOUND or NOT_YOUR_LISTING; an operator passes if `operators` may. */
export async function loadOwn(
  tx: Pick<CatalogTransaction, "sql">,
  call: Pick<Call, "caller">,
  listingId: string,
  options: { operators?: boolean } = {},
): Promise<ListingRow> {
  const row = await loadListing(tx.sql, listingId);
  if (row === undefined || !maySee(call, row)) {
    fail(LISTING_NOT_FOUND, { metadata: { listing_id: listingId } });
  }
  const operator = options.operators === true && call.caller.kind === "account" && call.caller.operator;
  if (accountIfAny(call) !== row.seller_id && !operator) {
    fail(NOT_YOUR_LISTING, { metadata: { listing_id: listingId } });
  }
  return row;
}

/** Refuses a listing that its state keeps from being changed, or a creation or a withdrawal that is under way. */
export function requireEditable(row: ListingRow): void {
  if (!isEditable(row.state) || row.creation_id != null || row.withdraw_key != null) {
    fail(LISTING_NOT_EDITABLE, { metadata: { listing_id: row.listing_id, state: row.state } });
  }
}
