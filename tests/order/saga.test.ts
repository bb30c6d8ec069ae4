import assert from "node:assert/strict";
import { create, toBinary } from "@bufbuild/protobuf";
import { StringValueSchema } from "@bufbuild/protobuf/wkt";
import { listDeadLetters, retryDeadLetter } from "#runtime/database/dead-letters.ts";
import { reasonOf } from "#runtime/errors.ts";
import { startJobs } from "#runtime/jobs/jobs.ts";
import { createDriving, SAGA_ATTEMPTS } from "../../services/order/driving.ts";
import type { OrderTransaction } from "../../services/order/entities.ts";
import { acquireLease, fence, type Held, held } from "../../services/order/lease.ts";
import { changeState, readOrder } from "../../services/order/orders.ts";
import { quietLog } from "../support/database.ts";
import { openWorkshop, REFUSED, stepNames, stepOf, type Workshop } from "./workshop.ts";

const allDone = { one: "done", two: "done", three: "done" };
const allTakenBack = { one: "taken back", two: "taken back", three: "taken back" };

describe("A saga", () => {
  let shop: Workshop;
  const things = () => Object.fromEntries(shop.world.things);
  const open = async (over?: Parameters<typeof openWorkshop>[0]) => {
    shop = await openWorkshop(over);
    return shop;
  };
  afterEach(() => shop.database.close());

  it("takes its steps in order, each once, under the same request_id in every attempt", async () => {
    await open();
    shop.world.faults.set("two", { fault: "lost answer" });
    await shop.process().drive(shop.orderId, shop.lease);
    assert.equal(await shop.state(), "PLACING");
    await shop.recover();
    assert.equal(await shop.state(), "PAID");
    assert.deepEqual(await shop.steps(), allDone);
    const ids = ["one", "two", "two", "three"].map((name) => `${shop.orderId}/${name}`);
    assert.deepEqual(shop.world.calls, ids);
  });

  it("records a step before it is tried", async () => {
    await open();
    let seen: Record<string, string> = {};
    shop.world.before.set("two", async () => {
      seen = await shop.steps();
    });
    await shop.process().drive(shop.orderId, shop.lease);
    assert.deepEqual(seen, { one: "done", two: "started" });
  });

  it("answers a step that is done from its row when it runs again", async () => {
    const answers: string[] = [];
    await open({
      run: async (saga, world) => {
        for (const name of stepNames) {
          answers.push((await saga.step(name, stepOf(world, name))).value);
        }
      },
    });
    shop.world.faults.set("three", { fault: "lost request" });
    await shop.process().drive(shop.orderId, shop.lease);
    await shop.recover();
    assert.deepEqual(
      answers,
      ["one", "two", "one", "two", "three"].map((name) => `answer of ${name}`),
    );
    assert.equal(shop.world.calls.length, 3);
  });

  for (const when of ["before", "after"] as const) {
    for (let atWrite = 1; atWrite <= 4; atWrite++) {
      it(`ends when the process dies ${when} write ${atWrite}`, async () => {
        await open();
        await shop.process({ atWrite, when }).drive(shop.orderId, shop.lease);
        await shop.recover();
        assert.equal(await shop.state(), "PAID");
        assert.deepEqual(things(), allDone);
        assert.deepEqual(await shop.steps(), allDone);
      });
    }
  }

  for (const when of ["before", "after"] as const) {
    for (let atWrite = 1; atWrite <= 5; atWrite++) {
      it(`takes everything back when the last step is refused and the process dies ${when} write ${atWrite}`, async () => {
        await open();
        shop.world.faults.set("three", { fault: "refusal", always: true });
        await shop.process({ atWrite, when }).drive(shop.orderId, shop.lease);
        await shop.recover();
        assert.equal(await shop.state(), "CANCELLED");
        assert.equal(things().one, "taken back");
        assert.equal(things().two, "taken back");
        assert.notEqual(things().three, "done");
      });
    }
  }

  for (const step of stepNames) {
    for (const fault of ["lost request", "lost answer"] as const) {
      it(`ends when step ${step} has a ${fault} once`, async () => {
        await open();
        shop.world.faults.set(step, { fault });
        await shop.process().drive(shop.orderId, shop.lease);
        assert.deepEqual(shop.heard, ["delayed"]);
        assert.equal(await shop.recover(), 1);
        assert.equal(await shop.state(), "PAID");
        assert.deepEqual(things(), allDone);
      });

      it(`takes everything back when the undo of step ${step} has a ${fault} once`, async () => {
        await open({
          run: async (saga, world) => {
            for (const name of stepNames) {
              await saga.step(name, stepOf(world, name));
            }
            await saga.step("four", stepOf(world, "four"));
          },
        });
        shop.world.faults.set("four", { fault: "refusal" });
        shop.world.faults.set(`undo ${step}`, { fault });
        await shop.process().drive(shop.orderId, shop.lease);
        assert.equal(await shop.state(), "CANCELLING");
        await shop.recover();
        assert.equal(await shop.state(), "CANCELLED");
        assert.deepEqual(things(), allTakenBack);
        const undone = { one: "undone", two: "undone", three: "undone" };
        assert.deepEqual(await shop.steps(), { ...undone, four: "failed" });
      });
    }

    it(`undoes in reverse what was begun when step ${step} is refused`, async () => {
      await open();
      shop.world.faults.set(step, { fault: "refusal" });
      await shop.process().drive(shop.orderId, shop.lease);
      assert.equal(await shop.state(), "CANCELLED");
      assert.deepEqual(shop.heard, ["refused REFUSED"]);
      const begun = stepNames.slice(0, stepNames.indexOf(step));
      const undos = begun.toReversed().map((name) => `${shop.orderId}/${name}/undo`);
      assert.deepEqual(shop.world.calls.slice(begun.length + 1), undos);
    });
  }

  it("also undoes a step that was refused after an attempt whose outcome nobody knows", async () => {
    await open();
    shop.world.faults.set("two", { fault: "lost answer" });
    await shop.process().drive(shop.orderId, shop.lease);
    shop.world.faults.set("two", { fault: "refusal" });
    await shop.recover();
    assert.equal(await shop.state(), "CANCELLED");
    assert.deepEqual(things(), { one: "taken back", two: "taken back" });
  });

  it("does not begin a step that it is too late for", async () => {
    await open({
      run: async (saga, world) => {
        await saga.step("one", stepOf(world, "one"));
        await saga.step("two", { ...stepOf(world, "two"), unless: () => REFUSED });
      },
    });
    await shop.process().drive(shop.orderId, shop.lease);
    assert.equal(await shop.state(), "CANCELLED");
    assert.deepEqual(things(), { one: "taken back" });
    assert.deepEqual(await shop.steps(), { one: "undone" });
  });

  it("rests while it waits for an answer from outside, and goes on when it is asked again", async () => {
    let there = false;
    const hear = (what: string) => async (tx: OrderTransaction, held: Held) => {
      shop.heard.push(what);
      await tx.together(fence(tx, shop.orderId, held));
    };
    let attempts: number[] = [];
    await open({
      run: async (saga, world) => {
        await saga.step("one", stepOf(world, "one"));
        const answer = await saga.ask("outside", {
          result: StringValueSchema,
          run: async (call) => {
            attempts = [...attempts, call.attempt];
            return world.do(call, there ? "there" : "not there");
          },
          settled: (value) => value.value === "answer of there",
          wait: hear("waits"),
          stillWaiting: async () => {
            shop.heard.push("still waits");
            return "rest";
          },
          resume: hear("resumes"),
        });
        assert.equal(answer.value, "answer of there");
      },
    });
    await shop.process().drive(shop.orderId, shop.lease);
    await shop.process().drive(shop.orderId);
    there = true;
    await shop.process().drive(shop.orderId);
    assert.deepEqual(shop.heard, ["waits", "still waits", "resumes"]);
    assert.deepEqual(attempts, [1, 2]);
    assert.equal(await shop.state(), "PAID");
  });

  it("is driven by one of many runners at once", async () => {
    await open();
    await shop.database.transaction((tx) =>
      tx.together(fence(tx, shop.orderId, held(tx, shop.lease.owner, { release: true, others: false }))),
    );
    const drove = await Promise.all(Array.from({ length: 20 }, () => shop.process().drive(shop.orderId)));
    assert.equal(drove.filter(Boolean).length >= 1, true);
    assert.equal(shop.world.calls.length, 3);
    assert.equal(await shop.state(), "PAID");
  });

  it("is not taken from a runner whose lease holds", async () => {
    await open();
    assert.equal(await shop.process().drive(shop.orderId), false);
    assert.deepEqual(shop.world.calls, []);
    shop.clock.advance(31_000);
    assert.equal(await acquireLease(shop.database, shop.orderId, "another"), true);
  });

  it("writes nothing more once its lease is lost", async () => {
    await open();
    shop.world.before.set("two", async () => {
      shop.world.before.clear();
      shop.clock.advance(31_000);
      assert.equal(await acquireLease(shop.database, shop.orderId, "another"), true);
    });
    await shop.process().drive(shop.orderId, shop.lease);
    assert.equal(await shop.state(), "PLACING");
    assert.deepEqual(await shop.steps(), { one: "done", two: "started" });
    const order = await readOrder(shop.database.sql, shop.orderId);
    assert.equal(order?.lease_owner, "another");
    assert.deepEqual(shop.heard, []);
  });

  it("turns back in the middle when another command turned the order, and takes back what arrives late", async () => {
    await open();
    shop.world.before.set("two", async () => {
      shop.world.before.clear();
      // As CancelOrder does: another state, another owner; then the way back is gone while the first runner's call is still under way.
      await shop.database.transaction(async (tx) => {
        const order = await readOrder(tx.sql, shop.orderId);
        await (order && changeState(tx, order, "CANCELLING", { lease_owner: "turner", lease_expire_time: tx.now + 30_000 }));
      });
      await shop.process().drive(shop.orderId, { owner: "turner" });
      assert.equal(await shop.state(), "CANCELLED");
    });
    await shop.process().drive(shop.orderId, shop.lease);
    assert.deepEqual(things(), { one: "taken back", two: "taken back" });
    assert.equal(await shop.state(), "CANCELLED");
    assert.deepEqual(await shop.steps(), { one: "undone", two: "undone" });
  });

  it("becomes a dead letter that names the step when an undo never succeeds, and goes on when that is retried", async () => {
    await open();
    shop.world.faults.set("three", { fault: "refusal", always: true });
    shop.world.faults.set("undo one", { fault: "lost request", always: true });
    const sagas = shop.process();
    const driving = createDriving({ database: shop.database, sagas, log: quietLog });
    const jobs = startJobs({ database: shop.database, handlers: driving.jobs, pollMs: 60_000 });
    await driving.start(shop.orderId, shop.lease);
    for (let i = 0; i <= SAGA_ATTEMPTS; i++) {
      shop.clock.advance(61_000);
      await jobs.runDue();
    }
    assert.equal(await shop.state(), "CANCELLING");
    const [letter, ...others] = await listDeadLetters(shop.database.sql, { limit: 10 });
    assert.deepEqual(others, []);
    assert.equal(letter?.attempts, SAGA_ATTEMPTS);
    assert.equal(letter?.subject, shop.orderId);
    for (const fact of ["going back", '"one"', "UNAVAILABLE", "in a test"]) {
      assert.ok(letter?.message.includes(fact), letter?.message);
    }
    assert.equal(things().two, "taken back");

    shop.world.faults.delete("undo one");
    await shop.database.transaction((tx) => retryDeadLetter(tx, letter?.deadLetterId ?? "", "olga"));
    await jobs.runDue();
    assert.equal(await shop.state(), "CANCELLED");
    assert.equal(things().one, "taken back");
    await jobs.stop();
  });

  it("fails its job when not even the failure can be written, though it came further: the job is what goes on with it", async () => {
    await open();
    await shop.database.transaction((tx) =>
      tx.together(fence(tx, shop.orderId, held(tx, shop.lease.owner, { release: true, others: false }))),
    );
    shop.world.faults.set("two", { fault: "lost request" });
    // The writes: the lease, steps one and two, the failure.
    const sagas = shop.process({ atWrite: 4, when: "before", revives: true });
    await assert.rejects(sagas.drive(shop.orderId), (error) => reasonOf(error) === "UNAVAILABLE");
    await shop.recover();
    assert.equal(await shop.state(), "PAID");
  });

  for (let atWrite = 2; atWrite <= 5; atWrite++) {
    it(`goes on in its job when the job's write ${atWrite} was committed and nobody heard of it`, async () => {
      await open();
      await shop.database.transaction((tx) =>
        tx.together(fence(tx, shop.orderId, held(tx, shop.lease.owner, { release: true, others: false }))),
      );
      await shop.database.transaction(async (tx) => tx.schedule({ kind: "order.saga", key: shop.orderId, dueTime: tx.now }));
      const sagas = shop.process({ atWrite, when: "after", revives: true });
      const driving = createDriving({ database: shop.database, sagas, log: quietLog });
      const jobs = startJobs({ database: shop.database, handlers: driving.jobs });
      for (let tries = 0; tries < 5; tries++) {
        await jobs.runDue();
        shop.clock.advance(31_000);
      }
      await jobs.stop();
      assert.equal(await shop.state(), "PAID");
      assert.deepEqual(things(), allDone);
    });
  }

  it("takes back a step that is tried again after a refusal which could not be written", async () => {
    await open();
    shop.world.faults.set("one", { fault: "refusal" });
    await shop.process({ atWrite: 2, when: "before", revives: true }).drive(shop.orderId, shop.lease);
    assert.equal(await shop.state(), "PLACING");
    shop.world.faults.set("one", { fault: "lost answer" });
    await shop
      .process()
      .drive(shop.orderId)
      .catch(() => {});
    assert.deepEqual(things(), { one: "done" });
    await shop.database.transaction(async (tx) => {
      const order = await readOrder(tx.sql, shop.orderId);
      await (order && changeState(tx, order, "CANCELLING"));
    });
    await shop.recover();
    assert.deepEqual(things(), { one: "taken back" });
  });

  it("goes on where an older program left it, whose steps have rows of their own", async () => {
    for (const back of [false, true]) {
      await open();
      const record = { attempts: 1, reason: "", start_time: 1, update_time: 1 };
      const result = toBinary(StringValueSchema, create(StringValueSchema, { value: "answer of one" }));
      shop.world.things.set("one", "done");
      await shop.database.transaction(async (tx) => {
        const rows = [
          { ...record, order_id: shop.orderId, step: "one", state: "done" as const, result },
          { ...record, order_id: shop.orderId, step: "two", state: "started" as const, result: null },
        ];
        await tx.later(tx.sql.insertInto("saga_step").values(rows));
        await tx.later(tx.sql.updateTable("orders").set({ saga: null }).where("order_id", "=", shop.orderId));
        const order = await readOrder(tx.sql, shop.orderId);
        if (back && order) await changeState(tx, order, "CANCELLING");
      });
      await shop.recover();
      assert.equal(await shop.state(), back ? "CANCELLED" : "PAID");
      assert.deepEqual(things(), back ? { one: "taken back", two: "taken back" } : allDone);
      assert.deepEqual(await shop.steps(), back ? { one: "undone", two: "undone" } : allDone);
      assert.ok(!shop.world.calls.includes(`${shop.orderId}/one`), "a step that is done is not taken again");
      await (back || shop.database.close());
    }
  });

  it("leaves no job behind when it is over", async () => {
    await open();
    shop.world.faults.set("one", { fault: "lost answer" });
    await shop.process().drive(shop.orderId, shop.lease);
    const jobs = () => shop.database.sql.selectFrom("job").select("kind").where("kind", "=", "order.saga").execute();
    assert.equal((await jobs()).length, 1);
    await shop.recover();
    assert.deepEqual(await jobs(), []);
  });

  it("tries an error that is no refusal again, whatever it is", async () => {
    let broken = true;
    await open({
      run: async (saga, world) => {
        const step = stepOf(world, "one");
        await saga.step("one", { ...step, run: (call) => (broken ? Promise.reject(new TypeError("a bug")) : step.run(call)) });
      },
    });
    await shop.process().drive(shop.orderId, shop.lease);
    assert.equal(await shop.state(), "PLACING");
    await assert.rejects(shop.process().drive(shop.orderId), (error) => reasonOf(error) === "UNAVAILABLE");
    broken = false;
    await shop.recover();
    assert.equal(await shop.state(), "PAID");
  });
});
