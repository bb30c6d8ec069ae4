import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import { anyPack, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type Client, Code } from "@connectrpc/connect";
import { EventSchema } from "#gen/marketplace/event/v1/event_pb.ts";
import { StockChangedSchema } from "#gen/marketplace/inventory/v1/events_pb.ts";
import { type DeadLetter, DeadLetterKind, MaintenanceService, OpsService } from "#gen/marketplace/ops/v1/ops_pb.ts";
import { createDirectory } from "#runtime/clients.ts";
import type { ManualClock } from "#runtime/clock.ts";
import type { Database } from "#runtime/database/database.ts";
import { fail, OVERLOADED } from "#runtime/errors.ts";
import { inboxConsumer, on } from "#runtime/events/inbox.ts";
import { newId } from "#runtime/ids.ts";
import { type Jobs, startJobs } from "#runtime/jobs/jobs.ts";
import { maintenance } from "#runtime/maintenance.ts";
import { pageTokens } from "#runtime/pages.ts";
import { embeddedVerifiers, serviceTokens, temporaryKeys } from "#runtime/tokens.ts";
import { ops } from "../../services/ops/service.ts";
import { memoryDatabase, quietLog } from "../support/database.ts";
import { refused } from "../support/refused.ts";
import { behind, carriers, type Identity, rpcModule, type Subject } from "../support/server.ts";

const KIND = "payment.sweep";
const operatorId = newId();

for (const carrier of carriers)
  describe(`dead letters and jobs (${carrier})`, () => {
    let database: Database;
    let other: Database;
    let clock: ManualClock;
    let jobs: Jobs;
    let subject: Subject;
    let operator: Client<typeof OpsService>;
    let broken: boolean;
    let swept: string[];
    let applied: number;

    const consumer = () =>
      inboxConsumer({
        database,
        name: "payment.stock",
        maxAttempts: 1,
        on: [
          on(StockChangedSchema, async () => {
            if (broken) throw new Error("no room");
            applied++;
          }),
        ],
      });

    beforeEach(async () => {
      broken = true;
      swept = [];
      applied = 0;
      ({ database, clock } = await memoryDatabase([], [], { service: "payment" }));
      ({ database: other } = await memoryDatabase([], [], { service: "order", clock }));
      const keys = await temporaryKeys();
      const pages = pageTokens({ secret: keys.pageTokens, clock });
      const directory = createDirectory({ verifiers: embeddedVerifiers(keys), log: quietLog });
      const clients = directory.clientsFor(serviceTokens(keys, "ops"));
      const payment = rpcModule("payment", (router) => router.service(MaintenanceService, maintenance(database, pages)));
      const order = rpcModule("order", (router) => router.service(MaintenanceService, maintenance(other, pages)));
      directory.host([payment, order]);
      subject = await behind(carrier, [payment, ops({ clients, pages, services: ["payment", "order"] })]);
      operator = client({ account: operatorId, operator: true });
      const sweep = {
        kind: KIND,
        maxAttempts: 2,
        backoffMs: () => 1_000,
        async run({ key }: { key: string }) {
          if (broken) fail(OVERLOADED);
          swept.push(key);
        },
      };
      jobs = startJobs({ database, handlers: [sweep], consumers: [consumer()], pollMs: 3_600_000 });
    });
    afterEach(async () => {
      await jobs.stop();
      await subject.stop();
      await database.close();
      await other.close();
    });

    const client = (identity?: Identity) => subject.client(OpsService, identity);
    const schedule = (key: string, dueTime = clock.now()) =>
      database.transaction(async (tx) => tx.schedule({ kind: KIND, key, dueTime }));
    const letters = async (service = "payment") => (await operator.listDeadLetters({ service })).deadLetters;
    /** Lets a job use up its attempts. */
    const failing = async (...keysOfJobs: string[]) => {
      for (const key of keysOfJobs) await schedule(key);
      await jobs.runDue();
      clock.advance(1_000);
      await jobs.runDue();
    };
    const failingEvent = async () => {
      const aggregateId = newId();
      const event = create(EventSchema, {
        eventId: newId(),
        source: "inventory",
        aggregateType: "stock",
        aggregateId,
        sequence: 1n,
        eventTime: timestampFromMs(clock.now()),
        payload: anyPack(StockChangedSchema, create(StockChangedSchema, {})),
      });
      await consumer().handle([event]);
      return event;
    };
    const decided = (deadLetterId: string) =>
      database.sql
        .selectFrom("dead_letter")
        .select(["state", "resolved_by", "note"])
        .where("dead_letter_id", "=", deadLetterId)
        .executeTakeFirstOrThrow();

    it("tell of a job what it was about, how often it was tried and why it failed", async () => {
      const start = clock.now();
      await failing("a");
      const [letter] = (await letters()) as [DeadLetter];
      const { kind, service, handler, subject, attempts, reason, event } = letter;
      assert.deepEqual(
        { kind, service, handler, subject, attempts, reason, event },
        { kind: DeadLetterKind.JOB, service: "payment", handler: KIND, subject: "a", attempts: 2, reason: "OVERLOADED", event: "" },
      );
      assert.deepEqual([letter.firstAttemptTime, letter.lastAttemptTime], [timestampFromMs(start), timestampFromMs(start + 1_000)]);
      assert.deepEqual(await letters("order"), []);
    });

    it("tell of an event which one it was", async () => {
      const event = await failingEvent();
      const [letter] = (await letters()) as [DeadLetter];
      assert.equal(letter.kind, DeadLetterKind.EVENT);
      assert.deepEqual([letter.handler, letter.subject, letter.message], ["payment.stock", event.aggregateId, "Error: no room"]);
      assert.equal(letter.event, `${StockChangedSchema.typeName} ${event.eventId}`);
    });

    it("are tried again when an operator says so, and it is kept who did", async () => {
      await failing("a");
      const event = await failingEvent();
      broken = false;
      const open = await letters();
      for (const { deadLetterId } of open) {
        await operator.retryDeadLetter({ requestId: newId(), service: "payment", deadLetterId });
      }
      await jobs.runDue();
      assert.deepEqual([swept, applied], [["a"], 1]);
      assert.deepEqual(await letters(), []);
      for (const { deadLetterId } of open) {
        assert.equal((await decided(deadLetterId)).resolved_by, operatorId, event.eventId);
      }
    });

    it("are given up for good with who and why", async () => {
      await failing("a");
      const [{ deadLetterId }] = (await letters()) as [DeadLetter];
      const request = { requestId: newId(), service: "payment", deadLetterId, note: "a test order" };
      await operator.discardDeadLetter(request);
      await operator.discardDeadLetter(request);
      assert.deepEqual(await decided(deadLetterId), { state: "discarded", resolved_by: operatorId, note: "a test order" });
      await refused(operator.discardDeadLetter({ ...request, note: "other" }), "REQUEST_ID_REUSED", Code.AlreadyExists);
      await refused(operator.retryDeadLetter({ ...request, requestId: newId() }), "DEAD_LETTER_NOT_FOUND", Code.NotFound);
      broken = false;
      await jobs.runDue();
      assert.deepEqual(swept, []);
    });

    it("are tried again once however often one request comes, and two operators' equal request_ids are two", async () => {
      await failing("a", "b");
      const [a, b] = (await letters()) as [DeadLetter, DeadLetter];
      const requestId = newId();
      const retry = (who: Client<typeof OpsService>, { deadLetterId }: DeadLetter) =>
        who.retryDeadLetter({ requestId, service: "payment", deadLetterId });
      await Promise.all([retry(operator, a), retry(operator, a), retry(operator, a)]);
      await retry(client({ account: newId(), operator: true }), b);
      await refused(retry(operator, b), "REQUEST_ID_REUSED");
    });

    it("come in pages, oldest first, whose tokens are good for one service", async () => {
      await failing("a", "b", "c");
      const subjects = (all: DeadLetter[]) => all.map((letter) => letter.subject);
      const first = await operator.listDeadLetters({ service: "payment", pageSize: 2 });
      const second = await operator.listDeadLetters({ service: "payment", pageSize: 2, pageToken: first.nextPageToken });
      const all = [...subjects(first.deadLetters), ...subjects(second.deadLetters)];
      assert.deepEqual([all.sort(), second.nextPageToken], [["a", "b", "c"], ""]);
      const elsewhere = operator.listDeadLetters({ service: "order", pageToken: first.nextPageToken });
      await refused(elsewhere, "PAGE_TOKEN_INVALID", Code.InvalidArgument);
      await refused(operator.listJobs({ service: "payment", pageToken: first.nextPageToken }), "PAGE_TOKEN_INVALID");
    });

    it("stand beside the jobs that wait, the next due first", async () => {
      const now = clock.now();
      await schedule("late", now + 2_000);
      await schedule("soon", now + 1_000);
      await schedule("failing", now);
      await jobs.runDue();
      const page = await operator.listJobs({ service: "payment", pageSize: 1 });
      const rest = await operator.listJobs({ service: "payment", pageToken: page.nextPageToken });
      const own = [...page.jobs, ...rest.jobs].filter((job) => job.kind === KIND);
      assert.deepEqual(
        own.map((job) => [job.key, job.attempts, job.running, job.dueTime]),
        [
          ["failing", 1, false, timestampFromMs(now + 1_000)],
          ["soon", 0, false, timestampFromMs(now + 1_000)],
          ["late", 0, false, timestampFromMs(now + 2_000)],
        ],
      );
      assert.match(own[0]?.lastError ?? "", /more to do/i);
    });

    it("of a service that does not exist are not found", async () => {
      for (const service of ["nobody", "ops"]) {
        await refused(operator.listDeadLetters({ service }), "SERVICE_UNKNOWN", Code.NotFound);
        await refused(operator.listJobs({ service }), "SERVICE_UNKNOWN");
        const request = { requestId: newId(), service, deadLetterId: newId(), note: "none" };
        await refused(operator.retryDeadLetter(request), "SERVICE_UNKNOWN");
        await refused(operator.discardDeadLetter(request), "SERVICE_UNKNOWN");
      }
      const unknown = { requestId: newId(), service: "payment", deadLetterId: newId() };
      await refused(operator.retryDeadLetter(unknown), "DEAD_LETTER_NOT_FOUND", Code.NotFound);
    });

    it("are shown to operators only, by each service to ops only", async () => {
      await refused(client({ account: newId() }).listDeadLetters({ service: "payment" }), "PERMISSION_DENIED");
      await refused(client().listDeadLetters({ service: "payment" }), "TOKEN_MISSING");
      for (const identity of [{ account: operatorId, operator: true }, { service: "order" }]) {
        await refused(subject.client(MaintenanceService, identity).listOwnDeadLetters({}), "PERMISSION_DENIED");
      }
    });
  });
