import { defineEntity, p } from "@mikro-orm/core";
import type { Selectable } from "kysely";
import type { Database, TablesOf } from "#runtime/database/database.ts";
import type { Transaction } from "#runtime/database/transaction.ts";

/** What an account says of itself. Times in milliseconds since the epoch. */
const ProfileSchema = defineEntity({
  name: "Profile",
  tableName: "profile",
  properties: {
    accountId: p.string().primary(),
    displayName: p.string(),
    /** The name folded by `nameKey`: unique. */
    nameKey: p.string(),
    bio: p.string(),
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
    accountId: p.string().primary(),
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
    orderId: p.string().primary(),
    sellerId: p.string(),
    stars: p.integer(),
    comment: p.string(),
    createTime: p.bigint("number"),
  },
});
export class SellerRating extends SellerRatingSchema.class {}
SellerRatingSchema.setClass(SellerRating);

/** A postal address. Never changed. */
const AddressSchema = defineEntity({
  name: "Address",
  tableName: "address",
  properties: {
    addressId: p.string().primary(),
    accountId: p.string(),
    /** Its place among the account's addresses, 0 to 19: unique, so that there are never more. */
    slot: p.integer(),
    recipient: p.string(),
    /** A JSON array of 1 to 3 strings. */
    lines: p.string(),
    city: p.string(),
    region: p.string(),
    postalCode: p.string(),
    countryCode: p.string(),
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
    accountId: p.string().primary(),
    currencyCode: p.string().primary(),
    destinationToken: p.string(),
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
