import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import { CatalogService, ListSellerListingsRequestSchema } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { ListOwnDeadLettersRequestSchema, MaintenanceService } from "#gen/marketplace/ops/v1/ops_pb.ts";
import { manualClock } from "#runtime/clock.ts";
import { reasonOf } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { afterPosition, cutPage, type PageValue, pageSizeOf, pageTokens, type SortColumn } from "#runtime/pages.ts";
import { memoryDatabase } from "../support/database.ts";
import { Pot, pot, potMigrations } from "./pots.ts";

const method = CatalogService.method.listSellerListings;

describe("a page token", () => {
  const secret = new Uint8Array(32).fill(7);
  const clock = manualClock();
  const tokens = pageTokens({ secret, clock });
  const request = (sellerId: string, pageToken = "", pageSize = 0) =>
    create(ListSellerListingsRequestSchema, { sellerId, pageToken, pageSize });
  const position: PageValue[] = ["a'b", 5, 2n ** 60n];
  const token = tokens.encode(method, request("s1"), position);
  const invalid = (error: unknown) => reasonOf(error) === "PAGE_TOKEN_INVALID";

  it("names a place, whatever the page size", () => {
    assert.deepEqual(tokens.decode(method, request("s1", token, 50)), position);
    assert.equal(tokens.decode(method, request("s1")), undefined);
  });

  it("is refused when any character of it is changed", () => {
    for (let index = 0; index < token.length; index++) {
      const other = token[index] === "A" ? "B" : "A";
      const forged = `${token.slice(0, index)}${other}${token.slice(index + 1)}`;
      if (Buffer.from(forged, "base64url").equals(Buffer.from(token, "base64url"))) {
        continue;
      }
      assert.throws(() => tokens.decode(method, request("s1", forged)), invalid, `at ${index}`);
    }
  });

  it("is refused when it is nonsense, cut, or signed by somebody else", () => {
    const other = pageTokens({ secret: new Uint8Array(32).fill(8), clock }).encode(method, request("s1"), position);
    for (const forged of ["x", "%%%", token.slice(0, -4), `${token}AAAA`, other, "A".repeat(5_000)]) {
      assert.throws(() => tokens.decode(method, request("s1", forged)), invalid);
    }
  });

  it("is refused for other filters and for another method", () => {
    assert.throws(() => tokens.decode(method, request("s2", token)), invalid);
    const letters = create(ListOwnDeadLettersRequestSchema, { pageToken: token });
    const twin = { ...method, name: "ListTwins" };
    assert.throws(() => tokens.decode(twin, request("s1", token)), invalid);
    assert.throws(() => tokens.decode(MaintenanceService.method.listOwnDeadLetters, letters), invalid);
  });

  it("is refused after a day", () => {
    const before = manualClock(clock.now());
    const aging = pageTokens({ secret, clock: before });
    before.advance(24 * 3600 * 1000 - 1);
    aging.decode(method, request("s1", token));
    before.advance(1);
    assert.throws(() => aging.decode(method, request("s1", token)), invalid);
  });

  it("is not signed with a short secret", () => {
    assert.throws(() => pageTokens({ secret: new Uint8Array(31) }), /at least 32/);
  });
});

describe("a page", () => {
  const order: SortColumn<string>[] = [
    { column: "balance_minor", direction: "desc" },
    { column: "pot_id", direction: "asc" },
  ];

  it("follows the one before without a gap or a double, while rows are inserted and deleted", async () => {
    const { database } = await memoryDatabase([Pot], potMigrations);
    const insert = (id: string, balance: bigint) =>
      database.transaction((tx) => tx.sql.insertInto("pot").values(pot(id, balance)).execute());
    for (let index = 0; index < 20; index++) {
      await insert(`p${String(index).padStart(2, "0")}`, BigInt(index % 4));
    }
    const seen: string[] = [];
    let position: PageValue[] | undefined;
    for (let page = 0; page < 10; page++) {
      const after = position;
      let query = database.sql.selectFrom("pot").select(["pot_id", "balance_minor"]);
      query = after === undefined ? query : query.where((eb) => afterPosition(eb, order, after));
      const rows = await query.orderBy("balance_minor", "desc").orderBy("pot_id", "asc").limit(4).execute();
      const cut = cutPage(rows, 3, (last) => JSON.stringify(last.pot_id));
      seen.push(...cut.rows.map((row) => row.pot_id));
      const last = cut.rows.at(-1);
      if (cut.nextPageToken === "" || last === undefined) {
        break;
      }
      position = [last.balance_minor, last.pot_id];
      await insert(`before${page}`, 9n);
      await database.transaction((tx) => tx.sql.deleteFrom("pot").where("pot_id", "=", last.pot_id).execute());
    }
    assert.equal(seen.length, 20);
    assert.equal(new Set(seen).size, 20);
    await database.close();
  });

  it("has its standard size for zero and never more than its bound", () => {
    const bounds = { standard: 20, max: 100 };
    assert.deepEqual(
      [0, 7, 5_000].map((pageSize) => pageSizeOf({ pageSize }, bounds)),
      [20, 7, 100],
    );
  });
});

describe("an id", () => {
  it("is a lower-case UUID of version 7, and sorts in the order of making", () => {
    const ids = Array.from({ length: 10_000 }, newId);
    for (const id of ids) {
      assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    }
    assert.deepEqual(ids.toSorted(), ids);
    assert.equal(new Set(ids).size, ids.length);
  });
});
