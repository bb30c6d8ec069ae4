import assert from "node:assert/strict";
import { AsyncLocalStorage } from "node:async_hooks";
import { spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { LockMode } from "@mikro-orm/core";
import { sql } from "kysely";
import { systemClock } from "#runtime/clock.ts";
import { type Database, openDatabase, type TablesOf } from "#runtime/database/database.ts";
import { isUniqueViolation } from "#runtime/database/errors.ts";
import type { Transaction } from "#runtime/database/transaction.ts";
import { reasonOf } from "#runtime/errors.ts";
import { databasePlace, memoryDatabase, quietLog, testStore } from "../support/database.ts";
import { Pot, pot, potMigrations } from "./pots.ts";

type PotDatabase = Database<TablesOf<readonly [typeof Pot]>>;

describe("the database", () => {
  let database: PotDatabase;

  beforeEach(async () => {
    ({ database } = await memoryDatabase([Pot], potMigrations));
  });
  afterEach(() => database.close());

  const count = async (db: PotDatabase = database) => (await db.sql.selectFrom("pot").select("pot_id").execute()).length;

  it("keeps what entities and Kysely write in one transaction", async () => {
    await database.transaction(async (tx) => {
      tx.em.create(Pot, { potId: "a", title: "it's '?' returning \\ \0 ü 水", balanceMinor: 5n, createTime: 7, note: null });
      await tx.em.flush();
      await tx.sql.updateTable("pot").set({ balance_minor: 6n }).where("pot_id", "=", "a").execute();
    });
    const found = await database.read((em) => em.findOneOrFail(Pot, "a"));
    assert.equal(found.balanceMinor, 6n);
    assert.equal(found.createTime, 7);
    assert.equal(found.title, "it's '?' returning \\ \0 ü 水");
  });

  it("reads integers beyond 2^53 exactly, and smaller ones as the entity says", async () => {
    const huge = 2n ** 62n + 1n;
    await database.transaction((tx) =>
      tx.sql
        .insertInto("pot")
        .values([pot("a", huge), pot("b", 3n)])
        .execute(),
    );
    const rows = await database.sql.selectFrom("pot").select(["balance_minor", "create_time"]).orderBy("pot_id").execute();
    assert.deepEqual(rows, [
      { balance_minor: huge, create_time: 1_700_000_000_000 },
      { balance_minor: 3n, create_time: 1_700_000_000_000 },
    ]);
    assert.equal((await database.read((em) => em.findOneOrFail(Pot, "a"))).balanceMinor, huge);
  });

  it("adds exactly to integers beyond 2^53", async () => {
    await database.transaction(async (tx) => {
      await tx.sql
        .insertInto("pot")
        .values(pot("a", 2n ** 60n))
        .execute();
      await tx.sql
        .updateTable("pot")
        .set((eb) => ({ balance_minor: eb("balance_minor", "+", eb.val(1 as unknown as bigint)) }))
        .execute();
    });
    assert.equal((await database.read((em) => em.findOneOrFail(Pot, "a"))).balanceMinor, 2n ** 60n + 1n);
  });

  // A server decides this for everybody: only the embedded tables are told for each transaction.
  if (testStore === "sqlite") {
    it("waits for the disk when a statement stands alone, whatever the transaction before it did", async () => {
      await database.transaction(async () => {}, { durable: false });
      await database.sql.insertInto("pot").values(pot("a")).execute();
      const { rows } = await sql<{ synchronous: number }>`pragma synchronous`.execute(database.sql);
      assert.deepEqual(rows, [{ synchronous: 2 }]);
    });
  }

  it("leaves nothing behind when the work fails", async () => {
    const error = new Error("no");
    await assert.rejects(
      database.transaction(async (tx) => {
        await tx.sql.insertInto("pot").values(pot("a")).execute();
        throw error;
      }),
      error,
    );
    assert.equal(await count(), 0);
  });

  it("does not show a reader what is not committed, nor make it wait", async () => {
    const elsewhere = AsyncLocalStorage.snapshot();
    await database.transaction(async (tx) => {
      await tx.sql.insertInto("pot").values(pot("a")).execute();
      assert.equal(await elsewhere(() => count()), 0);
    });
    assert.equal(await count(), 1);
  });

  it("refuses a second transaction or read inside a transaction", async () => {
    const refused = /inside an open transaction of "test"/;
    await database.transaction(async () => {
      await assert.rejects(
        database.transaction(async () => {}),
        refused,
      );
      await assert.rejects(
        database.read(async () => {}),
        refused,
      );
    });
  });

  it("refuses a statement beside the open transaction instead of waiting for ever or reading what was before", async () => {
    await database.transaction(async () => {
      await assert.rejects(database.sql.insertInto("pot").values(pot("a")).execute(), /beside the open transaction/);
      await assert.rejects(count(), /beside the open transaction/);
    });
  });

  it("refuses a transaction of another service's database inside a transaction", async () => {
    const other = await memoryDatabase([], [], { service: "other" });
    await database.transaction(async () => {
      await assert.rejects(
        other.database.transaction(async () => {}),
        /no network call inside a database transaction/,
      );
    });
    await other.database.close();
  });

  it("lets work that a transaction left behind use the database afterwards", async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    let later: Promise<unknown> | undefined;
    await database.transaction(async () => {
      later = promise.then(() => database.transaction((tx) => tx.sql.insertInto("pot").values(pot("a")).execute()));
    });
    resolve();
    await later;
    assert.equal(await count(), 1);
  });

  it("runs transactions that lock what they change one after another, none lost", async () => {
    await database.transaction((tx) => tx.sql.insertInto("pot").values(pot("a")).execute());
    await Promise.all(
      Array.from({ length: 50 }, () =>
        database.transaction(async (tx) => {
          const row = await tx.em.findOneOrFail(Pot, "a", { lockMode: LockMode.PESSIMISTIC_WRITE });
          await sleep(0);
          row.balanceMinor += 1n;
        }),
      ),
    );
    assert.equal((await database.read((em) => em.findOneOrFail(Pot, "a"))).balanceMinor, 50n);
  });

  it("starts nothing after the deadline, and commits nothing after it", async () => {
    let began = false;
    const late = database.transaction(
      async () => {
        began = true;
      },
      { deadline: Date.now() - 1 },
    );
    await assert.rejects(late, (error) => reasonOf(error) === "DEADLINE_EXCEEDED");
    assert.equal(began, false);
    const slow = database.transaction(
      async (tx) => {
        await tx.sql.insertInto("pot").values(pot("a")).execute();
        await sleep(30);
      },
      { deadline: Date.now() + 10 },
    );
    await assert.rejects(slow, (error) => reasonOf(error) === "DEADLINE_EXCEEDED");
    assert.equal(await count(), 0);
  });

  it("gives up waiting for another transaction when the deadline passes or the caller goes away", async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const insert = (tx: Transaction<TablesOf<readonly [typeof Pot]>>) => tx.sql.insertInto("pot").values(pot("a")).execute();
    const inserted = Promise.withResolvers<void>();
    const first = database.transaction(async (tx) => {
      await insert(tx);
      inserted.resolve();
      await promise;
    });
    await inserted.promise;
    const second = database.transaction(insert, { deadline: Date.now() + 20 });
    await assert.rejects(second, (error) => reasonOf(error) === "DEADLINE_EXCEEDED");
    const gone = new AbortController();
    const third = database.transaction(insert, { signal: gone.signal });
    gone.abort();
    await assert.rejects(third, (error) => reasonOf(error) === "DEADLINE_EXCEEDED");
    resolve();
    await first;
    await database.transaction(async () => {});
  });

  it("names a duplicate key alike from entities and from Kysely", async () => {
    const insert = () => database.transaction((tx) => tx.sql.insertInto("pot").values(pot("a")).execute());
    await insert();
    await assert.rejects(insert(), isUniqueViolation);
    const create = () =>
      database.transaction(async (tx) => {
        tx.em.create(Pot, { potId: "a", title: "", balanceMinor: 0n, createTime: 1, note: null });
      });
    await assert.rejects(create(), isUniqueViolation);
  });

  it("runs work after a commit, and not after a rollback", async () => {
    const ran: string[] = [];
    await database.transaction(async (tx) => tx.afterCommit(() => ran.push("committed")));
    await database
      .transaction(async (tx) => {
        tx.afterCommit(() => ran.push("rolled back"));
        throw new Error("no");
      })
      .catch(() => {});
    assert.deepEqual(ran, ["committed"]);
  });
});

describe("a database that several programs open", () => {
  let place: Awaited<ReturnType<typeof databasePlace>>;
  before(async () => {
    place = await databasePlace("pots");
  });
  after(() => place.remove());

  const open = (migrations = potMigrations, url = place.url) =>
    openDatabase({ service: "pots", url, entities: [Pot], migrations, clock: systemClock, log: quietLog });

  it("is migrated by one of them when all start at once", async () => {
    const own = await databasePlace("pots");
    const all = await Promise.all(Array.from({ length: 6 }, () => open(potMigrations, own.url)));
    await Promise.all(all.map((database) => database.close()));
    await own.remove();
  });

  it("is shared by them, who wait for one another without losing a change", async () => {
    const [one, two] = await Promise.all([open(), open()]);
    await one.transaction((tx) => tx.sql.insertInto("pot").values(pot("a")).execute());
    const add = (database: typeof one) =>
      database.transaction(async (tx) => {
        await sleep(1);
        await tx.sql
          .updateTable("pot")
          .set((eb) => ({ balance_minor: eb("balance_minor", "+", 1n) }))
          .execute();
      });
    await Promise.all(Array.from({ length: 20 }, (_, index) => add(index % 2 === 0 ? one : two)));
    const { balance_minor: balance } = await two.sql.selectFrom("pot").select("balance_minor").executeTakeFirstOrThrow();
    assert.equal(balance, 20n);
    await Promise.all([one.close(), two.close()]);
  });

  it("is migrated once, and taken as it is by a program older than it", async () => {
    let runs = 0;
    const next = {
      name: "0002-second",
      up: async () => {
        runs++;
      },
      down: "it did nothing.",
    };
    await (await open([...potMigrations, next])).close();
    await (await open([...potMigrations, next])).close();
    await (await open(potMigrations)).close();
    assert.equal(runs, 1);
  });

  it("runs a migration again that failed halfway", async () => {
    const own = await databasePlace("pots");
    const create = (sql: Parameters<(typeof potMigrations)[0]["up"]>[0]) =>
      sql.schema.createTable("half").addColumn("id", "integer").execute();
    const broken = {
      name: "0002-half",
      async up(sql: Parameters<typeof create>[0]) {
        await create(sql);
        throw new Error("broken");
      },
      down: "it is broken.",
    };
    await assert.rejects(open([...potMigrations, broken], own.url), /broken/);
    const mended = await open([...potMigrations, { name: "0002-half", up: create, down: "it is not needed." }], own.url);
    assert.deepEqual(await sql`select id from half`.execute(mended.sql).then(({ rows }) => rows), []);
    await mended.close();
    await own.remove();
  });

  it("has every change that was acknowledged before the process was killed, and its event", async () => {
    const own = await databasePlace("pots");
    const child = spawn(process.execPath, [join(import.meta.dirname, "committer.ts"), own.url], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const acknowledged: string[] = [];
    for await (const line of createInterface({ input: child.stdout })) {
      acknowledged.push(line);
      if (acknowledged.length === 30) {
        child.kill("SIGKILL");
      }
    }
    assert.ok(acknowledged.length >= 30);
    const database = await open(potMigrations, own.url);
    const pots = new Set((await database.sql.selectFrom("pot").select("pot_id").execute()).map((row) => row.pot_id));
    const events = new Set(
      (await database.sql.selectFrom("outbox").select("aggregate_id").execute()).map((row) => row.aggregate_id),
    );
    assert.deepEqual(
      acknowledged.filter((id) => !pots.has(id) || !events.has(id)),
      [],
    );
    assert.deepEqual(events, pots);
    await database.close();
    await own.remove();
  });
});
