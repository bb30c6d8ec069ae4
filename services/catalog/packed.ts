import { isAscii } from "node:buffer";
import { type Timestamp, timestampMs } from "@bufbuild/protobuf/wkt";
import { type RawBuilder, sql } from "kysely";
import type { Listing } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import type { ConditionName } from "./entities.ts";
import { conditionFromProto, type ReadRow, readColumns, toListing } from "./listings.ts";
import { type State, stateFromProto } from "./states.ts";

// A driver takes about as long for a column of a row as for one that holds them all, and a decoder of protobuf longer than for both: where many listings
// are read at once, each comes as one text, its fields in the order of `readColumns`.

/** The unit separator of ASCII. A text that holds it makes more fields than there are, which is seen. */
const SEPARATOR = "\x1f";

/** The fields of one listing. */
type Fields = Texts<typeof readColumns>;
type Texts<T extends readonly unknown[]> = { readonly [K in keyof T]: string };

/** Null leaves no field out. */
const NULLABLE: ReadonlySet<keyof ReadRow> = new Set(["external_id", "publish_time"]);
const columns = readColumns.map((name) => (NULLABLE.has(name) ? sql`coalesce(${sql.ref(name)}, '')` : sql.ref(name)));

/** What a reader sees of a row of `listing`. The separator is bytes, so that MySQL gives bytes: they are decoded faster here than by its driver. */
export const packedRow: RawBuilder<string | Uint8Array> = sql`concat_ws(x'1f', ${sql.join(columns)})`;

/** A listing as `packedRow` gives it; undefined where it cannot be told from another. */
export function pack(listing: Listing): string | undefined {
  const fields: Fields = [
    listing.listingId,
    listing.sellerId,
    stateFromProto(listing.state),
    listing.title,
    listing.description,
    listing.categoryId,
    listing.brand,
    conditionFromProto(listing.condition),
    listing.price?.currencyCode ?? "",
    String(listing.price?.amountMinor ?? 0n),
    String(listing.availableUnits),
    String(listing.handlingDays),
    listing.shipsFrom,
    listing.externalId,
    msOf(listing.createTime),
    msOf(listing.updateTime),
    msOf(listing.publishTime),
    listing.etag,
  ];
  const packed = fields.join(SEPARATOR);
  return packed.split(SEPARATOR).length === fields.length ? packed : undefined;
}

/** The listing, from bytes on after `start`; undefined when one of its texts holds the separator. */
export function unpack(packed: string | Uint8Array, start = 0): Listing | undefined {
  const fields = (typeof packed === "string" ? packed : textOf(packed, start)).split(SEPARATOR);
  return fields.length === readColumns.length ? toListing(rowOf(fields as unknown as Fields)) : undefined;
}

/** One byte for each character is read several times as fast. */
function textOf(bytes: Uint8Array, start: number): string {
  const buffer = Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return buffer.toString(isAscii(buffer) ? "latin1" : "utf8", start);
}

function rowOf(fields: Fields): ReadRow {
  return {
    listing_id: fields[0],
    seller_id: fields[1],
    state: fields[2] as State,
    title: fields[3],
    description: fields[4],
    category_id: fields[5],
    brand: fields[6],
    condition_grade: fields[7] as ConditionName,
    currency_code: fields[8],
    price_minor: BigInt(fields[9]),
    available_units: Number(fields[10]),
    handling_days: Number(fields[11]),
    ships_from: fields[12],
    external_id: fields[13],
    create_time: Number(fields[14]),
    update_time: Number(fields[15]),
    publish_time: fields[16] === "" ? null : Number(fields[16]),
    version: Number(fields[17]),
  };
}

function msOf(time: Timestamp | undefined): string {
  return time === undefined ? "" : String(timestampMs(time));
}
