import { defineEntity, p } from "@mikro-orm/core";
import type { Selectable } from "kysely";
import type { Database, TablesOf } from "#runtime/database/database.ts";
import type { Transaction } from "#runtime/database/transaction.ts";
import type { State } from "./states.ts";

/** The six conditions as the table has them, best first. */
export type ConditionName = "NEW" | "LIKE_NEW" | "VERY_GOOD" | "GOOD" | "ACCEPTABLE" | "FOR_PARTS";

/** The commands that make listings active. */
export type CreationMethod = "CreateListing" | "BatchCreateListings" | "PublishListing";

/** A seller's offer. Times in milliseconds since the epoch. */
const ListingSchema = defineEntity({
  name: "Listing",
  tableName: "listing",
  uniques: [{ properties: ["sellerId", "externalId"] }],
  properties: {
    listingId: p.string().length(36).primary(),
    sellerId: p.string().length(36),
    state: p.string().length(16).$type<State>(),
    title: p.string().length(300),
    description: p.text(),
    categoryId: p.string().length(64),
    /** The known spelling; empty where there is none. */
    brand: p.string().length(60),
    conditionGrade: p.string().length(16).$type<ConditionName>(),
    currencyCode: p.string().length(3),
    priceMinor: p.bigint(),
    /** What the seller offers when it is published. */
    offeredUnits: p.integer(),
    /** What inventory last said. */
    availableUnits: p.integer(),
    reservedUnits: p.integer(),
    /** The sequence of the stock event that said so; 0 before the first. */
    stockSequence: p.bigint("number"),
    handlingDays: p.integer(),
    shipsFrom: p.string().length(2),
    /** The seller's own key, unique per seller; null when there is none. */
    externalId: p.string().length(128).nullable(),
    /** SHA-256 over the draft it was created from: whether a repeat has the same contents. Updates leave it alone. */
    contentHash: p.string().length(64),
    createTime: p.bigint("number"),
    updateTime: p.bigint("number"),
    publishTime: p.bigint("number").nullable(),
    /** The command that is withdrawing it, between telling inventory and the end; its units do not move its state meanwhile. */
    withdrawKey: p.string().length(191).nullable(),
    /** The creation that is to publish it, until it has; nobody changes the draft meanwhile. */
    creationId: p.string().length(36).nullable(),
    /** The etag: counts every change that a reader can see. */
    version: p.bigint("number"),
  },
});
export class Listing extends ListingSchema.class {}
ListingSchema.setClass(Listing);

/** Listings that were created to be published, between the first transaction and the last: what inventory is to be told, what to answer. */
const CreationSchema = defineEntity({
  name: "Creation",
  tableName: "creation",
  properties: {
    creationId: p.string().length(36).primary(),
    /** The command that is to be answered. */
    requestKey: p.string().length(191),
    method: p.string().length(32).$type<CreationMethod>(),
    /** The BatchSetUnitsRequest of the new listings: byte for byte the same however often it is sent. */
    offer: p.blob(),
    /** The BatchCreateListingsResponse as decided: what exists already, conflicts and refusals are final; new listings are drafts in it. */
    results: p.blob(),
  },
});
export class Creation extends CreationSchema.class {}
CreationSchema.setClass(Creation);

/** A brand in the spelling it was first seen in. Never changed, never deleted. */
const BrandSchema = defineEntity({
  name: "Brand",
  tableName: "brand",
  properties: {
    /** The name folded by `brandKey`. */
    brandKey: p.string().length(191).primary(),
    name: p.string().length(60),
  },
});
export class Brand extends BrandSchema.class {}
BrandSchema.setClass(Brand);

/** The catalog's entities. */
export const entities = [Listing, Creation, Brand] as const;

/** The catalog's tables as Kysely sees them. */
export type CatalogTables = TablesOf<typeof entities>;
/** The catalog's database. */
export type CatalogDatabase = Database<CatalogTables>;
/** A transaction on it. */
export type CatalogTransaction = Transaction<CatalogTables>;
/** A row of `listing`. */
export type ListingRow = Selectable<CatalogTables["listing"]>;
