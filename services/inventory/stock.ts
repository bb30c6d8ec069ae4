import type { CompiledQuery, ExpressionBuilder, Kysely } from "kysely";
import { StockChangedSchema } from "#gen/marketplace/inventory/v1/events_pb.ts";
import { compiledFor } from "#runtime/database/compiled.ts";
import { isUniqueViolation } from "#runtime/database/errors.ts";
import { fail, INVALID_REQUEST, UNAVAILABLE } from "#runtime/errors.ts";
import type { InventoryTables, InventoryTransaction, StockRow } from "./entities.ts";
import { LISTING_NOT_FOUND, NOT_YOUR_LISTING, UNITS_CHANGED, UNITS_RESERVED } from "./errors.ts";
import { toStock } from "./messages.ts";

/** Units that a listing can have on sale and set aside together: what is set aside may come back. */
export const UNITS_MAX = 10_000;
/** How often units are set anew because another writer came between looking and writing. */
const ATTEMPTS_MAX = 8;

/** Units of one listing. */
export interface Line {
  readonly listingId: string;
  readonly units: number;
}

/** How units are set. */
export interface Setting {
  readonly sellerId: string;
  /** Whether a listing without stock gets some, bound to this seller. */
  readonly mayCreate: boolean;
  readonly expectedUnits?: number | undefined;
  readonly refuseIfReserved?: boolean;
  /** Whether stock that is there stays as it is. */
  readonly keepExisting?: boolean;
}

/** From where to where units may move. */
export type Move = "reserve" | "commit" | "give back";

type Counter = "available_units" | "reserved_units" | "sold_units";

const moves: Readonly<Record<Move, readonly [from: Counter, to: Counter]>> = {
  reserve: ["available_units", "reserved_units"],
  commit: ["reserved_units", "sold_units"],
  "give back": ["reserved_units", "available_units"],
};

/** Lines in the order of their keys: whoever changes several rows takes them in this order, so that none deadlock. */
export function inKeyOrder<L extends Line>(lines: readonly L[]): L[] {
  return [...lines].sort((a, b) => (a.listingId < b.listingId ? -1 : 1));
}

/**
 * Moves units of one listing from one counter to another: one conditional update. False: it has not got them there, and nothing has
 * changed. At READ COMMITTED the update waits for another writer of the row and then looks at what that one left.
 */
export async function moveUnits(tx: InventoryTransaction, move: Move, line: Line): Promise<boolean> {
  const [{ changed }] = await tx.together(moving(tx, move, line));
  return changed === 1n;
}

/** What came of moving the units of several lines. */
export interface Moved {
  /** The stock as the transaction leaves it. */
  readonly rows: readonly StockRow[];
  /** The first line that lacks units, with its stock if it has any: nothing may be kept of the transaction then. */
  readonly lacking?: { readonly line: Line; readonly stock: StockRow | undefined };
}

/** Moves the units of every line, in this order, behind what was put off, and tells the units that are left; `reservationId` is what moves them. */
export async function moveAll(tx: InventoryTransaction, move: Move, lines: readonly Line[], reservationId: string): Promise<Moved> {
  const ids = lines.map((line) => line.listingId);
  const outcomes = await tx.together(...lines.map((line) => moving(tx, move, line)), stockOf(tx.sql, ids));
  const rows = (outcomes.at(-1)?.rows ?? []) as StockRow[];
  const lacking = lines.find((_, index) => outcomes[index]?.changed !== 1n);
  if (lacking !== undefined) {
    return { rows, lacking: { line: lacking, stock: rows.find((row) => row.listing_id === lacking.listingId) } };
  }
  for (const row of rows) {
    tell(tx, row, reservationId);
  }
  return { rows };
}

function moving(tx: InventoryTransaction, move: Move, line: Line) {
  return movements[move](tx.sql, line);
}

const movements = {
  reserve: movement("reserve"),
  commit: movement("commit"),
  "give back": movement("give back"),
} satisfies Record<Move, unknown>;

function movement(move: Move) {
  return compiledFor((sql: Kysely<InventoryTables>, line: Line) => moveUpdate(sql, move, line));
}

/** One conditional update: it changes nothing where the units are not there. */
export function moveUpdate(sql: Kysely<InventoryTables>, move: Move, { listingId, units }: Line) {
  const [from, to] = moves[move];
  return sql
    .updateTable("stock")
    .set((eb) => ({ [from]: eb(from, "-", units), [to]: eb(to, "+", units), event_sequence: eb("event_sequence", "+", 1) }))
    .where("listing_id", "=", listingId)
    .where(from, ">=", units);
}

/** Tells the units of listings as they are now; `reservationId` is what changed them, empty for the seller. Their rows are locked by this transaction. */
export async function tellStock(tx: InventoryTransaction, listingIds: readonly string[], reservationId: string): Promise<void> {
  for (const row of await loadStock(tx.sql, listingIds)) {
    tell(tx, row, reservationId);
  }
}

/** The stock of the listings that have some, in no order. */
export async function loadStock(sql: Kysely<InventoryTables>, listingIds: readonly string[]): Promise<StockRow[]> {
  return (await sql.executeQuery(stockOf(sql, listingIds))).rows;
}

function stockOf(sql: Kysely<InventoryTables>, listingIds: readonly string[]): CompiledQuery<StockRow> {
  const [listingId] = listingIds;
  return listingIds.length === 1 && listingId !== undefined
    ? stockOfOne(sql, { listingId })
    : sql.selectFrom("stock").selectAll().where("listing_id", "in", listingIds).compile();
}

const stockOfOne = compiledFor((sql: Kysely<InventoryTables>, at: { listingId: string }) =>
  sql.selectFrom("stock").selectAll().where("listing_id", "=", at.listingId),
);

/** Sets the units of a seller's listings, each listing once; all or none. Tells those that changed. Gives the rows in no order. */
export async function setUnits(tx: InventoryTransaction, lines: readonly Line[], setting: Setting): Promise<StockRow[]> {
  const ordered = inKeyOrder(lines);
  const known = await createMissing(tx, ordered, setting);
  const settled: StockRow[] = [];
  for (const line of ordered) {
    const row = known.get(line.listingId);
    if (row === undefined) {
      settled.push(freshRow(line, setting));
    } else if (setting.keepExisting === true) {
      requireSeller(row, setting);
      settled.push(row);
    } else {
      settled.push(await setExisting(tx, row, line, setting));
    }
  }
  return settled;
}

/** Inserts the stock that is not there, in one statement. Gives the rows that were there. */
async function createMissing(
  tx: InventoryTransaction,
  lines: readonly Line[],
  setting: Setting,
): Promise<ReadonlyMap<string, StockRow>> {
  const ids = lines.map((line) => line.listingId);
  for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt++) {
    const known = new Map((await loadStock(tx.sql, ids)).map((row) => [row.listing_id, row]));
    const missing = lines.filter((line) => !known.has(line.listingId));
    const [first] = missing;
    if (first === undefined) {
      return known;
    }
    if (!setting.mayCreate) {
      fail(LISTING_NOT_FOUND, { metadata: { listing_id: first.listingId } });
    }
    requireExpected(setting, first.listingId, 0);
    const fresh = missing.map((line) => freshRow(line, setting));
    try {
      await tx.sql.insertInto("stock").values(fresh).execute();
    } catch (error) {
      if (isUniqueViolation(error)) {
        continue;
      }
      throw error;
    }
    for (const row of fresh) {
      tell(tx, row, "");
    }
    return known;
  }
  return overrun();
}

/** One conditional update that writes what was decided on the row as it was read, or decides anew. */
async function setExisting(tx: InventoryTransaction, read: StockRow, line: Line, setting: Setting): Promise<StockRow> {
  let row = read;
  for (let attempt = 1; attempt <= ATTEMPTS_MAX; attempt++) {
    requireSettable(row, line, setting);
    if (row.available_units === line.units) {
      return row;
    }
    const next = {
      ...row,
      available_units: line.units,
      offered_units: line.units + row.reserved_units + row.sold_units,
      event_sequence: row.event_sequence == null ? null : row.event_sequence + 1,
    };
    const result = await tx.sql
      .updateTable("stock")
      .set((eb) => ({
        available_units: next.available_units,
        offered_units: next.offered_units,
        event_sequence: eb("event_sequence", "+", 1),
      }))
      .where((eb) => isAsRead(eb, row))
      .executeTakeFirst();
    if (result.numUpdatedRows === 1n) {
      tell(tx, next, "");
      return next;
    }
    row = (await loadStock(tx.sql, [line.listingId]))[0] ?? fail(LISTING_NOT_FOUND, { metadata: { listing_id: line.listingId } });
  }
  return overrun();
}

function isAsRead(eb: ExpressionBuilder<InventoryTables, "stock">, row: StockRow) {
  return eb.and({
    listing_id: row.listing_id,
    available_units: row.available_units,
    reserved_units: row.reserved_units,
    sold_units: row.sold_units,
    // Others may have changed it and changed it back.
    ...(row.event_sequence == null ? {} : { event_sequence: row.event_sequence }),
  });
}

function requireSettable(row: StockRow, line: Line, setting: Setting): void {
  const metadata = { listing_id: row.listing_id };
  requireSeller(row, setting);
  if (setting.refuseIfReserved === true && row.reserved_units > 0) {
    fail(UNITS_RESERVED, { metadata: { ...metadata, reserved_units: String(row.reserved_units) } });
  }
  requireExpected(setting, row.listing_id, row.available_units);
  if (line.units + row.reserved_units > UNITS_MAX) {
    const description = `with the ${row.reserved_units} reserved units at most ${UNITS_MAX}`;
    fail(INVALID_REQUEST, { metadata, violations: [{ field: "units", description }] });
  }
}

function requireSeller(row: StockRow, setting: Setting): void {
  if (row.seller_id !== setting.sellerId) {
    fail(NOT_YOUR_LISTING, { metadata: { listing_id: row.listing_id } });
  }
}

function requireExpected(setting: Setting, listingId: string, available: number): void {
  if (setting.expectedUnits !== undefined && setting.expectedUnits !== available) {
    fail(UNITS_CHANGED, { metadata: { listing_id: listingId, available_units: String(available) } });
  }
}

function freshRow({ listingId, units }: Line, { sellerId }: Setting): StockRow {
  return {
    listing_id: listingId,
    seller_id: sellerId,
    offered_units: units,
    available_units: units,
    reserved_units: 0,
    sold_units: 0,
    event_sequence: 1,
  };
}

/** Tells the stock of one listing, whose row is locked by this transaction. */
export function tell(tx: InventoryTransaction, row: StockRow, reservationId: string): void {
  const message = { stock: toStock(row), reservationId };
  tx.append({
    aggregateType: "stock",
    aggregateId: row.listing_id,
    schema: StockChangedSchema,
    message,
    sequence: row.event_sequence,
  });
}

function overrun(): never {
  fail(UNAVAILABLE, { message: "Too many changes of these units at once. Try again.", retryAfterMs: 100 });
}
