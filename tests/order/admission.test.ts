import assert from "node:assert/strict";
import { Code } from "@connectrpc/connect";
import { retryAfterMsOf } from "#runtime/errors.ts";
import { createGate } from "../../services/order/admission.ts";
import { refused } from "../support/refused.ts";

describe("A gate", () => {
  /** Work that ends when it is told to. */
  function tasks() {
    const begun: number[] = [];
    const ends = new Map<number, () => void>();
    const task = (id: number) => () => {
      begun.push(id);
      return new Promise<number>((resolve) => ends.set(id, () => resolve(id)));
    };
    return { begun, task, end: (id: number) => ends.get(id)?.() };
  }
  const settled = () => new Promise((resolve) => setImmediate(resolve));

  it("lets so many through at once, and the others after them in the order of arrival", async () => {
    const gate = createGate({ atOnce: 2, waitingMax: 10, waitMaxMs: 10_000 });
    const { begun, task, end } = tasks();
    const all = [1, 2, 3, 4].map((id) => gate.pass(task(id)));
    await settled();
    assert.deepEqual(begun, [1, 2]);
    end(2);
    await settled();
    assert.deepEqual(begun, [1, 2, 3]);
    end(1);
    await settled();
    end(3);
    end(4);
    assert.deepEqual(await Promise.all(all), [1, 2, 3, 4]);
    assert.deepEqual(begun, [1, 2, 3, 4]);
  });

  it("makes room when work fails", async () => {
    const gate = createGate({ atOnce: 1, waitingMax: 1, waitMaxMs: 10_000 });
    const failing = gate.pass(() => Promise.reject(new TypeError("a bug")));
    const next = gate.pass(async () => "done");
    await assert.rejects(failing, TypeError);
    assert.equal(await next, "done");
  });

  it("refuses with OVERLOADED and a time to wait who finds too many waiting, at once", async () => {
    const gate = createGate({ atOnce: 1, waitingMax: 1, waitMaxMs: 10_000 });
    const { begun, task, end } = tasks();
    const first = gate.pass(task(1));
    const second = gate.pass(task(2));
    const error = await refused(gate.pass(task(3)), "OVERLOADED", Code.ResourceExhausted);
    assert.equal(retryAfterMsOf(error), 10_000);
    end(1);
    await first;
    await settled();
    end(2);
    await second;
    assert.deepEqual(begun, [1, 2]);
  });

  it("refuses who waited too long, and keeps no place for it", async () => {
    const gate = createGate({ atOnce: 1, waitingMax: 1, waitMaxMs: 5 });
    const { begun, task, end } = tasks();
    const first = gate.pass(task(1));
    await refused(gate.pass(task(2)), "OVERLOADED");
    end(1);
    await first;
    const third = gate.pass(task(3));
    await settled();
    end(3);
    assert.equal(await third, 3);
    assert.deepEqual(begun, [1, 3]);
  });
});
