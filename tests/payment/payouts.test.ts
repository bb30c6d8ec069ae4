import assert from "node:assert/strict";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { LedgerAccountKind, PayoutState, TransferKind } from "#gen/marketplace/payment/v1/payment_pb.ts";
import { metadataOf } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { carriers } from "../support/server.ts";
import { type Bank, LISTED_2026, openBank, paid, refused } from "./bank.ts";

for (const carrier of carriers) {
  describe(`balances and payouts (${carrier})`, () => {
    let bank: Bank;
    const seller = newId();
    beforeEach(async () => {
      bank = await openBank(carrier);
      bank.destinations.set(`${seller}/USD`, { token: "bank_demo_ada", currencyCode: "USD" });
    });
    afterEach(async () => {
      await bank.checkBooks();
      await bank.close();
    });

    const usd = (amountMinor: bigint) => ({ currencyCode: "USD", amountMinor });
    const client = () => bank.account(seller);
    const available = async () => (await client().getBalance({})).balances.map((b) => b.available?.amountMinor);

    it("has no balance before the first sale, and one for each currency after", async () => {
      assert.deepEqual((await client().getBalance({})).balances, []);
      await paid(bank, "released", { sellerId: seller });
      await paid(bank, "released", { sellerId: seller, currencyCode: "JPY", amounts: [3_000n] });
      const { balances } = await client().getBalance({});
      assert.deepEqual(
        balances.map((b) => [b.available?.currencyCode, b.available?.amountMinor, b.payingOut?.amountMinor]),
        [
          ["JPY", 2_700n, 0n],
          ["USD", 9_000n, 0n],
        ],
      );
    });

    it("takes the money at once and is paid when it arrived", async () => {
      await paid(bank, "released", { sellerId: seller });
      const request = { requestId: newId(), amount: usd(4_000n) };
      const { payout } = await client().createPayout(request);
      assert.equal(payout?.state, PayoutState.PENDING);
      assert.equal(payout.destinationHint, "_ada");
      const [balance] = (await client().getBalance({})).balances;
      assert.deepEqual([balance?.available?.amountMinor, balance?.payingOut?.amountMinor], [5_000n, 4_000n]);
      await bank.settle();
      const { payout: later } = await client().getPayout({ payoutId: payout.payoutId });
      assert.equal(later?.state, PayoutState.PAID);
      assert.ok(later.endTime);
      assert.deepEqual(await available(), [5_000n]);
      assert.deepEqual((await client().createPayout(request)).payout, payout);
      assert.deepEqual(await bank.events(payout.payoutId), ["PayoutCreated", "PayoutPaid"]);
    });

    it("gives the money back when the bank refuses", async () => {
      bank.destinations.set(`${seller}/USD`, { token: "bank_fails", currencyCode: "USD" });
      await paid(bank, "released", { sellerId: seller });
      const { payout } = await client().createPayout({ requestId: newId(), amount: usd(4_000n) });
      await bank.settle();
      const { payout: later } = await client().getPayout({ payoutId: payout?.payoutId ?? "" });
      assert.equal(later?.state, PayoutState.FAILED);
      assert.equal(later.failureReason, "DESTINATION_REFUSED");
      assert.deepEqual(await available(), [9_000n]);
      assert.deepEqual(await bank.events(later.payoutId), ["PayoutCreated", "PayoutFailed"]);
      const { entries } = await client().listStatementEntries({ currencyCode: "USD" });
      assert.deepEqual(
        entries.map((e) => [e.kind, e.incoming, e.amount?.amountMinor, e.balanceAfter?.amountMinor]),
        [
          [TransferKind.PAYOUT, true, 4_000n, 9_000n],
          [TransferKind.PAYOUT, false, 4_000n, 5_000n],
          [TransferKind.SALE, true, 9_000n, 9_000n],
        ],
      );
    });

    for (const token of ["bank_timeout_paid", "bank_timeout_not_paid"]) {
      it(`sends the money once although the bank is ${token}`, async () => {
        bank.destinations.set(`${seller}/USD`, { token, currencyCode: "USD" });
        await paid(bank, "released", { sellerId: seller });
        await client().createPayout({ requestId: newId(), amount: usd(9_000n) });
        await bank.settle();
        assert.equal((await bank.simulator.books("USD", AbortSignal.timeout(1000))).paidOutMinor, 9_000n);
        assert.deepEqual(await available(), [0n]);
      });
    }

    it("pays out no more than there is, however many ask at once", async () => {
      await refused(client().createPayout({ requestId: newId(), amount: usd(1n) }), "BALANCE_TOO_LOW", Code.FailedPrecondition);
      await paid(bank, "released", { sellerId: seller });
      const error = await refused(client().createPayout({ requestId: newId(), amount: usd(9_001n) }), "BALANCE_TOO_LOW");
      assert.deepEqual(metadataOf(error), { available_minor: "9000" });
      const tries = Array.from({ length: 20 }, () => client().createPayout({ requestId: newId(), amount: usd(1_000n) }));
      const won = (await Promise.allSettled(tries)).filter((t) => t.status === "fulfilled");
      assert.equal(won.length, 9);
      assert.deepEqual(await available(), [0n]);
      await bank.settle();
    });

    it("makes one payout of many repeats at once", async () => {
      await paid(bank, "released", { sellerId: seller });
      const request = { requestId: newId(), amount: usd(100n) };
      const answers = await Promise.all(Array.from({ length: 10 }, () => client().createPayout(request)));
      assert.equal(new Set(answers.map((a) => a.payout?.payoutId)).size, 1);
      await refused(client().createPayout({ ...request, amount: usd(101n) }), "REQUEST_ID_REUSED", Code.AlreadyExists);
      await bank.settle();
    });

    it("needs a destination in the payout's currency; a repeat needs none", async () => {
      await paid(bank, "released", { sellerId: seller });
      const request = { requestId: newId(), amount: usd(100n) };
      const first = await client().createPayout(request);
      bank.destinations.delete(`${seller}/USD`);
      assert.deepEqual(await client().createPayout(request), first);
      await refused(client().createPayout({ ...request, requestId: newId() }), "PAYOUT_DESTINATION_MISSING");
      bank.destinations.set(`${seller}/USD`, { token: "bank_demo_ada", currencyCode: "JPY" });
      const error = await refused(client().createPayout({ ...request, requestId: newId() }), "PAYOUT_CURRENCY_MISMATCH");
      assert.deepEqual(metadataOf(error), { currency_code: "JPY" });
      await bank.settle();
    });

    it("shows payouts to their account and to operators only", async () => {
      await paid(bank, "released", { sellerId: seller });
      const { payout } = await client().createPayout({ requestId: newId(), amount: usd(100n) });
      const payoutId = payout?.payoutId ?? "";
      await refused(bank.account(newId()).getPayout({ payoutId }), "PAYOUT_NOT_FOUND", Code.NotFound);
      await refused(client().getPayout({ payoutId: newId() }), "PAYOUT_NOT_FOUND", Code.NotFound);
      await bank.account(newId(), { operator: true }).getPayout({ payoutId });
      assert.deepEqual((await bank.account(newId()).listPayouts({})).payouts, []);
      await refused(bank.anonymous.getBalance({}), "TOKEN_MISSING");
      await bank.settle();
    });

    it("pages payouts and statements, newest first, stable under new ones", async () => {
      await paid(bank, "released", { sellerId: seller });
      for (let i = 1; i <= 5; i++) {
        await client().createPayout({ requestId: newId(), amount: usd(BigInt(i)) });
        bank.clock.advance(1);
      }
      const first = await client().listPayouts({ pageSize: 2 });
      await client().createPayout({ requestId: newId(), amount: usd(6n) });
      const second = await client().listPayouts({ pageSize: 3, pageToken: first.nextPageToken });
      assert.deepEqual(
        [...first.payouts, ...second.payouts].map((p) => p.amount?.amountMinor),
        [5n, 4n, 3n, 2n, 1n],
      );
      assert.equal(second.nextPageToken, "");
      const lines = await client().listStatementEntries({ currencyCode: "USD", pageSize: 4 });
      await client().createPayout({ requestId: newId(), amount: usd(7n) });
      const rest = await client().listStatementEntries({ currencyCode: "USD", pageSize: 4, pageToken: lines.nextPageToken });
      assert.deepEqual(
        [...lines.entries, ...rest.entries].map((e) => e.amount?.amountMinor),
        [6n, 5n, 4n, 3n, 2n, 1n, 9_000n],
      );
      const forged = client().listStatementEntries({ currencyCode: "JPY", pageToken: lines.nextPageToken });
      await refused(forged, "PAGE_TOKEN_INVALID", Code.InvalidArgument);
      await refused(client().listPayouts({ pageToken: "nonsense" }), "PAGE_TOKEN_INVALID", Code.InvalidArgument);
      await bank.settle();
    });

    it("tells the fee schedule in force at a time", async () => {
      const at = async (ms: number) => (await bank.anonymous.getFeeSchedule({ atTime: timestampFromMs(ms) })).feeSchedule;
      assert.equal((await at(Date.UTC(2025, 11, 31)))?.version, 1);
      // A part of a millisecond before a schedule is still before it.
      const justBefore = { ...timestampFromMs(Date.UTC(2026, 0, 1) - 1000), nanos: 999_999_999 };
      assert.equal((await bank.anonymous.getFeeSchedule({ atTime: justBefore })).feeSchedule?.version, 1);
      assert.equal((await at(Date.UTC(2026, 0, 1)))?.version, 2);
      const second = await at(LISTED_2026);
      assert.equal(second?.feeBasisPoints, 1000);
      assert.deepEqual(second.minimumFees.map((m) => [m.currencyCode, m.amountMinor]).sort(), [
        ["JPY", 50n],
        ["USD", 50n],
      ]);
      assert.ok((await bank.anonymous.getFeeSchedule({})).feeSchedule);
      await refused(bank.anonymous.getFeeSchedule({ atTime: timestampFromMs(0) }), "FEE_SCHEDULE_NOT_FOUND", Code.NotFound);
    });

    it("sums the ledger by kind and currency", async () => {
      await paid(bank, "released", { sellerId: seller });
      await paid(bank, "authorized", { sellerId: seller, amounts: [77n] });
      const { rows } = await bank.ops.getTrialBalance({});
      assert.equal(rows.length, 7);
      const row = (kind: LedgerAccountKind) => rows.find((r) => r.kind === kind && r.currencyCode === "USD");
      const processor = row(LedgerAccountKind.PROCESSOR);
      assert.deepEqual([processor?.debitsPostedMinor, processor?.debitsPendingMinor], [10_000n, 77n]);
      assert.equal(row(LedgerAccountKind.ESCROW)?.debitsPostedMinor, 10_000n);
      assert.equal(row(LedgerAccountKind.SELLER)?.creditsPostedMinor, 9_000n);
      assert.equal(row(LedgerAccountKind.FEES)?.creditsPostedMinor, 1_000n);
    });

    it("leaves methods of later steps unimplemented", async () => {
      const operator = bank.account(newId(), { operator: true });
      await refused(operator.listChargebacks({}), "UNIMPLEMENTED", Code.Unimplemented);
      await refused(operator.reconcileDay({ requestId: newId(), day: "2026-01-01" }), "UNIMPLEMENTED");
    });
  });
}
