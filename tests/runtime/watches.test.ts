import assert from "node:assert/strict";
import { defineEntity, p } from "@mikro-orm/core";
import type { ManualClock } from "#runtime/clock.ts";
import { listDeadLetters } from "#runtime/database/dead-letters.ts";
import { dropEmpty, type Migration } from "#runtime/database/migrations.ts";
import { type Jobs, startJobs } from "#runtime/jobs/jobs.ts";
import { memoryDatabase } from "../support/database.ts";

const Egg = defineEntity({
  name: "Egg",
  tableName: "egg",
  properties: { eggId: p.string().length(36).primary(), watchTime: p.bigint("number").nullable() },
});

const migrations: readonly Migration[] = [
  {
    name: "0001-egg",
    async up(sql) {
      await sql.schema
        .createTable("egg")
        .addColumn("egg_id", "varchar(36)", (c) => c.primaryKey())
        .addColumn("watch_time", "bigint")
        .execute();
      await sql.schema.createIndex("egg_watch").on("egg").column("watch_time").execute();
    },
    down: (sql) => dropEmpty(sql, ["egg"]),
  },
];

const open = () => memoryDatabase([Egg], migrations);

describe("rows that are watched", () => {
  let database: Awaited<ReturnType<typeof open>>["database"];
  let clock: ManualClock;
  const runners: Jobs[] = [];

  beforeEach(async () => {
    ({ database, clock } = await open());
  });
  afterEach(async () => {
    await Promise.all(runners.splice(0).map((runner) => runner.stop(0)));
    await database.close();
  });

  function start(run: (key: string) => Promise<void>, pollMs = 60_000): Jobs {
    const watches = { table: "egg", key: "egg_id", time: "watch_time" };
    const handler = { kind: "hatch", watches, maxAttempts: 2, backoffMs: () => 1_000, run: ({ key }: { key: string }) => run(key) };
    const jobs = startJobs({ database, handlers: [handler], pollMs });
    runners.push(jobs);
    return jobs;
  }
  const lay = (eggs: Record<string, number | null>) =>
    database.sql
      .insertInto("egg")
      .values(Object.entries(eggs).map(([egg_id, inMs]) => ({ egg_id, watch_time: inMs === null ? null : clock.now() + inMs })))
      .execute();
  const watched = async () =>
    (await database.sql.selectFrom("egg").select("egg_id").where("watch_time", "is not", null).execute()).length;

  it("become jobs when their time has come and not before, each once", async () => {
    const ran: string[] = [];
    const jobs = start(async (key) => void ran.push(key));
    await lay({ now: 0, later: 1_000, never: null });
    await jobs.runDue();
    assert.deepEqual(ran, ["now"]);
    clock.advance(1_000);
    await jobs.runDue();
    await jobs.runDue();
    assert.deepEqual(ran, ["now", "later"]);
    assert.equal(await watched(), 0);
  });

  it("are no jobs any more when their time was taken away or moved", async () => {
    const ran: string[] = [];
    const jobs = start(async (key) => void ran.push(key));
    await lay({ gone: 500, moved: 500 });
    await database.sql.updateTable("egg").set({ watch_time: null }).where("egg_id", "=", "gone").execute();
    await database.sql
      .updateTable("egg")
      .set({ watch_time: clock.now() + 5_000 })
      .where("egg_id", "=", "moved")
      .execute();
    clock.advance(1_000);
    await jobs.runDue();
    assert.deepEqual(ran, []);
    assert.equal(await watched(), 1);
  });

  it("run once among many runners, however many are due", async () => {
    const ran: string[] = [];
    const jobs = Array.from({ length: 3 }, () => start(async (key) => void ran.push(key)));
    await lay(Object.fromEntries(Array.from({ length: 100 }, (_, index) => [`egg-${String(index).padStart(3, "0")}`, index])));
    clock.advance(1_000);
    await Promise.all(jobs.map((each) => each.runDue()));
    await jobs[0]?.runDue();
    assert.equal(new Set(ran).size, 100);
    assert.equal(ran.length, 100);
  });

  it("are found by a runner that nothing wakes, at their time", async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    await lay({ soon: 0 });
    start(async () => resolve(), 50);
    await promise;
  });

  it("that fail too often are one dead letter, and not watched again", async () => {
    const jobs = start(() => Promise.reject(new Error("broken")));
    await lay({ bad: 0 });
    for (let i = 0; i < 5; i++) {
      await jobs.runDue();
      clock.advance(60_000);
    }
    const letters = await listDeadLetters(database.sql, { limit: 10 });
    assert.deepEqual(
      letters.map(({ handler, subject, attempts }) => [handler, subject, attempts]),
      [["hatch", "bad", 2]],
    );
  });
});
