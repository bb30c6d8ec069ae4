import assert from "node:assert/strict";
import { PaymentState } from "#gen/marketplace/payment/v1/payment_pb.ts";
import { reasonOf } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { carriers } from "../support/server.ts";
import { authorization, type Bank, Crash, command, openBank, paid, refused, timeout, unreachable } from "./bank.ts";

for (const carrier of carriers)
  describe(`commands on one payment that meet (${carrier})`, () => {
    let bank: Bank;
    beforeEach(async () => {
      bank = await openBank(carrier);
    });
    afterEach(() => bank.close());

    const atProcessor = (paymentId: string) =>
      bank.simulator.find("authorization", `${paymentId}/authorize`, AbortSignal.timeout(1000));

    it("drop the payment at the processor although a question to the buyer ended after the void, whose process died", async () => {
      const request = authorization({ token: "tok_needs_confirmation" });
      await bank.order.authorizePayment(request);
      const voided = { paymentId: request.paymentId, requestId: newId() };
      bank.faults.meanwhile = async (point) => {
        if (point === "find/after") {
          // The processor has said that the buyer is still to confirm. Before that is noted, a void begins, and its process dies.
          bank.faults.meanwhile = undefined;
          bank.faults.at = (at) => (at === "void/before" ? new Crash() : undefined);
          await assert.rejects(bank.order.voidPayment(voided));
          bank.faults.at = () => undefined;
        }
      };
      await refused(bank.order.confirmPayment(command(request.paymentId)), "PAYMENT_STATE_CONFLICT");
      await bank.settle();
      assert.equal((await atProcessor(request.paymentId))?.state, "dropped");
      await bank.order.voidPayment(voided, { timeoutMs: 2_000 });
    });

    it("keep being looked after when the job finds the payment changed each time", async () => {
      const request = await paid(bank, "authorized", { token: "tok_capture_timeout_not_charged" });
      await refused(bank.order.capturePayment(command(request.paymentId)), "PROCESSOR_OUTCOME_UNKNOWN");
      let changes = 0;
      bank.faults.meanwhile = async (point) => {
        if (point === "find/after" && changes < 8) {
          changes++;
          await bank.database.sql
            .updateTable("payment")
            .set((eb) => ({ version: eb("version", "+", 1) }))
            .where("payment_id", "=", request.paymentId)
            .execute();
        }
      };
      bank.clock.advance(2_000);
      await bank.jobs.runDue();
      assert.equal(changes, 8);
      await bank.settle();
      await bank.checkBooks();
    });

    for (const [step, run] of [
      ["authorization", (request: ReturnType<typeof authorization>) => bank.order.authorizePayment(request)],
      [
        "capture",
        (request: ReturnType<typeof authorization>) =>
          bank.order.capturePayment({ paymentId: request.paymentId, requestId: `${request.paymentId}/capture` }),
      ],
    ] as const) {
      it(`never say that nothing was asked for when the ${step} was, and its outcome is out of reach`, async () => {
        const request = step === "capture" ? await paid(bank, "authorized") : authorization();
        let calls = 0;
        bank.faults.at = (point) => {
          if (/^(authorize|capture)\/after$/.test(point)) {
            calls++;
            return timeout();
          }
          return point === "find/before" ? unreachable() : undefined;
        };
        await refused(run(request), "PROCESSOR_OUTCOME_UNKNOWN");
        await refused(run(request), "PROCESSOR_OUTCOME_UNKNOWN");
        assert.equal(calls, 1);
      });
    }

    it("find out for themselves, under the same request_id, after the job has given up and waits for a person", async () => {
      const request = await paid(bank, "authorized");
      const capture = command(request.paymentId);
      bank.faults.at = (point) => (point === "capture/before" || point === "find/before" ? new Crash() : undefined);
      await assert.rejects(bank.order.capturePayment(capture));
      for (let attempt = 0; attempt < 12; attempt++) {
        bank.clock.advance(400_000);
        await bank.jobs.runDue();
      }
      const letters = await bank.database.sql.selectFrom("dead_letter").select("subject").execute();
      assert.deepEqual(letters, [{ subject: request.paymentId }]);
      // A repeat whose process dies is looked after as the first try was.
      await assert.rejects(
        bank.order.capturePayment(capture, { timeoutMs: 1_000 }),
        (error) => reasonOf(error) !== "DEADLINE_EXCEEDED",
      );
      bank.faults.at = () => undefined;
      await bank.settle();
      const { payment } = await bank.order.capturePayment(capture, { timeoutMs: 1_000 });
      assert.equal(payment?.state, PaymentState.CAPTURED);
      await bank.checkBooks();
    });

    it("say that the processor is out of reach when only the buyer's answer was asked for", async () => {
      const request = authorization({ token: "tok_needs_confirmation" });
      await bank.order.authorizePayment(request);
      bank.faults.at = (point) => (point === "find/before" ? unreachable() : undefined);
      await refused(bank.order.confirmPayment(command(request.paymentId)), "PROCESSOR_UNAVAILABLE");
    });
  });
