import { defineEntity, p } from "@mikro-orm/core";
import type { Selectable } from "kysely";
import type { Database, TablesOf } from "#runtime/database/database.ts";
import type { Transaction } from "#runtime/database/transaction.ts";
import type { State } from "./states.ts";

/** The units of one listing. Whatever happens, `offered = available + reserved + sold`: the table refuses a row that lost a unit. */
const StockSchema = defineEntity({
  name: "Stock",
  tableName: "stock",
  properties: {
    listingId: p.string().length(36).primary(),
    sellerId: p.string().length(36),
    /** Changed by the seller alone; units only move between the other three. */
    offeredUnits: p.integer(),
    availableUnits: p.integer(),
    reservedUnits: p.integer(),
    soldUnits: p.integer(),
    /** The number of its last event; null where `sequence` has it. */
    eventSequence: p.bigint("number").nullable(),
  },
});
export class Stock extends StockSchema.class {}
StockSchema.setClass(Stock);

/** Units set aside for an order. Times in milliseconds since the epoch. */
const ReservationSchema = defineEntity({
  name: "Reservation",
  tableName: "reservation",
  properties: {
    reservationId: p.string().length(36).primary(),
    state: p.string().length(16).$type<State>(),
    /** Null only where it was released before it was made. */
    expireTime: p.bigint("number").nullable(),
    createTime: p.bigint("number"),
    /** Null while pending. */
    endTime: p.bigint("number").nullable(),
    /** When the job `inventory.expire` is to end it; null when it has ended, or when that job is planned. */
    watchTime: p.bigint("number").nullable(),
  },
});
export class Reservation extends ReservationSchema.class {}
ReservationSchema.setClass(Reservation);

/** Units of one listing in a reservation. Never changed. */
const ReservationLineSchema = defineEntity({
  name: "ReservationLine",
  tableName: "reservation_line",
  properties: {
    reservationId: p.string().length(36).primary(),
    listingId: p.string().length(36).primary(),
    units: p.integer(),
  },
});
export class ReservationLine extends ReservationLineSchema.class {}
ReservationLineSchema.setClass(ReservationLine);

/** Inventory's entities. */
export const entities = [Stock, Reservation, ReservationLine] as const;

/** Inventory's tables as Kysely sees them. */
export type InventoryTables = TablesOf<typeof entities>;
/** Inventory's database. */
export type InventoryDatabase = Database<InventoryTables>;
/** A transaction on it. */
export type InventoryTransaction = Transaction<InventoryTables>;
/** A row of `stock`. */
export type StockRow = Selectable<InventoryTables["stock"]>;
/** A row of `reservation`. */
export type ReservationRow = Selectable<InventoryTables["reservation"]>;
