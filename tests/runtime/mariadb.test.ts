import assert from "node:assert/strict";
import { sql } from "kysely";
import { systemClock } from "#runtime/clock.ts";
import { type Database, openDatabase, type TablesOf } from "#runtime/database/database.ts";
import type { Transaction } from "#runtime/database/transaction.ts";
import { reasonOf } from "#runtime/errors.ts";
import { quietLog } from "../support/database.ts";
import { emptyDatabase } from "../support/mariadb.ts";
import { Pot, pot, potMigrations } from "./pots.ts";

describe("a database on MariaDB", () => {
  let place: Awaited<ReturnType<typeof emptyDatabase>>;
  let database: Database<TablesOf<readonly [typeof Pot]>>;

  const open = (url: string) =>
    openDatabase({ service: "pots", url, entities: [Pot], migrations: potMigrations, clock: systemClock, log: quietLog });

  before(async () => {
    place = await emptyDatabase("pots");
    database = await open(`${place.url}?pool=2`);
  });
  after(async () => {
    await database.close();
    await place.remove();
  });
  beforeEach(async () => {
    await database.transaction((tx) => tx.sql.deleteFrom("pot").execute());
  });

  it("works at READ COMMITTED, strictly, in UTC", async () => {
    const { rows } = await sql<{ isolation: string; mode: string; zone: string }>`
      select @@tx_isolation as isolation, @@sql_mode as mode, @@time_zone as zone`.execute(database.sql);
    assert.equal(rows[0]?.isolation, "READ-COMMITTED");
    assert.match(rows[0]?.mode ?? "", /STRICT_TRANS_TABLES/);
    assert.equal(rows[0]?.zone, "+00:00");
  });

  it("compares keys bytewise, spaces at the end included", async () => {
    const keys = ["a", "A", "a ", "ä", "Ａ"];
    await database.transaction((tx) =>
      tx.sql
        .insertInto("pot")
        .values(keys.map((key) => pot(key)))
        .execute(),
    );
    const found = await database.sql.selectFrom("pot").select("pot_id").where("pot_id", "=", "a").execute();
    assert.deepEqual(found, [{ pot_id: "a" }]);
    const all = await database.sql.selectFrom("pot").select("pot_id").orderBy("pot_id").execute();
    assert.deepEqual(
      all.map((row) => row.pot_id),
      [...keys].sort(),
    );
  });

  it("gives sums of money as exact integers", async () => {
    const large = 9_007_199_254_740_993n;
    await database.transaction((tx) =>
      tx.sql
        .insertInto("pot")
        .values([pot("a", large), pot("b", large)])
        .execute(),
    );
    const row = await database.sql
      .selectFrom("pot")
      .select((eb) => [eb.fn.sum<bigint>("balance_minor").as("total_minor"), eb.fn.countAll<number>().as("pots")])
      .executeTakeFirstOrThrow();
    assert.deepEqual(row, { total_minor: 2n * large, pots: 2 });
  });

  it("tries the loser of a deadlock again", async () => {
    await database.transaction((tx) =>
      tx.sql
        .insertInto("pot")
        .values([pot("a"), pot("b")])
        .execute(),
    );
    let attempts = 0;
    const both = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const add = (index: number, first: string, second: string) =>
      database.transaction(async (tx) => {
        attempts++;
        for (const potId of [first, second]) {
          await tx.sql
            .updateTable("pot")
            .set((eb) => ({ balance_minor: eb("balance_minor", "+", 1n) }))
            .where("pot_id", "=", potId)
            .execute();
          both[index]?.resolve();
          await Promise.all(both.map(({ promise }) => promise));
        }
      });
    await Promise.all([add(0, "a", "b"), add(1, "b", "a")]);
    const rows = await database.sql.selectFrom("pot").select("balance_minor").execute();
    assert.deepEqual(rows, [{ balance_minor: 2n }, { balance_minor: 2n }]);
    assert.ok(attempts > 2);
  });

  it("tries again after a lock time-out, within the deadline, and gives up at the deadline", async () => {
    await database.transaction((tx) => tx.sql.insertInto("pot").values(pot("a")).execute());
    const held = Promise.withResolvers<void>();
    const release = Promise.withResolvers<void>();
    const raise = (tx: Transaction<TablesOf<readonly [typeof Pot]>>) =>
      tx.sql
        .updateTable("pot")
        .set((eb) => ({ balance_minor: eb("balance_minor", "+", 1n) }))
        .execute();
    const holder = database.transaction(async (tx) => {
      await raise(tx);
      held.resolve();
      await release.promise;
    });
    await held.promise;
    const late = database.transaction(raise, { deadline: Date.now() + 300 });
    await assert.rejects(late, (error) => reasonOf(error) === "DEADLINE_EXCEEDED");
    let attempts = 0;
    const patient = database.transaction(async (tx) => {
      // The server's own limit is 3 s for everybody.
      await sql`set innodb_lock_wait_timeout = 1`.execute(tx.sql);
      if (++attempts === 2) release.resolve();
      await raise(tx);
    });
    await Promise.all([patient, holder]);
    assert.ok(attempts >= 2);
    assert.deepEqual(await database.sql.selectFrom("pot").select("balance_minor").execute(), [{ balance_minor: 2n }]);
  });

  it("waits for a connection no longer than the deadline", async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const holders = [1, 2].map(() => database.transaction(() => promise));
    const third = database.transaction(async () => {}, { deadline: Date.now() + 30 });
    await assert.rejects(third, (error) => reasonOf(error) === "DEADLINE_EXCEEDED");
    resolve();
    await Promise.all(holders);
    await database.transaction(async () => {});
  });

  it("answers UNAVAILABLE when the connection breaks, and goes on with another", async () => {
    const broken = database.transaction(async (tx) => {
      const { rows } = await sql<{ id: number }>`select connection_id() as id`.execute(tx.sql);
      await sql`kill ${sql.raw(String(rows[0]?.id))}`.execute(tx.sql).catch(() => {});
      await tx.sql.insertInto("pot").values(pot("a")).execute();
    });
    await assert.rejects(broken, (error) => reasonOf(error) === "UNAVAILABLE");
    assert.deepEqual(await database.sql.selectFrom("pot").select("pot_id").execute(), []);
    await database.transaction(async () => {});
  });

  it("begins a transaction even if its first statement could not be sent", async () => {
    const undone = database.transaction(async (tx) => {
      await assert.rejects(tx.sql.updateTable("pot").set({ create_time: Number.NaN }).execute(), /NaN is no value/);
      await tx.sql.insertInto("pot").values(pot("a")).execute();
      throw new Error("undone");
    });
    await assert.rejects(undone, /undone/);
    assert.deepEqual(await database.sql.selectFrom("pot").select("pot_id").execute(), []);
  });

  it("names what is wrong with its URL", async () => {
    const wrong = (change: (url: URL) => void) => {
      const url = new URL(place.url);
      change(url);
      return open(url.href);
    };
    const password = (url: URL) => {
      url.password = "wrong";
    };
    await assert.rejects(wrong(password), /refuses the user or the password/);
    await assert.rejects(
      wrong((url) => url.searchParams.set("pool", "0")),
      /pool=<1 to 200>/,
    );
    await assert.rejects(open(place.url.replace(/^mariadb:/, "mysql:")), /begins with mariadb:/);
    await assert.rejects(open("postgres://x"), /is not understood/);
  });
});
