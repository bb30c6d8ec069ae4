import assert from "node:assert/strict";
import { Code } from "@connectrpc/connect";
import type { ManualClock } from "#runtime/clock.ts";
import type { Database } from "#runtime/database/database.ts";
import { listDeadLetters, retryDeadLetter } from "#runtime/database/dead-letters.ts";
import { fail, reason } from "#runtime/errors.ts";
import { type JobHandler, type Jobs, type JobsOptions, startJobs } from "#runtime/jobs/jobs.ts";
import { memoryDatabase } from "../support/database.ts";

const BROKEN = reason("BROKEN", Code.Internal, "The test's job is broken.");

describe("jobs", () => {
  let database: Database;
  let clock: ManualClock;
  const runners: Jobs[] = [];

  beforeEach(async () => {
    ({ database, clock } = await memoryDatabase([], []));
  });
  afterEach(async () => {
    await Promise.all(runners.splice(0).map((runner) => runner.stop(0)));
    await database.close();
  });

  function start(run: JobHandler["run"], options: Partial<JobHandler> & Partial<Omit<JobsOptions, "database">> = {}): Jobs {
    const { maxAttempts, timeoutMs, backoffMs, ...rest } = options;
    const handler: JobHandler = {
      kind: "test",
      ...(maxAttempts ? { maxAttempts } : {}),
      ...(timeoutMs ? { timeoutMs } : {}),
      backoffMs: backoffMs ?? (() => 1_000),
      run,
    };
    const jobs = startJobs({ database, handlers: [handler], pollMs: 60_000, ...rest });
    runners.push(jobs);
    return jobs;
  }
  const schedule = (key: string, inMs = 0) =>
    database.transaction(async (tx) => tx.schedule({ kind: "test", key, dueTime: tx.now + inMs }));
  const rows = () => database.sql.selectFrom("job").selectAll().where("kind", "=", "test").execute();

  it("run once, when they are due and not before", async () => {
    const ran: string[] = [];
    const jobs = start(async ({ key }) => void ran.push(key));
    await schedule("now");
    await schedule("later", 1_000);
    await jobs.runDue();
    assert.deepEqual(ran, ["now"]);
    clock.advance(1_000);
    await jobs.runDue();
    await jobs.runDue();
    assert.deepEqual(ran, ["now", "later"]);
    assert.deepEqual(await rows(), []);
  });

  it("start by themselves right after the commit that scheduled them", async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const jobs = start(async () => resolve());
    await jobs.runDue();
    await schedule("now");
    await promise;
  });

  it("are not scheduled by a transaction that rolls back", async () => {
    const jobs = start(async () => assert.fail());
    await database
      .transaction(async (tx) => {
        tx.schedule({ kind: "test", key: "x", dueTime: tx.now });
        throw new Error("no");
      })
      .catch(() => {});
    await jobs.runDue();
    assert.deepEqual(await rows(), []);
  });

  it("move when scheduled again, and vanish when taken back", async () => {
    const ran: string[] = [];
    const jobs = start(async ({ key }) => void ran.push(key));
    await schedule("moved", 1_000);
    await schedule("moved", 5_000);
    await schedule("gone", 1_000);
    await database.transaction(async (tx) => tx.unschedule({ kind: "test", key: "gone" }));
    clock.advance(2_000);
    await jobs.runDue();
    assert.deepEqual(ran, []);
    clock.advance(3_000);
    await jobs.runDue();
    assert.deepEqual(ran, ["moved"]);
  });

  it("may plan their own next run, with fresh attempts", async () => {
    const ran: number[] = [];
    const jobs = start(async ({ key, attempt }) => {
      ran.push(attempt);
      if (ran.length < 3) {
        await schedule(key, 1_000);
      }
    });
    await schedule("chain");
    for (let step = 0; step < 4; step++) {
      await jobs.runDue();
      clock.advance(1_000);
    }
    assert.deepEqual(ran, [1, 1, 1]);
    assert.deepEqual(await rows(), []);
  });

  it("stay away when taken back while they run", async () => {
    let runs = 0;
    const jobs = start(async ({ key }) => {
      runs++;
      await database.transaction(async (tx) => tx.unschedule({ kind: "test", key }));
      throw new Error("fails after that");
    });
    await schedule("x");
    await jobs.runDue();
    clock.advance(60_000);
    await jobs.runDue();
    assert.equal(runs, 1);
    assert.deepEqual(await rows(), []);
  });

  it("are tried again after a pause, and become dead letters after their attempts", async () => {
    const attempts: number[] = [];
    const jobs = start(
      async ({ attempt }) => {
        attempts.push(attempt);
        fail(BROKEN);
      },
      { maxAttempts: 3 },
    );
    await schedule("x");
    await jobs.runDue();
    assert.deepEqual(attempts, [1]);
    for (let pause = 0; pause < 5; pause++) {
      clock.advance(1_000);
      await jobs.runDue();
    }
    assert.deepEqual(attempts, [1, 2, 3]);
    assert.deepEqual(await rows(), []);
    const [letter] = await listDeadLetters(database.sql, { limit: 10 });
    assert.ok(letter);
    assert.equal(letter.kind, "job");
    assert.equal(letter.handler, "test");
    assert.equal(letter.subject, "x");
    assert.equal(letter.attempts, 3);
    assert.equal(letter.reason, "BROKEN");
    assert.equal(letter.lastAttemptTime - letter.firstAttemptTime, 2_000);
    await database.transaction((tx) => retryDeadLetter(tx, letter.deadLetterId, "operator"));
    await jobs.runDue();
    assert.deepEqual(attempts, [1, 2, 3, 1]);
  });

  it("are never run by two runners at once", async () => {
    let now = 0;
    let most = 0;
    const ran: string[] = [];
    const run = async ({ key }: { key: string }) => {
      most = Math.max(most, ++now);
      await new Promise((resolve) => setTimeout(resolve, 1));
      now--;
      ran.push(key);
    };
    const first = start(run, { concurrency: 2 });
    const second = start(run, { concurrency: 2 });
    const keys = Array.from({ length: 40 }, (_, index) => `job${index}`);
    await database.transaction(async (tx) => {
      for (const key of keys) {
        tx.schedule({ kind: "test", key, dueTime: tx.now });
      }
    });
    await Promise.all([first.runDue(), second.runDue()]);
    assert.deepEqual(ran.toSorted(), keys.toSorted());
    assert.ok(most <= 4);
  });

  it("are taken over when the runner that had them is gone", async () => {
    const { promise, resolve: release } = Promise.withResolvers<void>();
    let began = 0;
    const dead = start(
      () => {
        began++;
        return promise;
      },
      { leaseMs: 30_000 },
    );
    await schedule("x");
    while (began === 0) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    const attempts: number[] = [];
    const next = start(async ({ attempt }) => void attempts.push(attempt));
    await next.runDue();
    assert.deepEqual(attempts, []);
    clock.advance(30_001);
    await next.runDue();
    assert.deepEqual(attempts, [2]);
    // The first one comes back: its end changes nothing.
    await schedule("x", 5_000);
    release();
    await dead.stop(0);
    assert.equal((await rows()).length, 1);
  });

  it("that still run here although their lease is over keep no other job waiting, and nobody busy", async () => {
    const { promise, resolve: release } = Promise.withResolvers<void>();
    const ran: string[] = [];
    const jobs = start(
      async ({ key }) => {
        ran.push(key);
        await (key === "slept" ? promise : undefined);
      },
      { concurrency: 2, leaseMs: 600_000 },
    );
    await schedule("slept");
    while (ran.length === 0) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    clock.advance(600_001);
    await schedule("other");
    while (ran.length === 1) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    let looks = 0;
    const now = clock.now;
    clock.now = () => {
      looks++;
      return now();
    };
    await new Promise((resolve) => setTimeout(resolve, 50));
    clock.now = now;
    assert.ok(looks < 10, `${looks} looks`);
    release();
    await jobs.runDue();
    assert.deepEqual(ran, ["slept", "other"]);
  });

  it("that ignore the end of their time are taken over by another process", async () => {
    const { promise, resolve: release } = Promise.withResolvers<void>();
    let began = 0;
    const deaf = start(() => promise.then(() => void began++), { timeoutMs: 1, leaseMs: 30 });
    await schedule("x");
    while ((await rows())[0]?.owner === null) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    const attempts: number[] = [];
    const next = start(async ({ attempt }) => void attempts.push(attempt));
    for (let look = 0; look < 20 && attempts.length === 0; look++) {
      clock.advance(10);
      await new Promise((resolve) => setTimeout(resolve, 5));
      await next.runDue();
    }
    assert.deepEqual(attempts, [2]);
    release();
    await deaf.runDue();
    assert.equal(began, 1);
  });

  it("renew their lease while they run", async () => {
    const { promise, resolve: release } = Promise.withResolvers<void>();
    const first = start(() => promise, { leaseMs: 30 });
    await schedule("x");
    let last = 0;
    for (let renewals = 0; renewals < 3; ) {
      const [row] = await rows();
      if (row?.lease_expire_time && row.lease_expire_time !== last) {
        last = row.lease_expire_time;
        renewals++;
        clock.advance(20);
      }
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    release();
    await first.runDue();
    assert.deepEqual(await rows(), []);
  });

  it("do not crash the next process for ever: a job that kills its process becomes a dead letter", async () => {
    await schedule("x");
    await database.transaction((tx) =>
      tx.sql.updateTable("job").set({ attempt: 3, owner: "gone", lease_expire_time: tx.now }).where("kind", "=", "test").execute(),
    );
    let runs = 0;
    const jobs = start(async () => void runs++, { maxAttempts: 3 });
    await jobs.runDue();
    assert.equal(runs, 0);
    assert.equal((await listDeadLetters(database.sql, { limit: 10 }))[0]?.subject, "x");
  });

  it("that recur run at once, then after each interval, whether they fail or not", async () => {
    let runs = 0;
    const recurring = [
      {
        kind: "sweep",
        intervalMs: 1_000,
        run: async () => {
          if (++runs === 1) {
            throw new Error("the first fails");
          }
        },
      },
    ];
    const jobs = start(async () => {}, { recurring });
    await jobs.runDue();
    await jobs.runDue();
    assert.equal(runs, 1);
    clock.advance(1_000);
    await jobs.runDue();
    assert.equal(runs, 2);
    assert.deepEqual(await listDeadLetters(database.sql, { limit: 10 }), []);
  });

  it("under way are finished by a stop, and told after its grace", async () => {
    let aborted = false;
    let began = false;
    const jobs = start(
      ({ signal }) =>
        new Promise<void>((resolve) => {
          began = true;
          signal.addEventListener("abort", () => {
            aborted = true;
            resolve();
          });
        }),
    );
    await schedule("x");
    while (!began) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    await jobs.stop(5);
    assert.ok(aborted);
  });

  it("keep the runtime's own tables small", async () => {
    const jobs = start(async () => {});
    // Its first run is over, and plans the next by the time that has come then.
    await jobs.runDue();
    await database.transaction((tx) =>
      tx.sql
        .insertInto("outbox")
        .values(
          ["a", "b"].map((id, index) => ({
            event_id: id,
            partition_no: 0,
            aggregate_type: "t",
            aggregate_id: id,
            sequence: 1,
            type: "t",
            event: new Uint8Array(),
            event_time: tx.now,
            publish_time: index === 0 ? tx.now : null,
          })),
        )
        .execute(),
    );
    clock.advance(7 * 24 * 3600 * 1000 + 1);
    await jobs.runDue();
    const left = await database.sql.selectFrom("outbox").select("event_id").execute();
    assert.deepEqual(left, [{ event_id: "b" }]);
  });

  it("leave nothing behind when they were taken back from a process that then died", async () => {
    await schedule("x");
    await database.transaction(async (tx) => {
      await tx.sql
        .updateTable("job")
        .set({ attempt: 1, owner: "gone", lease_expire_time: tx.now + 30_000 })
        .where("kind", "=", "test")
        .execute();
      tx.unschedule({ kind: "test", key: "x" });
    });
    assert.equal((await rows())[0]?.due_time, null);
    clock.advance(30_000);
    await start(async () => assert.fail()).runDue();
    assert.deepEqual(await rows(), []);
  });
});
