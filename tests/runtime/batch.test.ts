import assert from "node:assert/strict";
import { sql } from "kysely";
import { compiledFor, insertRow, insertRows, updateRow } from "#runtime/database/compiled.ts";
import type { Database } from "#runtime/database/database.ts";
import { isUniqueViolation } from "#runtime/database/errors.ts";
import { newId } from "#runtime/ids.ts";
import { memoryDatabase } from "../support/database.ts";
import { Pot, pot, potMigrations } from "./pots.ts";

describe("statements of one transaction", () => {
  let database: Awaited<ReturnType<typeof open>>;
  const open = async () => (await memoryDatabase([Pot], potMigrations)).database;
  const ids = async () => (await database.sql.selectFrom("pot").select("pot_id").execute()).map((row) => row.pot_id);

  beforeEach(async () => {
    database = await open();
  });
  afterEach(() => (database as Database).close());

  it("that go together give what came of each, in their order", async () => {
    const id = newId();
    const [inserted, found, gone] = await database.transaction((tx) =>
      tx.together(
        tx.sql.insertInto("pot").values(pot(id)),
        tx.sql.selectFrom("pot").select("pot_id"),
        tx.sql.deleteFrom("pot").where("pot_id", "=", newId()),
      ),
    );
    assert.equal(inserted.changed, 1n);
    assert.deepEqual(
      found.rows.map((row) => row.pot_id),
      [id],
    );
    assert.equal(gone.changed, 0n);
  });

  it("that were put off are there for the next one and after the commit", async () => {
    const [a, b] = [newId(), newId()];
    const seen = await database.transaction(async (tx) => {
      await tx.later(tx.sql.insertInto("pot").values(pot(a)));
      const rows = await tx.sql.selectFrom("pot").select("pot_id").execute();
      await tx.later(tx.sql.insertInto("pot").values(pot(b)));
      return rows.map((row) => row.pot_id);
    });
    assert.deepEqual(seen, [a]);
    assert.deepEqual((await ids()).sort(), [a, b].sort());
  });

  it("that were put off and fail undo all, and are not taken for the conflict of who came after", async () => {
    const id = newId();
    await database.transaction(async (tx) => tx.later(tx.sql.insertInto("pot").values(pot(id))));
    let met: unknown;
    await assert.rejects(
      database.transaction(async (tx) => {
        await tx.sql.insertInto("pot").values(pot(newId())).execute();
        await tx.later(tx.sql.insertInto("pot").values(pot(id)));
        try {
          await tx.sql.insertInto("pot").values(pot(newId())).execute();
        } catch (error) {
          met = error;
          throw error;
        }
      }),
    );
    assert.ok(!isUniqueViolation(met));
    assert.deepEqual(await ids(), [id]);
  });

  it("that must change a row undo all when they do not, with what that means to who put them off", async () => {
    class Missing extends Error {}
    const gone = (tx: Parameters<Parameters<typeof database.transaction>[0]>[0]) =>
      tx.must(tx.sql.updateTable("pot").set({ title: "x" }).where("pot_id", "=", newId()), () => new Missing());
    const insert = (tx: Parameters<Parameters<typeof database.transaction>[0]>[0]) => tx.sql.insertInto("pot").values(pot(newId()));
    // Looked at before the commit, with the next statement, and when the next one fails because of it.
    const works: Parameters<typeof database.transaction>[0][] = [
      async (tx) => {
        await tx.later(insert(tx));
        await gone(tx);
        await tx.later(insert(tx));
      },
      async (tx) => {
        await insert(tx).execute();
        await gone(tx);
        await insert(tx).execute();
      },
      async (tx) => {
        const id = newId();
        await tx.later(tx.sql.insertInto("pot").values(pot(id)));
        await gone(tx);
        await tx.sql.insertInto("pot").values(pot(id)).execute();
      },
      (tx) => gone(tx),
    ];
    for (const work of works) await assert.rejects(database.transaction(work), Missing);
    assert.deepEqual(await ids(), []);
  });

  it("that must meet no key that is there say what it means that they did", async () => {
    class Known extends Error {}
    const id = newId();
    const insert = () => database.transaction((tx) => tx.must(tx.sql.insertInto("pot").values(pot(id)), () => new Known()));
    await insert();
    await assert.rejects(insert(), Known);
    assert.deepEqual(await ids(), [id]);
  });

  it("alone in their transaction are there after it", async () => {
    const id = newId();
    await database.transaction((tx) => tx.later(tx.sql.insertInto("pot").values(pot(id))));
    await database.transaction((tx) =>
      tx.must(tx.sql.updateTable("pot").set({ title: "alone" }).where("pot_id", "=", id), () => new Error("missing")),
    );
    const rows = await database.sql.selectFrom("pot").select("title").execute();
    assert.deepEqual(rows, [{ title: "alone" }]);
  });

  it("that are compiled once carry their own values each time, whatever stands in them", async () => {
    const titles = ["plain", "what? why??", "'; drop table pot; --", 'back\\slash "quoted" \n line', "ünï çødé 🎈", "$& $1"];
    const ofTitle = compiledFor((sql: typeof database.sql, at: { title: string; balance: bigint }) =>
      sql.selectFrom("pot").selectAll().where("title", "=", at.title).where("balance_minor", "=", at.balance),
    );
    for (const [index, title] of titles.entries()) {
      const row = { ...pot(newId(), BigInt(index)), title, note: index % 2 === 0 ? null : title };
      await database.transaction(async (tx) => {
        await tx.must(insertRow(tx.sql, "pot", row), () => new Error("there"));
        await tx.must(updateRow(tx.sql, "pot", { create_time: index }, { pot_id: row.pot_id, title }), () => new Error("gone"));
      });
      const { rows } = await database.sql.executeQuery(ofTitle(database.sql, { title, balance: BigInt(index) }));
      assert.deepEqual(rows, [{ ...row, create_time: index }]);
    }
    const more = ["a", "b"].map((title) => ({ ...pot(newId()), title }));
    await database.transaction((tx) => tx.later(insertRows(tx.sql, "pot", more)));
    assert.equal((await ids()).length, titles.length + 2);
  });

  it("may have question marks that stand for no value", async () => {
    const { rows } = await sql`select 'why?' as why, ${"what?"} as what`.execute(database.sql);
    assert.deepEqual(rows, [{ why: "why?", what: "what?" }]);
  });

  it("are undone when the work fails, whether they were sent or put off", async () => {
    const work = database.transaction(async (tx) => {
      await tx.sql.insertInto("pot").values(pot(newId())).execute();
      await tx.later(tx.sql.insertInto("pot").values(pot(newId())));
      throw new Error("no");
    });
    await assert.rejects(work, /^Error: no$/);
    assert.deepEqual(await ids(), []);
  });
});
