import assert from "node:assert/strict";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { BatchGetListingsRequestSchema, ListingSchema } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import type { Call } from "#runtime/call.ts";
import { newId } from "#runtime/ids.ts";
import { pageTokens } from "#runtime/pages.ts";
import { entities, type ListingRow } from "../../services/catalog/entities.ts";
import { readColumns, toListing } from "../../services/catalog/listings.ts";
import { migrations } from "../../services/catalog/migrations/index.ts";
import { pack, packedRow, unpack } from "../../services/catalog/packed.ts";
import { kept } from "../../services/catalog/public-view.ts";
import { catalogReads } from "../../services/catalog/reads.ts";
import { allStates } from "../../services/catalog/states.ts";
import { memoryDatabase } from "../support/database.ts";

let last = 0;

/** A row with another value in each column. */
function rowOf(fields: Partial<ListingRow> = {}): ListingRow {
  last += 20;
  return {
    listing_id: newId(),
    seller_id: newId(),
    state: "ACTIVE",
    title: `title ${last}`,
    description: `description ${last}`,
    category_id: "cameras",
    brand: `brand ${last}`,
    condition_grade: "VERY_GOOD",
    currency_code: "USD",
    price_minor: BigInt(last + 1),
    offered_units: last + 2,
    available_units: last + 1,
    reserved_units: 1,
    stock_sequence: last + 5,
    handling_days: 1 + (last % 7),
    ships_from: "DE",
    external_id: `external ${last}`,
    content_hash: "0".repeat(64),
    create_time: 1_700_000_000_000 + last + 7,
    update_time: 1_700_000_000_000 + last + 8,
    publish_time: 1_700_000_000_000 + last + 9,
    withdraw_key: null,
    creation_id: null,
    version: last + 10,
    ...fields,
  };
}

/** Every state, every field that may be absent, and texts that one may stumble over. */
const rows = [
  ...allStates.map((state) => rowOf({ state })),
  rowOf({ state: "DRAFT", external_id: null, publish_time: null, brand: "", description: "" }),
  rowOf({ title: "Überraschung 🎁 \u0000 \\ ' \" \r\n", description: "ÿ\u0080é 鏡\ud83d\ude00".repeat(500) }),
  rowOf({ price_minor: 100_000_000n, create_time: 0, version: 999_999_999_999 }),
];
const odd = [
  rowOf({ description: "one\x1ftwo" }),
  rowOf({ title: "\x1f", brand: "\x1f\x1f", external_id: "a\x1fb", description: "\x1f" }),
];

describe("a packed listing", () => {
  it("is the listing, as text and as bytes, from any byte on", () => {
    for (const row of rows) {
      const listing = toListing(row);
      const packed = pack(listing) ?? "";
      for (const same of [unpack(packed), unpack(new TextEncoder().encode(packed)), unpack(Buffer.from(`é${packed}`), 2)]) {
        assert.deepEqual(same, listing);
      }
    }
  });

  it("is none when a text holds the separator", () => {
    for (const row of odd) assert.equal(pack(toListing(row)), undefined);
  });

  it("comes out of the cache as it went in, whatever it holds, and what is hidden too", () => {
    const hidden = [create(ListingSchema), create(ListingSchema, { sellerId: newId() })];
    for (const listing of [...[...rows, ...odd].map(toListing), ...hidden]) {
      assert.deepEqual(kept.codec.decode(kept.codec.encode(listing)), listing);
    }
    const damaged = Buffer.from(kept.codec.encode(toListing(rowOf())));
    assert.throws(() => kept.codec.decode(damaged.subarray(0, 60)), /other fields/);
  });

  it("is read from the table as its columns are, one whose texts hold the separator too", async () => {
    const { database } = await memoryDatabase(entities, migrations, { service: "catalog" });
    const reads = catalogReads(database, pageTokens({ secret: new Uint8Array(32) }));
    const all = [...rows, ...odd];
    await database.sql.insertInto("listing").values(all).execute();
    const packed = await database.sql.selectFrom("listing").select(packedRow.as("packed")).execute();
    assert.equal(packed.filter((row) => unpack(row.packed) === undefined).length, odd.length);
    const missing = newId();
    const listingIds = [...all.map((row) => row.listing_id), missing].reverse();
    const byColumns = await database.sql.selectFrom("listing").select(readColumns).execute();
    const search = { caller: { kind: "service", service: "search" } } as Call;
    const read = await reads.batchGetListings(search, create(BatchGetListingsRequestSchema, { listingIds }));
    const expected = new Map(byColumns.map((row) => [row.listing_id, toListing(row)]));
    assert.deepEqual(read, {
      listings: listingIds.flatMap((listingId) => expected.get(listingId) ?? []),
      missingListingIds: [missing],
    });
    assert.deepEqual(expected.get(rows[6]?.listing_id ?? ""), toListing(rows[6] as ListingRow));
    reads.close();
    await database.close();
  });
});

describe("a row as a listing", () => {
  it("is a message as the generated code makes it", () => {
    for (const row of rows) {
      const listing = toListing(row);
      assert.deepEqual(fromBinary(ListingSchema, toBinary(ListingSchema, listing)), listing);
    }
  });
});
