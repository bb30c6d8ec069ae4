import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { Kysely } from "kysely";
import type { ReserveRequest } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import { meaningOf } from "#runtime/database/batch.ts";
import { compiledFor, insertRow, insertRows } from "#runtime/database/compiled.ts";
import { isUniqueViolation } from "#runtime/database/errors.ts";
import { gathered } from "#runtime/database/gathered.ts";
import { fail, INVALID_REQUEST } from "#runtime/errors.ts";
import type { JobHandler } from "#runtime/jobs/jobs.ts";
import { failLacking } from "./counter.ts";
import type { InventoryDatabase, InventoryTables, InventoryTransaction, ReservationRow, StockRow } from "./entities.ts";
import {
  EXPIRE_TIME_INVALID,
  RESERVATION_COMMITTED,
  RESERVATION_CONFLICT,
  RESERVATION_EXPIRED,
  RESERVATION_NOT_FOUND,
  RESERVATION_RELEASED,
} from "./errors.ts";
import { areLast, commitLast } from "./last-units.ts";
import { type EndState, statesBefore } from "./states.ts";
import { inKeyOrder, type Line, type Moved, moveAll } from "./stock.ts";

/** The job that gives the units of a reservation back when its time has run out. Its key is the reservation's id. */
export const EXPIRE_JOB = "inventory.expire";

const LIFETIME_MIN_MS = 1_000;
const LIFETIME_MAX_MS = 24 * 3600 * 1000;

/** A reservation as it is in the tables; the lines in key order. */
export interface Reserved {
  readonly row: ReservationRow;
  readonly lines: readonly Line[];
}

/** A reservation that was just made. */
export interface Made extends Reserved {
  /** The stock of its lines as that left it, where they are all that was left. */
  readonly lastStock?: readonly StockRow[];
}

/** What is to be set aside; the lines in key order. */
export interface Wanted {
  readonly reservationId: string;
  readonly lines: readonly Line[];
  /** Milliseconds since the epoch. */
  readonly expireTime: number;
}

/** What a request wants. Fails with INVALID_REQUEST when it names a listing twice. */
export function wantedOf(request: ReserveRequest): Wanted {
  const lines = inKeyOrder(request.lines);
  const twice = lines.findIndex((line, index) => line.listingId === lines[index + 1]?.listingId);
  if (twice !== -1) {
    fail(INVALID_REQUEST, { violations: [{ field: "lines", description: `names the listing ${lines[twice]?.listingId} twice` }] });
  }
  const expireTime = request.expireTime === undefined ? Number.NaN : timestampMs(request.expireTime);
  return { reservationId: request.reservationId, lines, expireTime };
}

/** The reservation with its lines; undefined when there is none. */
export async function loadReservation(sql: Kysely<InventoryTables>, reservationId: string): Promise<Reserved | undefined> {
  return reservedOf((await sql.executeQuery(reservationOf(sql, { reservationId }))).rows);
}

const reservationOf = compiledFor((sql: Kysely<InventoryTables>, at: { reservationId: string }) =>
  sql
    .selectFrom("reservation as r")
    .leftJoin("reservation_line as l", "l.reservation_id", "r.reservation_id")
    .selectAll("r")
    .select(["l.listing_id", "l.units"])
    .where("r.reservation_id", "=", at.reservationId)
    .orderBy("l.listing_id"),
);

/** A reservation and its lines as one row for each line; one without lines as a row without. */
function reservedOf(rows: readonly (ReservationRow & { listing_id: string | null; units: number | null })[]): Reserved | undefined {
  const [first] = rows;
  if (first === undefined) {
    return undefined;
  }
  const { listing_id: _listing, units: _units, ...row } = first;
  const lines = rows.flatMap(({ listing_id: listingId, units }) =>
    listingId === null || units === null ? [] : [{ listingId, units }],
  );
  return { row, lines };
}

/** Whether a command's request_id or its reservation has been seen before, for many who ask at once. */
export function seenBefore({ sql }: InventoryDatabase): (requestKey: string, reservationId: string) => Promise<boolean> {
  const seen = gathered<{ pair: string }>({
    async read(pairs) {
      const split = pairs.map((pair) => pair.split("\n") as [requestKey: string, reservationId: string]);
      const rows = await sql
        .selectFrom("replay")
        .select("request_key as id")
        .where(
          "request_key",
          "in",
          split.map(([requestKey]) => requestKey),
        )
        .unionAll(
          sql
            .selectFrom("reservation")
            .select("reservation_id as id")
            .where(
              "reservation_id",
              "in",
              split.map(([, reservationId]) => reservationId),
            ),
        )
        .execute();
      const ids = new Set(rows.map((row) => row.id));
      return pairs.filter((_, index) => split[index]?.some((id) => ids.has(id))).map((pair) => ({ pair }));
    },
    keyOf: ({ pair }) => pair,
  });
  return async (requestKey, reservationId) => (await seen(`${requestKey}\n${reservationId}`)) !== undefined;
}

/** There is a reservation of this id. */
class AlreadyThere extends Error {}

/** Sets units aside: of every line, or fails. A reservation that is there with the same lines is given as it is. */
export async function reserve(tx: InventoryTransaction, wanted: Wanted): Promise<Made> {
  const { reservationId, lines, expireTime } = wanted;
  const row: ReservationRow = {
    reservation_id: reservationId,
    state: "PENDING",
    expire_time: expireTime,
    create_time: tx.now,
    end_time: null,
    watch_time: expireTime,
  };
  let moved: Moved;
  try {
    await tx.must(insertRow(tx.sql, "reservation", row), () => new AlreadyThere());
    // The stock before the lines: their foreign key would take the row of a listing as a reader, and two readers who both want to write deadlock.
    moved = await moveAll(tx, "reserve", lines, reservationId);
  } catch (error) {
    if (!(meaningOf(error) instanceof AlreadyThere)) {
      throw error;
    }
    return requireSame((await loadReservation(tx.sql, reservationId)) as Reserved, wanted);
  }
  requireLifetime(expireTime, tx.now);
  const { rows: stock, lacking } = moved;
  if (lacking !== undefined) {
    failLacking({ line: lacking.line, availableUnits: lacking.stock?.available_units });
  }
  const rows = lines.map((line) => ({ reservation_id: reservationId, listing_id: line.listingId, units: line.units }));
  await tx.later(insertRows(tx.sql, "reservation_line", rows));
  return { row, lines, ...(areLast(stock, lines) ? { lastStock: stock } : {}) };
}

/** A reservation is not pending any more, its time has run out, or its stock is not as it was known. */
export class NotAsKnown extends Error {}

/**
 * Makes a reservation final that is known as it was made; its lines never change. Whether it is still pending, and its stock as it left it, decides the write: the
 * transaction fails with NotAsKnown otherwise.
 */
export async function commitKnown(tx: InventoryTransaction, { row, lines, lastStock }: Made): Promise<Reserved> {
  const { reservation_id: reservationId } = row;
  await tx.must(endings.COMMITTED(tx.sql, { reservationId, now: tx.now }), () => new NotAsKnown());
  await (lastStock === undefined
    ? moveReserved(tx, "COMMITTED", lines, reservationId)
    : commitLast(tx, lastStock, lines, reservationId, () => new NotAsKnown()));
  return { row: { ...row, state: "COMMITTED", end_time: tx.now, watch_time: null }, lines };
}

/** Makes a reservation final; one whose time has run out is refused even if its units have not gone back yet. */
export async function commit(tx: InventoryTransaction, reservationId: string): Promise<Reserved> {
  const metadata = { reservation_id: reservationId };
  const reserved = (await end(tx, reservationId, "COMMITTED")) ?? fail(RESERVATION_NOT_FOUND, { metadata });
  switch (reserved.row.state) {
    case "COMMITTED":
      return reserved;
    case "RELEASED":
      return fail(RESERVATION_RELEASED, { metadata });
    default:
      return fail(RESERVATION_EXPIRED, { metadata });
  }
}

/** Gives the units of a reservation back. One that does not exist is noted as released, so that a Reserve that comes late is refused. */
export async function release(tx: InventoryTransaction, reservationId: string): Promise<Reserved> {
  const tombstone: ReservationRow = {
    reservation_id: reservationId,
    state: "RELEASED",
    expire_time: null,
    create_time: tx.now,
    end_time: tx.now,
    watch_time: null,
  };
  const known = await end(tx, reservationId, "RELEASED");
  if (known === undefined && (await inserted(tx, tombstone))) {
    return { row: tombstone, lines: [] };
  }
  const reserved = known ?? ((await end(tx, reservationId, "RELEASED")) as Reserved);
  return reserved.row.state === "COMMITTED"
    ? fail(RESERVATION_COMMITTED, { metadata: { reservation_id: reservationId } })
    : reserved;
}

/** Expires reservations whose time has run out. */
export function expiry(database: InventoryDatabase): JobHandler {
  return {
    kind: EXPIRE_JOB,
    watches: { table: "reservation", key: "reservation_id", time: "watch_time" },
    async run({ key: reservationId, signal }) {
      await database.transaction(
        async (tx) => {
          const row = (await end(tx, reservationId, "EXPIRED"))?.row;
          if (row?.state === "PENDING" && row.expire_time != null) {
            // Not due by this process's clock: the job waits for it.
            tx.schedule({ kind: EXPIRE_JOB, key: reservationId, dueTime: row.expire_time });
          }
        },
        { signal },
      );
    },
  };
}

/**
 * Brings a pending reservation to an end, with its units. One conditional update of the state decides which of several ends it; it refuses
 * to commit after the reservation's time, and to expire before. Gives the reservation as it is then, whoever ended it, if there is one.
 */
async function end(tx: InventoryTransaction, reservationId: string, state: EndState): Promise<Reserved | undefined> {
  const ending = endings[state](tx.sql, { reservationId, now: tx.now });
  const [{ changed }, { rows }] = await tx.together(ending, reservationOf(tx.sql, { reservationId }));
  const reserved = reservedOf(rows);
  if (reserved !== undefined && changed === 1n) {
    await moveReserved(tx, state, reserved.lines, reservationId);
  }
  return reserved;
}

/** Sells the units of a reservation that has ended, or gives them back. */
async function moveReserved(
  tx: InventoryTransaction,
  state: EndState,
  lines: readonly Line[],
  reservationId: string,
): Promise<void> {
  const { lacking } = await moveAll(tx, state === "COMMITTED" ? "commit" : "give back", lines, reservationId);
  if (lacking !== undefined) {
    throw new Error(`the stock of listing ${lacking.line.listingId} has fewer reserved units than reservation ${reservationId}.`);
  }
}

const endings: Readonly<Record<EndState, ReturnType<typeof endingAs>>> = {
  COMMITTED: endingAs("COMMITTED"),
  RELEASED: endingAs("RELEASED"),
  EXPIRED: endingAs("EXPIRED"),
};

function endingAs(state: EndState) {
  return compiledFor((sql: Kysely<InventoryTables>, at: { reservationId: string; now: number }) => {
    const ending = sql
      .updateTable("reservation")
      .set({ state, end_time: at.now, watch_time: null })
      .where("reservation_id", "=", at.reservationId)
      .where("state", "in", statesBefore(state));
    return state === "RELEASED" ? ending : ending.where("expire_time", state === "COMMITTED" ? ">" : "<=", at.now);
  });
}

/** Whether the row went in; false when there is a reservation of this id. */
async function inserted(tx: InventoryTransaction, row: ReservationRow): Promise<boolean> {
  try {
    await tx.sql.insertInto("reservation").values(row).execute();
    return true;
  } catch (error) {
    if (isUniqueViolation(error)) {
      return false;
    }
    throw error;
  }
}

function requireSame(known: Reserved, wanted: Wanted): Reserved {
  const same =
    known.lines.length === wanted.lines.length &&
    known.lines.every(
      (line, index) => line.listingId === wanted.lines[index]?.listingId && line.units === wanted.lines[index]?.units,
    );
  return same ? known : fail(RESERVATION_CONFLICT, { metadata: { reservation_id: wanted.reservationId } });
}

/** Fails unless a reservation may last until then. */
export function requireLifetime(expireTime: number, now: number): void {
  const lifetime = expireTime - now;
  if (!(lifetime >= LIFETIME_MIN_MS && lifetime <= LIFETIME_MAX_MS)) {
    fail(EXPIRE_TIME_INVALID, { metadata: { expire_time: String(expireTime) } });
  }
}
