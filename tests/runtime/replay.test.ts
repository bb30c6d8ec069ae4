import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { InventoryService, SetUnitsRequestSchema, SetUnitsResponseSchema } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import type { Caller } from "#runtime/call.ts";
import { type ManualClock, manualClock } from "#runtime/clock.ts";
import { type Database, openDatabase, type TablesOf } from "#runtime/database/database.ts";
import { fail, metadataOf, reason, reasonOf } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { callContext } from "../support/call.ts";
import { databasePlace, memoryDatabase, quietLog } from "../support/database.ts";
import { Pot, pot, potMigrations } from "./pots.ts";

const REFUSED = reason("REFUSED", Code.FailedPrecondition, "The test refuses.");
const DAY_MS = 24 * 3600 * 1000;
const method = InventoryService.method.setUnits;

type PotDatabase = Database<TablesOf<readonly [typeof Pot]>>;

describe("replay", () => {
  let database: PotDatabase;
  let clock: ManualClock;
  let works = 0;

  beforeEach(async () => {
    works = 0;
    ({ database, clock } = await memoryDatabase([Pot], potMigrations));
  });
  afterEach(() => database.close());

  const request = (requestId: string, units = 1) => create(SetUnitsRequestSchema, { requestId, listingId: "x", units });
  const answerOf = (units: number): MessageInitShape<typeof SetUnitsResponseSchema> => ({ stock: { listingId: `x${units}` } });

  /** A command that adds a row and answers with the number of rows it made before. */
  function command(
    requestId: string,
    options: { units?: number; caller?: Caller; timeoutMs?: number; work?: () => Promise<void> } = {},
  ) {
    const { units = 1, work, ...context } = options;
    return database.command(request(requestId, units), callContext(method, context), async (tx) => {
      await tx.sql.insertInto("pot").values(pot(newId())).execute();
      works++;
      await work?.();
      return answerOf(works);
    });
  }
  const rows = async () => (await database.sql.selectFrom("pot").select("pot_id").execute()).length;

  it("gives a repeat the first answer and does nothing again", async () => {
    const first = await command("r1");
    assert.deepEqual(await command("r1"), first);
    assert.equal(works, 2 - 1);
    assert.equal(await rows(), 1);
  });

  it("gives a repeat the first answer where all that a command does goes through entities", async () => {
    const place = () =>
      database.command(request("r1"), callContext(method), async (tx) => {
        tx.em.create(Pot, { potId: newId(), title: "", balanceMinor: 0n, createTime: tx.now, note: null });
        return answerOf(1);
      });
    assert.deepEqual(await place(), await place());
    assert.equal(await rows(), 1);
  });

  it("refuses other content under the same id", async () => {
    await command("r1");
    await assert.rejects(command("r1", { units: 2 }), (error) => reasonOf(error) === "REQUEST_ID_REUSED");
    assert.equal(await rows(), 1);
  });

  it("keeps the ids of two callers apart", async () => {
    await command("r1");
    await command("r1", { caller: { kind: "account", accountId: "other", operator: false } });
    await command("r1", { caller: { kind: "service", service: "order" } });
    assert.equal(await rows(), 3);
  });

  it("takes a service for one caller, whichever account it acts for", async () => {
    await command("o1/capture", { caller: { kind: "service", service: "order", accountId: "a" } });
    await command("o1/capture", { caller: { kind: "service", service: "order" } });
    assert.equal(await rows(), 1);
  });

  it("lets a concurrent repeat wait for the first and get its answer", async () => {
    const answers = await Promise.all(Array.from({ length: 10 }, () => command("r1", { work: () => sleep(5) })));
    assert.equal(await rows(), 1);
    assert.equal(new Set(answers.map((answer) => answer.stock?.listingId)).size, 1);
  });

  it("stores nothing of a command that fails, so that a repeat tries again", async () => {
    const failing = command("r1", { work: async () => fail(REFUSED) });
    await assert.rejects(failing, (error) => reasonOf(error) === "REFUSED");
    assert.equal(await rows(), 0);
    await command("r1");
    assert.equal(await rows(), 1);
  });

  it("leaves nothing of a command whose deadline passes", async () => {
    const late = command("r1", { timeoutMs: 20, work: () => sleep(40) });
    await assert.rejects(late, (error) => reasonOf(error) === "DEADLINE_EXCEEDED");
    assert.equal(await rows(), 0);
    await command("r1");
    assert.equal(await rows(), 1);
  });

  it("forgets an answer after thirty days", async () => {
    await command("r1");
    clock.advance(30 * DAY_MS - 1);
    await command("r1");
    assert.equal(await rows(), 1);
    clock.advance(1);
    await command("r1");
    assert.equal(await rows(), 2);
  });

  describe("of a command in two halves", () => {
    const claim = (requestId: string, timeoutMs = 5_000) =>
      database.claim(request(requestId), callContext(method, { timeoutMs }), SetUnitsResponseSchema, async (tx, requestKey) => {
        await tx.sql
          .insertInto("pot")
          .values({ ...pot(newId()), note: requestKey })
          .execute();
        works++;
        return "recorded";
      });

    it("gives repeats the answer stored later, from wherever it is stored", async () => {
      const first = await claim("r1");
      assert.ok(first.first);
      assert.equal(first.value, "recorded");
      const waiting = [claim("r1"), claim("r1")];
      await sleep(10);
      await database.transaction(async (tx) => tx.answer(first.requestKey, SetUnitsResponseSchema, answerOf(7)));
      for (const repeat of await Promise.all([...waiting, claim("r1")])) {
        assert.ok(!repeat.first);
        assert.equal(repeat.answer.stock?.listingId, "x7");
      }
      assert.equal(works, 1);
    });

    it("gives repeats a stored error with its code, reason and metadata", async () => {
      const { requestKey } = await claim("r1");
      const declined = await assertThrows(() => fail(REFUSED, { metadata: { decline: "funds" } }));
      await database.transaction(async (tx) => tx.answerError(requestKey, declined));
      await assert.rejects(claim("r1"), (error: ConnectError) => {
        assert.equal(error.code, Code.FailedPrecondition);
        assert.equal(reasonOf(error), "REFUSED");
        assert.deepEqual({ ...metadataOf(error) }, { decline: "funds" });
        return true;
      });
    });

    it("makes a repeat wait no longer than its deadline", async () => {
      await claim("r1");
      await assert.rejects(claim("r1", 30), (error) => reasonOf(error) === "DEADLINE_EXCEEDED");
    });

    it("lets a repeat begin anew after the claim was dropped", async () => {
      const { requestKey } = await claim("r1");
      const waiting = claim("r1");
      await sleep(5);
      await database.transaction(async (tx) => tx.forget(requestKey));
      assert.ok((await waiting).first);
      assert.equal(works, 2);
    });

    it("refuses a second answer", async () => {
      const { requestKey } = await claim("r1");
      const answer = () => database.transaction(async (tx) => tx.answer(requestKey, SetUnitsResponseSchema, answerOf(1)));
      await answer();
      await assert.rejects(answer(), /has one already/);
    });
  });

  it("finds the answer that another process stored", async () => {
    const place = await databasePlace("pots");
    const open = () =>
      openDatabase({
        service: "pots",
        url: place.url,
        entities: [Pot],
        migrations: potMigrations,
        clock: manualClock(),
        log: quietLog,
      });
    const [one, two] = [await open(), await open()];
    const claim = (from: typeof one) =>
      from.claim(request("r1"), callContext(method), SetUnitsResponseSchema, async () => undefined);
    const first = await claim(one);
    const repeat = claim(two);
    await sleep(10);
    await one.transaction(async (tx) => tx.answer(first.requestKey, SetUnitsResponseSchema, answerOf(3)));
    const got = await repeat;
    assert.equal(!got.first && got.answer.stock?.listingId, "x3");
    await Promise.all([one.close(), two.close()]);
    await place.remove();
  });
});

async function assertThrows(work: () => never): Promise<ConnectError> {
  try {
    return work();
  } catch (error) {
    assert.ok(error instanceof ConnectError);
    return error;
  }
}
