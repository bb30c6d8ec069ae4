import { defineEntity, p } from "@mikro-orm/core";
import type { Selectable } from "kysely";
import type { Database, TablesOf } from "#runtime/database/database.ts";
import type { Transaction } from "#runtime/database/transaction.ts";

/** What an account says of itself. Times in milliseconds since the epoch. */
const ProfileSchema = defineEntity({
  name: "Profile",
  tableName: "profile",
  properties: {
    accountId: p.string().length(36).primary(),
    displayName: p.string().length(40),
    /** The name folded by `nameKey`: unique. */
    nameKey: p.string().length(191).unique(),
    bio: p.string().length(500),
    createTime: p.bigint("number"),
    /** The etag: counts the owner's changes. */
    version: p.bigint("number"),
  },
});
export class Profile extends ProfileSchema.class {}
ProfileSchema.setClass(Profile);

/** What an account earned as a seller; apart from its profile, because it may sell before it has one. */
const SellerTotalsSchema = defineEntity({
  name: "SellerTotals",
  tableName: "seller_totals",
  properties: {
    accountId: p.string().length(36).primary(),
    oneStar: p.integer(),
    twoStars: p.integer(),
    threeStars: p.integer(),
    fourStars: p.integer(),
    fiveStars: p.integer(),
    completedSales: p.integer(),
  },
});
export class SellerTotals extends SellerTotalsSchema.class {}
SellerTotalsSchema.setClass(SellerTotals);

/** A buyer's rating of an order. Never changed. */
const SellerRatingSchema = defineEntity({
  name: "SellerRating",
  tableName: "seller_rating",
  properties: {
    orderId: p.string().length(36).primary(),
    sellerId: p.string().length(36),
    stars: p.integer(),
    comment: p.text(),
    createTime: p.bigint("number"),
  },
});
export class SellerRating extends SellerRatingSchema.class {}
SellerRatingSchema.setClass(SellerRating);

/** A postal address. Never changed. */
const AddressSchema = defineEntity({
  name: "Address",
  tableName: "address",
  uniques: [{ properties: ["accountId", "slot"] }],
  properties: {
    addressId: p.string().length(36).primary(),
    accountId: p.string().length(36),
    /** Its place among the account's addresses, 0 to 19: unique, so that there are never more. */
    slot: p.integer(),
    recipient: p.string().length(100),
    /** A JSON array of 1 to 3 strings. */
    lines: p.string().length(2000),
    city: p.string().length(100),
    region: p.string().length(100),
    postalCode: p.string().length(20),
    countryCode: p.string().length(2),
    createTime: p.bigint("number"),
  },
});
export class Address extends AddressSchema.class {}
AddressSchema.setClass(Address);

/** Where an account's payouts in a currency go. */
const PayoutDestinationSchema = defineEntity({
  name: "PayoutDestination",
  tableName: "payout_destination",
  properties: {
    accountId: p.string().length(36).primary(),
    currencyCode: p.string().length(3).primary(),
    destinationToken: p.string().length(191),
    updateTime: p.bigint("number"),
  },
});
export class PayoutDestination extends PayoutDestinationSchema.class {}
PayoutDestinationSchema.setClass(PayoutDestination);

/** The account service's entities. */
export const entities = [Profile, SellerTotals, SellerRating, Address, PayoutDestination] as const;

/** Its tables as Kysely sees them. */
export type AccountTables = TablesOf<typeof entities>;
/** Its database. */
export type AccountDatabase = Database<AccountTables>;
/** A transaction on it. */
export type AccountTransaction = Transaction<AccountTables>;
/** A row of `address`. */
export type AddressRow = Selectable<AccountTables["address"]>;
