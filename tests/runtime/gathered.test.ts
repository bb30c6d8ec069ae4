import assert from "node:assert/strict";
import { setImmediate as turn } from "node:timers/promises";
import { gathered } from "#runtime/database/gathered.ts";
import { memoryDatabase } from "../support/database.ts";

interface Sent {
  readonly keys: readonly string[];
  answer(): void;
  fail(error: Error): void;
}

/** A read whose statements the test answers: every key but "none" has a row. */
function reads(gatherMaxMs = 60_000) {
  const sent: Sent[] = [];
  const read = gathered<{ key: string }>({
    read(keys) {
      const { promise, resolve, reject } = Promise.withResolvers<{ key: string }[]>();
      const rows = keys.filter((key) => key !== "none").map((key) => ({ key }));
      sent.push({ keys, answer: () => resolve(rows), fail: reject });
      return promise;
    },
    keyOf: ({ key }) => key,
    gatherMaxMs,
  });
  return { sent, read };
}

describe("reads of rows by key that are gathered", () => {
  it("share a statement when they are asked for in the same turn, each key once", async () => {
    const { sent, read } = reads();
    const rows = Promise.all([read("a"), read("b"), read("a"), read("none")]);
    await turn();
    assert.deepEqual(
      sent.map(({ keys }) => keys),
      [["a", "b", "none"]],
    );
    sent[0]?.answer();
    assert.deepEqual(await rows, [{ key: "a" }, { key: "b" }, { key: "a" }, undefined]);
  });

  it("wait for the next statement while one is under way, which may be too old for them", async () => {
    const { sent, read } = reads();
    const first = read("a");
    await turn();
    const later = [read("a"), read("b")];
    await turn();
    assert.equal(sent.length, 1);
    sent[0]?.answer();
    await first;
    await turn();
    assert.deepEqual(sent[1]?.keys, ["a", "b"]);
    sent[1]?.answer();
    assert.deepEqual(await Promise.all(later), [{ key: "a" }, { key: "b" }]);
  });

  it("are not held up by a slow statement", async () => {
    const { sent, read } = reads(1);
    const slow = read("a");
    await turn();
    const later = read("b");
    while (sent.length < 2) await turn();
    sent[1]?.answer();
    assert.deepEqual(await later, { key: "b" });
    sent[0]?.answer();
    assert.deepEqual(await slow, { key: "a" });
  });

  it("fail together with their statement, and not with an earlier one", async () => {
    const { sent, read } = reads();
    const failing = [read("a"), read("b")];
    await turn();
    const later = read("c");
    sent[0]?.fail(new Error("the connection broke"));
    await assert.rejects(failing[0] as Promise<unknown>, /broke/);
    await assert.rejects(failing[1] as Promise<unknown>, /broke/);
    await turn();
    sent[1]?.answer();
    assert.deepEqual(await later, { key: "c" });
  });

  it("ask in parts for more than a statement takes", async () => {
    const { sent, read } = reads();
    const rows = Promise.all(Array.from({ length: 600 }, (_, index) => read(String(index))));
    for (let answered = 0; answered < 3; ) {
      await turn();
      if (sent.length > answered) sent[answered++]?.answer();
    }
    assert.equal((await rows).filter((row) => row !== undefined).length, 600);
    assert.deepEqual(
      sent.map(({ keys }) => keys.length),
      [250, 250, 100],
    );
  });

  it("are refused inside a transaction, which they would not see", async () => {
    const { database } = await memoryDatabase([], []);
    try {
      const { read } = reads();
      await assert.rejects(
        database.transaction(async () => read("a")),
        /beside the open transaction/,
      );
    } finally {
      await database.close();
    }
  });
});
