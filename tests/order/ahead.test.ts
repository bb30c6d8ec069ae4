import assert from "node:assert/strict";
import type { OrderTransaction } from "../../services/order/entities.ts";
import { acquireLease } from "../../services/order/lease.ts";
import { changeState, type OrderRecord, readOrder } from "../../services/order/orders.ts";
import { openWorkshop, REFUSED, stepNames, stepOf, type Workshop } from "./workshop.ts";

const allDone = { one: "done", two: "done", three: "done" };

describe("Steps that are recorded with the order", () => {
  let shop: Workshop;
  const things = () => Object.fromEntries(shop.world.things);
  const open = async (over: Parameters<typeof openWorkshop>[0] = {}) => {
    shop = await openWorkshop({ ahead: ["one", "two"], ...over });
  };
  const leaseEnd = async () => (await readOrder(shop.database.sql, shop.orderId))?.lease_expire_time ?? 0;
  afterEach(() => shop.database.close());

  it("are taken without a write between them; the next one is recorded with their outcomes before it is tried", async () => {
    await open();
    let seen: Record<string, string> = {};
    shop.world.before.set("three", async () => {
      seen = await shop.steps();
    });
    // Its third write would be its last.
    await shop.process({ atWrite: 3, when: "before" }).drive(shop.orderId, shop.lease);
    assert.deepEqual(seen, { one: "done", two: "done", three: "started" });
    assert.equal(await shop.state(), "PAID");
    assert.deepEqual(await shop.steps(), allDone);
  });

  for (const when of ["before", "after"] as const) {
    for (const atWrite of [1, 2]) {
      it(`end when the process dies ${when} write ${atWrite}`, async () => {
        await open();
        await shop.process({ atWrite, when }).drive(shop.orderId, shop.lease);
        await shop.recover();
        assert.equal(await shop.state(), "PAID");
        assert.deepEqual(things(), allDone);
      });

      it(`are all taken back when the last step is refused and the process dies ${when} write ${atWrite}`, async () => {
        await open();
        shop.world.faults.set("three", { fault: "refusal", always: true });
        await shop.process({ atWrite, when }).drive(shop.orderId, shop.lease);
        await shop.recover();
        assert.equal(await shop.state(), "CANCELLED");
        assert.equal(things().one, "taken back");
        assert.equal(things().two, "taken back");
      });
    }
  }

  for (const step of ["one", "two"]) {
    it(`are all taken back by who turns the order back before ${step} arrives, though no outcome is written`, async () => {
      await open();
      shop.world.before.set(step, async () => {
        shop.world.before.clear();
        await shop.database.transaction(async (tx: OrderTransaction) => {
          const order = (await readOrder(tx.sql, shop.orderId)) as OrderRecord;
          await changeState(tx, order, "CANCELLING", { lease_owner: "turner", lease_expire_time: tx.now + 30_000 });
        });
        await shop.process().drive(shop.orderId, { owner: "turner" });
      });
      await shop.process().drive(shop.orderId, shop.lease);
      assert.equal(await shop.state(), "CANCELLED");
      assert.deepEqual(things(), { one: "taken back", two: "taken back" });
      assert.ok(!shop.world.calls.includes(`${shop.orderId}/three`));
    });
  }

  it("that were not tried are not taken back after a refusal, and are tried for the first time after a pause", async () => {
    await open();
    shop.world.faults.set("one", { fault: "lost answer" });
    await shop.process().drive(shop.orderId, shop.lease);
    assert.deepEqual(await shop.steps(), { one: "started" });
    shop.world.faults.set("two", { fault: "refusal" });
    await shop.recover();
    assert.equal(await shop.state(), "CANCELLED");
    assert.ok(!shop.world.calls.includes(`${shop.orderId}/two/undo`));
  });

  it("renew the lease before it could end during a try", async () => {
    await open();
    shop.world.before.set("one", async () => shop.clock.advance(14_000));
    shop.world.before.set("two", async () => {
      assert.equal(await leaseEnd(), shop.clock.now() + 16_000);
      shop.clock.advance(15_000);
    });
    await shop.process().drive(shop.orderId, shop.lease);
    assert.equal(await shop.state(), "PAID");

    await shop.database.close();
    await open();
    let renewed = 0;
    shop.world.before.set("one", async () => shop.clock.advance(15_000));
    shop.world.before.set("two", async () => {
      renewed = (await leaseEnd()) - shop.clock.now();
    });
    await shop.process().drive(shop.orderId, shop.lease);
    assert.equal(renewed, 30_000);
  });

  it("are not gone on with by a runner that slept until another took the order", async () => {
    await open();
    shop.world.before.set("one", async () => {
      shop.clock.advance(31_000);
      assert.equal(await acquireLease(shop.database, shop.orderId, "another"), true);
    });
    await shop.process().drive(shop.orderId, shop.lease);
    assert.deepEqual(shop.world.calls, [`${shop.orderId}/one`]);
  });

  it("are taken back, not tried, by who comes when it is too late for one", async () => {
    let late = false;
    await open({
      run: async (saga, world) => {
        for (const name of stepNames) {
          await saga.step(name, { ...stepOf(world, name), unless: () => (late && name === "two" ? REFUSED : undefined) });
        }
      },
    });
    await shop.process({ atWrite: 1, when: "before" }).drive(shop.orderId, shop.lease);
    assert.deepEqual(things(), { one: "done", two: "done" });
    late = true;
    await shop.recover();
    assert.equal(await shop.state(), "CANCELLED");
    assert.deepEqual(things(), { one: "taken back", two: "taken back" });
  });
});
