import assert from "node:assert/strict";
import { timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { PaymentState, TransferKind, TransferState } from "#gen/marketplace/payment/v1/payment_pb.ts";
import { metadataOf, retryAfterMsOf, violationsOf } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { AUTHORIZATION_MS } from "../../services/payment/payments.ts";
import { carriers } from "../support/server.ts";
import {
  authorization,
  type Bank,
  command,
  failOnce,
  LISTED_2025,
  LISTED_2026,
  openBank,
  paid,
  refused,
  timeout,
  unreachable,
} from "./bank.ts";

for (const carrier of carriers) {
  describe(`payments (${carrier})`, () => {
    let bank: Bank;
    beforeEach(async () => {
      bank = await openBank(carrier);
    });
    afterEach(async () => {
      await bank.checkBooks();
      await bank.close();
    });

    const state = async (paymentId: string) => (await bank.order.getPayment({ paymentId })).payment?.state;

    it("promises the money and holds it as a pending transfer", async () => {
      const request = authorization();
      const { payment } = await bank.order.authorizePayment(request);
      assert.equal(payment?.state, PaymentState.AUTHORIZED);
      assert.deepEqual([payment.amount?.currencyCode, payment.amount?.amountMinor], ["USD", 10_000n]);
      assert.ok(payment.authorizationExpireTime);
      assert.equal(timestampMs(payment.authorizationExpireTime), bank.clock.now() + AUTHORIZATION_MS);
      const { transfers } = await bank.ops.listTransfers({ orderId: request.orderId });
      assert.equal(transfers.length, 1);
      assert.equal(transfers[0]?.state, TransferState.PENDING);
      assert.equal(transfers[0]?.requestId, request.requestId);
      assert.deepEqual(await bank.events(request.paymentId), ["PaymentAuthorized"]);
    });

    for (const [token, reason, code] of [
      ["tok_declined", "PAYMENT_DECLINED", Code.FailedPrecondition],
      ["tok_insufficient_funds", "INSUFFICIENT_FUNDS", Code.FailedPrecondition],
      ["tok_nobody_knows", "PAYMENT_METHOD_INVALID", Code.InvalidArgument],
    ] as const) {
      it(`answers ${reason} to every repeat when the processor refuses ${token}`, async () => {
        const request = authorization({ token });
        await refused(bank.order.authorizePayment(request), reason, code);
        await refused(bank.order.authorizePayment(request), reason, code);
        await refused(bank.order.authorizePayment({ ...request, requestId: newId() }), reason, code);
        const { payment } = await bank.order.getPayment({ paymentId: request.paymentId });
        assert.equal(payment?.state, PaymentState.DECLINED);
        assert.equal(payment.declineReason, reason);
        assert.deepEqual(await bank.events(request.paymentId), ["PaymentDeclined"]);
      });
    }

    it("answers a repeat as the first time, whatever became of the payment", async () => {
      const request = authorization();
      const first = await bank.order.authorizePayment(request);
      await bank.order.capturePayment(command(request.paymentId));
      assert.deepEqual(await bank.order.authorizePayment(request), first);
      const again = await bank.order.authorizePayment({ ...request, requestId: newId() });
      assert.equal(again.payment?.state, PaymentState.CAPTURED);
    });

    it("refuses other contents under a known request_id or payment_id", async () => {
      const request = authorization();
      await bank.order.authorizePayment(request);
      await refused(bank.order.authorizePayment(authorization({ requestId: request.requestId })), "REQUEST_ID_REUSED");
      const other = authorization({ paymentId: request.paymentId, requestId: newId() });
      await refused(bank.order.authorizePayment(other), "PAYMENT_CONFLICT", Code.AlreadyExists);
    });

    it("refuses mixed currencies, too large a sum, and a listing older than all fee schedules, and keeps nothing", async () => {
      const mixed = authorization({ amounts: [100n, 100n] });
      const lines = mixed.lines.map((line, i) => ({
        ...line,
        amount: { currencyCode: i === 0 ? "USD" : "JPY", amountMinor: 100n },
      }));
      await refused(bank.order.authorizePayment({ ...mixed, lines }), "MIXED_CURRENCIES", Code.InvalidArgument);
      const huge = await refused(
        bank.order.authorizePayment(authorization({ amounts: [1_000_000_000_000n, 1n] })),
        "INVALID_REQUEST",
      );
      assert.deepEqual(
        violationsOf(huge).map((violation) => violation.field),
        ["lines"],
      );
      const old = await refused(
        bank.order.authorizePayment(authorization({ listingTime: Date.UTC(2019, 1, 1) })),
        "INVALID_REQUEST",
      );
      assert.deepEqual(
        violationsOf(old).map((violation) => violation.field),
        ["lines[0].listing_time"],
      );
      await refused(bank.order.authorizePayment(authorization({ amounts: [-5n] })), "INVALID_REQUEST");
      await refused(bank.order.getPayment({ paymentId: mixed.paymentId }), "PAYMENT_NOT_FOUND", Code.NotFound);
    });

    it("waits for the buyer where the processor wants it, and asks again each time", async () => {
      const request = authorization({ token: "tok_needs_confirmation" });
      const { payment } = await bank.order.authorizePayment(request);
      assert.equal(payment?.state, PaymentState.AWAITING_CONFIRMATION);
      const ask = command(request.paymentId);
      const still = await bank.order.confirmPayment(ask);
      assert.equal(still.payment?.state, PaymentState.AWAITING_CONFIRMATION);
      bank.simulator.decide(payment.confirmationUrl.split("/").at(-1) ?? "", true);
      const then = await bank.order.confirmPayment(ask);
      assert.equal(then.payment?.state, PaymentState.AUTHORIZED);
      assert.equal(then.payment.confirmationUrl, "");
      assert.deepEqual(await bank.order.confirmPayment(ask), then);
    });

    it("learns that the buyer declined", async () => {
      const request = authorization({ token: "tok_needs_confirmation" });
      const { payment } = await bank.order.authorizePayment(request);
      bank.simulator.decide(payment?.confirmationUrl.split("/").at(-1) ?? "", false);
      const ask = command(request.paymentId);
      await refused(bank.order.confirmPayment(ask), "PAYMENT_DECLINED");
      await refused(bank.order.confirmPayment(ask), "PAYMENT_DECLINED");
    });

    it("takes the money into escrow once", async () => {
      const request = await paid(bank, "authorized");
      const capture = command(request.paymentId);
      const first = await bank.order.capturePayment(capture);
      assert.equal(first.payment?.state, PaymentState.CAPTURED);
      assert.deepEqual(await bank.order.capturePayment(capture), first);
      assert.equal((await bank.order.capturePayment(command(request.paymentId))).payment?.state, PaymentState.CAPTURED);
      const { escrow } = await bank.ops.checkLedger({});
      assert.equal(escrow.find((money) => money.currencyCode === "USD")?.amountMinor, 10_000n);
    });

    it("gives all captured money back once", async () => {
      const request = await paid(bank, "captured");
      assert.equal((await bank.order.refundPayment(command(request.paymentId))).payment?.state, PaymentState.REFUNDED);
      assert.equal((await bank.order.refundPayment(command(request.paymentId))).payment?.state, PaymentState.REFUNDED);
      await refused(bank.order.releaseEscrow(command(request.paymentId)), "PAYMENT_STATE_CONFLICT", Code.FailedPrecondition);
      const books = await bank.simulator.books("USD", AbortSignal.timeout(1000));
      assert.deepEqual(books, { capturedMinor: 10_000n, refundedMinor: 10_000n, paidOutMinor: 0n });
    });

    it("releases escrow line by line, with the fee in force when each was listed", async () => {
      const request = authorization({ amounts: [400n, 10_005n], listingTime: LISTED_2026 });
      await bank.order.authorizePayment(request);
      await bank.order.capturePayment(command(request.paymentId));
      const release = command(request.paymentId);
      const { payment } = await bank.order.releaseEscrow(release);
      assert.equal(payment?.state, PaymentState.RELEASED);
      assert.equal(payment.fee?.amountMinor, 50n + 1_000n);
      assert.deepEqual((await bank.order.releaseEscrow(release)).payment, payment);
      assert.deepEqual((await bank.order.releaseEscrow(command(request.paymentId))).payment, payment);
      const { transfers } = await bank.ops.listTransfers({ orderId: request.orderId });
      const of = (kind: TransferKind) =>
        transfers
          .filter((t) => t.kind === kind)
          .map((t) => t.amount?.amountMinor)
          .sort((a, b) => Number((a ?? 0n) - (b ?? 0n)));
      assert.deepEqual(of(TransferKind.SALE), [350n, 9_005n]);
      assert.deepEqual(of(TransferKind.FEE), [50n, 1_000n]);
      assert.ok(transfers.every((t) => t.paymentId === request.paymentId && t.orderId === request.orderId));
      assert.ok(transfers.filter((t) => t.kind === TransferKind.SALE).every((t) => t.requestId === release.requestId));
      const balance = await bank.account(request.sellerId).getBalance({});
      assert.equal(balance.balances[0]?.available?.amountMinor, 9_355n);
      await refused(bank.order.refundPayment(command(request.paymentId)), "PAYMENT_STATE_CONFLICT");
    });

    it("takes the fee of the schedule before when a listing came a part of a millisecond too early for the next", async () => {
      const request = authorization({ amounts: [100n] });
      const lines = request.lines.map((line) => ({
        ...line,
        listingTime: { ...timestampFromMs(Date.UTC(2026, 0, 1) - 1000), nanos: 999_999_999 },
      }));
      await bank.order.authorizePayment({ ...request, lines });
      await bank.order.capturePayment(command(request.paymentId));
      const { payment } = await bank.order.releaseEscrow(command(request.paymentId));
      assert.equal(payment?.fee?.amountMinor, 10n);
    });

    it("leaves the seller nothing of a line that the minimum fee eats up", async () => {
      const request = await paid(bank, "released", { amounts: [40n], listingTime: LISTED_2026 });
      const { transfers } = await bank.ops.listTransfers({ orderId: request.orderId });
      assert.deepEqual(transfers.map((t) => t.kind).sort(), [TransferKind.CAPTURE, TransferKind.FEE]);
    });

    it("drops an authorized payment, at the processor too", async () => {
      const request = await paid(bank, "authorized");
      await bank.order.voidPayment(command(request.paymentId));
      await bank.order.voidPayment(command(request.paymentId));
      assert.equal(await state(request.paymentId), PaymentState.VOIDED);
      const found = await bank.simulator.find("authorization", `${request.paymentId}/authorize`, AbortSignal.timeout(1000));
      assert.equal(found?.state, "dropped");
      const error = await refused(bank.order.capturePayment(command(request.paymentId)), "PAYMENT_STATE_CONFLICT");
      assert.deepEqual(metadataOf(error), { state: "VOIDED" });
    });

    it("refuses an authorization that arrives after its void", async () => {
      const request = authorization();
      await bank.order.voidPayment(command(request.paymentId));
      await bank.order.voidPayment(command(request.paymentId));
      await refused(bank.order.authorizePayment(request), "PAYMENT_CONFLICT");
      await refused(bank.order.getPayment({ paymentId: request.paymentId }), "PAYMENT_NOT_FOUND");
      assert.equal(
        await bank.simulator.find("authorization", `${request.paymentId}/authorize`, AbortSignal.timeout(1000)),
        undefined,
      );
    });

    it("refuses to void what was captured", async () => {
      const request = await paid(bank, "captured");
      await refused(bank.order.voidPayment(command(request.paymentId)), "PAYMENT_STATE_CONFLICT");
    });

    it("refuses what does not exist or is too early", async () => {
      for (const call of [
        bank.order.capturePayment,
        bank.order.refundPayment,
        bank.order.releaseEscrow,
        bank.order.confirmPayment,
      ]) {
        await refused(call(command(newId())), "PAYMENT_NOT_FOUND", Code.NotFound);
      }
      const request = await paid(bank, "authorized");
      await refused(bank.order.refundPayment(command(request.paymentId)), "PAYMENT_STATE_CONFLICT");
      await refused(bank.order.releaseEscrow(command(request.paymentId)), "PAYMENT_STATE_CONFLICT");
      await bank.order.capturePayment(command(request.paymentId));
      await refused(bank.order.confirmPayment(command(request.paymentId)), "PAYMENT_STATE_CONFLICT");
    });

    it("lets an authorization run out after seven days", async () => {
      const request = await paid(bank, "authorized");
      bank.clock.advance(AUTHORIZATION_MS);
      await refused(bank.order.capturePayment(command(request.paymentId)), "AUTHORIZATION_EXPIRED", Code.FailedPrecondition);
      await bank.jobs.runDue();
      assert.equal(await state(request.paymentId), PaymentState.EXPIRED);
      await refused(bank.order.capturePayment(command(request.paymentId)), "AUTHORIZATION_EXPIRED");
      await bank.order.voidPayment(command(request.paymentId));
      const { transfers } = await bank.ops.listTransfers({ orderId: request.orderId });
      assert.equal(transfers[0]?.state, TransferState.EXPIRED);
      assert.deepEqual(await bank.events(request.paymentId), ["PaymentAuthorized", "PaymentExpired"]);
    });

    it("ends a payment whose authorization is gone at the processor when it is captured", async () => {
      const request = await paid(bank, "authorized", { token: "tok_capture_expired" });
      const capture = command(request.paymentId);
      await refused(bank.order.capturePayment(capture), "AUTHORIZATION_EXPIRED");
      await refused(bank.order.capturePayment(capture), "AUTHORIZATION_EXPIRED");
      assert.equal(await state(request.paymentId), PaymentState.EXPIRED);
    });

    for (const effect of ["charged", "not_charged"] as const) {
      it(`never guesses after a time-out that ${effect}: the repeat finds out`, async () => {
        const request = authorization({ token: `tok_timeout_${effect}` });
        const error = await refused(bank.order.authorizePayment(request), "PROCESSOR_OUTCOME_UNKNOWN", Code.Unavailable);
        assert.ok(retryAfterMsOf(error));
        assert.equal(await state(request.paymentId), PaymentState.AUTHORIZING);
        const { payment } = await bank.order.authorizePayment(request);
        assert.equal(payment?.state, PaymentState.AUTHORIZED);
        for (const step of ["capture", "refund"] as const) {
          const other = authorization({ token: `tok_${step}_timeout_${effect}` });
          await bank.order.authorizePayment(other);
          const capture = command(other.paymentId);
          if (step === "capture") {
            await refused(bank.order.capturePayment(capture), "PROCESSOR_OUTCOME_UNKNOWN");
          }
          assert.equal((await bank.order.capturePayment(capture)).payment?.state, PaymentState.CAPTURED);
          if (step === "refund") {
            const refund = command(other.paymentId);
            await refused(bank.order.refundPayment(refund), "PROCESSOR_OUTCOME_UNKNOWN");
            await refused(bank.order.releaseEscrow(command(other.paymentId)), "PAYMENT_STATE_CONFLICT");
            assert.equal((await bank.order.refundPayment(refund)).payment?.state, PaymentState.REFUNDED);
          }
        }
      });

      it(`finds out by itself after a time-out that ${effect}`, async () => {
        const request = authorization({ token: `tok_timeout_${effect}` });
        await refused(bank.order.authorizePayment(request), "PROCESSOR_OUTCOME_UNKNOWN");
        await bank.settle();
        assert.equal(await state(request.paymentId), PaymentState.AUTHORIZED);
      });

      it(`voids what a time-out that ${effect} left in doubt`, async () => {
        const request = authorization({ token: `tok_timeout_${effect}` });
        await refused(bank.order.authorizePayment(request), "PROCESSOR_OUTCOME_UNKNOWN");
        await bank.order.voidPayment(command(request.paymentId));
        assert.equal(await state(request.paymentId), PaymentState.VOIDED);
        const found = await bank.simulator.find("authorization", `${request.paymentId}/authorize`, AbortSignal.timeout(1000));
        assert.equal(found?.state, effect === "charged" ? "dropped" : undefined);
        await bank.settle();
        assert.equal((await bank.order.authorizePayment({ ...request, requestId: newId() })).payment?.state, PaymentState.VOIDED);
      });

      it(`voids at the processor although the void timed out and ${effect}`, async () => {
        const request = await paid(bank, "authorized", { token: `tok_void_timeout_${effect}` });
        await refused(bank.order.voidPayment(command(request.paymentId)), "PROCESSOR_OUTCOME_UNKNOWN");
        assert.equal(await state(request.paymentId), PaymentState.VOIDED);
        await bank.settle();
        const found = await bank.simulator.find("authorization", `${request.paymentId}/authorize`, AbortSignal.timeout(1000));
        assert.equal(found?.state, "dropped");
      });
    }

    it("refunds after a capture whose outcome was not known, by finishing it first", async () => {
      const request = await paid(bank, "authorized", { token: "tok_capture_timeout_not_charged" });
      await refused(bank.order.capturePayment(command(request.paymentId)), "PROCESSOR_OUTCOME_UNKNOWN");
      assert.equal((await bank.order.refundPayment(command(request.paymentId))).payment?.state, PaymentState.REFUNDED);
      await refused(bank.order.voidPayment(command(request.paymentId)), "PAYMENT_STATE_CONFLICT");
    });

    it("says that the processor is out of reach, and goes on when it is back", async () => {
      const request = authorization();
      failOnce(bank.faults, (point) => point === "authorize/before", unreachable);
      await refused(bank.order.authorizePayment(request), "PROCESSOR_UNAVAILABLE", Code.Unavailable);
      assert.equal((await bank.order.authorizePayment(request)).payment?.state, PaymentState.AUTHORIZED);
    });

    it("drops an authorization that arrives at the processor after the void", async () => {
      const request = authorization();
      failOnce(bank.faults, (point) => point === "authorize/before", timeout);
      await refused(bank.order.authorizePayment(request), "PROCESSOR_OUTCOME_UNKNOWN");
      await bank.order.voidPayment(command(request.paymentId));
      // The lost call gets there after all.
      const order = { amountMinor: 10_000n, currencyCode: "USD", paymentMethodToken: "tok_approved" };
      await bank.simulator.authorize(`${request.paymentId}/authorize`, order, AbortSignal.timeout(1000));
      await bank.settle();
      const found = await bank.simulator.find("authorization", `${request.paymentId}/authorize`, AbortSignal.timeout(1000));
      assert.equal(found?.state, "dropped");
    });

    it("answers a repeat that came while the job was finding out", async () => {
      const request = authorization({ token: "tok_timeout_charged" });
      await refused(bank.order.authorizePayment(request), "PROCESSOR_OUTCOME_UNKNOWN");
      let repeat: Promise<unknown> | undefined;
      const claimed = Promise.withResolvers<void>();
      let held = false;
      bank.faults.meanwhile = async (point) => {
        if (point === "find/after" && repeat === undefined) {
          // The job has its answer and is about to record it: now the repeat steps in.
          repeat = bank.order.authorizePayment(request, { timeoutMs: 3_000 });
          await claimed.promise;
        } else if (point === "claim/after" && repeat !== undefined) {
          claimed.resolve();
        } else if (point === "find/before" && repeat !== undefined && !held) {
          // And is slow to ask, so that the job is first.
          held = true;
          await new Promise((resolve) => setTimeout(resolve, 50));
        }
      };
      bank.clock.advance(2_000);
      await bank.jobs.runDue();
      assert.ok(repeat);
      await repeat;
      assert.equal(await state(request.paymentId), PaymentState.AUTHORIZED);
    });

    it("drops a payment that the buyer has not confirmed: a confirmation after it moves nothing", async () => {
      const request = authorization({ token: "tok_needs_confirmation" });
      const { payment } = await bank.order.authorizePayment(request);
      await bank.order.voidPayment(command(request.paymentId));
      bank.simulator.decide(payment?.confirmationUrl.split("/").at(-1) ?? "", true);
      const found = await bank.simulator.find("authorization", `${request.paymentId}/authorize`, AbortSignal.timeout(1000));
      assert.equal(found?.state, "dropped");
      await refused(bank.order.confirmPayment(command(request.paymentId)), "PAYMENT_STATE_CONFLICT");
    });

    it("answers concurrent repeats alike, and charges once", async () => {
      const request = authorization();
      const answers = await Promise.all(Array.from({ length: 20 }, () => bank.order.authorizePayment(request)));
      assert.ok(answers.every((answer) => answer.payment?.state === PaymentState.AUTHORIZED));
      const others = Array.from({ length: 20 }, () => bank.order.capturePayment(command(request.paymentId)));
      assert.ok((await Promise.all(others)).every((answer) => answer.payment?.state === PaymentState.CAPTURED));
      const books = await bank.simulator.books("USD", AbortSignal.timeout(1000));
      assert.equal(books.capturedMinor, 10_000n);
    });

    it("lets exactly one of capture and void win", async () => {
      for (let round = 0; round < 10; round++) {
        const request = await paid(bank, "authorized");
        const calls = Array.from({ length: 4 }, (_, i) =>
          (i + round) % 2 === 0
            ? bank.order.capturePayment(command(request.paymentId)).then(
                () => "captured",
                () => "",
              )
            : bank.order.voidPayment(command(request.paymentId)).then(
                () => "voided",
                () => "",
              ),
        );
        const won = new Set((await Promise.all(calls)).filter((name) => name !== ""));
        assert.equal(won.size, 1);
        const expected = won.has("captured") ? PaymentState.CAPTURED : PaymentState.VOIDED;
        assert.equal(await state(request.paymentId), expected);
      }
    });

    it("lets exactly one of refund and release win", async () => {
      for (let round = 0; round < 10; round++) {
        const request = await paid(bank, "captured");
        const calls = Array.from({ length: 4 }, (_, i) =>
          (i + round) % 2 === 0
            ? bank.order.refundPayment(command(request.paymentId)).then(
                () => "refunded",
                () => "",
              )
            : bank.order.releaseEscrow(command(request.paymentId)).then(
                () => "released",
                () => "",
              ),
        );
        const won = new Set((await Promise.all(calls)).filter((name) => name !== ""));
        assert.equal(won.size, 1);
        const expected = won.has("refunded") ? PaymentState.REFUNDED : PaymentState.RELEASED;
        assert.equal(await state(request.paymentId), expected);
      }
    });

    it("is open to order alone", async () => {
      const request = authorization({ listingTime: LISTED_2025 });
      await refused(bank.anonymous.authorizePayment(request), "PERMISSION_DENIED", Code.PermissionDenied);
      await refused(bank.account(newId()).authorizePayment(request), "PERMISSION_DENIED", Code.PermissionDenied);
      await refused(bank.ops.authorizePayment(request), "PERMISSION_DENIED");
      await refused(bank.order.checkLedger({}), "PERMISSION_DENIED");
      await bank.order.authorizePayment(request);
      await bank.account(newId(), { operator: true }).getPayment({ paymentId: request.paymentId });
    });
  });
}
