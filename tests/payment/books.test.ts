import assert from "node:assert/strict";
import fc from "fast-check";
import { newId } from "#runtime/ids.ts";
import { carriers } from "../support/server.ts";
import { authorization, type Bank, Crash, openBank, paid, timeout, unreachable } from "./bank.ts";

const PAYMENTS = 3;

type Step = "authorize" | "confirm" | "capture" | "void" | "refund" | "release" | "payout" | "jobs" | "wait" | "decide";

const steps: readonly Step[] = [
  "authorize",
  "authorize",
  "confirm",
  "capture",
  "capture",
  "void",
  "refund",
  "release",
  "release",
  "payout",
  "jobs",
  "wait",
  "decide",
];

const tokens = [
  "tok_approved",
  "tok_approved",
  "tok_declined",
  "tok_needs_confirmation",
  "tok_timeout_charged",
  "tok_timeout_not_charged",
  "tok_capture_timeout_charged",
  "tok_capture_timeout_not_charged",
  "tok_refund_timeout_charged",
  "tok_void_timeout_not_charged",
  "tok_capture_expired",
];

const command = fc.record({
  step: fc.constantFrom(...steps),
  payment: fc.nat(PAYMENTS - 1),
  amount: fc.bigInt({ min: 1n, max: 6_000n }),
});

const batch = fc.record({
  commands: fc.array(command, { minLength: 1, maxLength: 5 }),
  /** Which point fails, and how; far away: none. */
  fault: fc.record({ point: fc.nat(24), kind: fc.constantFrom("crash", "timeout", "unreachable") }),
});

for (const carrier of carriers)
  describe(`the books (${carrier})`, () => {
    it("are right after every step of any commands at once, with faults anywhere, and everything comes to an end", async () => {
      await fc.assert(
        fc.asyncProperty(
          fc.array(fc.constantFrom(...tokens), { minLength: PAYMENTS, maxLength: PAYMENTS }),
          fc.array(batch, { minLength: 1, maxLength: 8 }),
          async (chosen, batches) => {
            const bank = await openBank(carrier);
            try {
              await play(bank, chosen, batches);
            } finally {
              await bank.close();
            }
          },
        ),
        { numRuns: 25 },
      );
    }).timeout(120_000);

    /** A finding that the check must have when somebody changes a row behind the ledger's back. */
    const forgeries: readonly [string, RegExp, (bank: Bank) => Promise<unknown>][] = [
      [
        "a balance without a transfer",
        /does not agree with its transfers/,
        (bank) =>
          bank.database.sql
            .updateTable("ledger_account")
            .set({ credits_posted_minor: 99_999n })
            .where("kind", "=", "FEES")
            .execute(),
      ],
      [
        "a payment whose state does not fit its transfers",
        /the ledger's escrow is 10000, and by the payments and payouts it is 0/,
        (bank) => bank.database.sql.updateTable("payment").set({ state: "REFUNDED" }).where("state", "=", "CAPTURED").execute(),
      ],
      [
        "a transfer that is gone",
        /does not agree with its transfers/,
        (bank) => bank.database.sql.deleteFrom("ledger_transfer").where("kind", "=", "SALE").execute(),
      ],
      [
        "a fee that is not in the payment",
        /the ledger's fees is 1000/,
        (bank) => bank.database.sql.updateTable("payment").set({ fee_minor: 1n }).where("state", "=", "RELEASED").execute(),
      ],
      [
        "a statement that does not end in the balance",
        /does not end in what is available/,
        (bank) => bank.database.sql.updateTable("statement_entry").set({ balance_after_minor: 1n }).execute(),
      ],
      [
        "money that the processor took and we know nothing of",
        /the processor has captured 20500, and by our ledger it is 20000/,
        async (bank) => {
          const signal = AbortSignal.timeout(1000);
          const order = { amountMinor: 500n, currencyCode: "USD", paymentMethodToken: "tok_approved" };
          await bank.simulator.authorize("other", order, signal);
          await bank.simulator.capture("other/capture", "other", signal);
        },
      ],
    ];

    for (const [name, finding, forge] of forgeries) {
      it(`show ${name}`, async () => {
        const bank = await openBank(carrier);
        await paid(bank, "captured");
        await paid(bank, "released");
        await bank.checkBooks();
        await forge(bank);
        const { findings } = await bank.ops.checkLedger({});
        assert.match(findings.join("\n"), finding);
        await bank.close();
      });
    }

    it("allow exactly what is under way between us and the processor", async () => {
      const bank = await openBank(carrier);
      const request = authorization({ token: "tok_capture_timeout_charged" });
      await bank.order.authorizePayment(request);
      await assert.rejects(bank.order.capturePayment({ paymentId: request.paymentId, requestId: "c" }));
      // Captured there, under way here: no finding. One unit more there is one.
      await bank.checkBooks();
      const signal = AbortSignal.timeout(1000);
      await bank.simulator.authorize("x", { amountMinor: 1n, currencyCode: "USD", paymentMethodToken: "tok_approved" }, signal);
      await bank.simulator.capture("x/capture", "x", signal);
      const { findings } = await bank.ops.checkLedger({});
      assert.deepEqual(findings, ["In USD the processor has captured 10001, and by our ledger it is between 0 and 10000."]);
      await bank.close();
    });
  });

type Batch = typeof batch extends fc.Arbitrary<infer B> ? B : never;

async function play(bank: Bank, chosen: readonly string[], batches: readonly Batch[]): Promise<void> {
  const sellerId = newId();
  bank.destinations.set(`${sellerId}/USD`, { token: "bank_demo", currencyCode: "USD" });
  const requests = chosen.map((token) => authorization({ token, sellerId }));
  const seller = bank.account(sellerId);
  const run = (step: Step, index: number, amountMinor: bigint): Promise<unknown> => {
    const request = requests[index] as (typeof requests)[number];
    const named = { paymentId: request.paymentId, requestId: newId() };
    const options = { timeoutMs: 2_000 };
    switch (step) {
      case "authorize":
        return bank.order.authorizePayment({ ...request, requestId: newId() }, options);
      case "confirm":
        return bank.order.confirmPayment(named, options);
      case "capture":
        return bank.order.capturePayment(named, options);
      case "void":
        return bank.order.voidPayment(named, options);
      case "refund":
        return bank.order.refundPayment(named, options);
      case "release":
        return bank.order.releaseEscrow(named, options);
      case "payout":
        return seller.createPayout({ requestId: newId(), amount: { currencyCode: "USD", amountMinor } }, options);
      case "jobs":
        return bank.jobs.runDue();
      case "wait":
        bank.clock.advance(25_000);
        return Promise.resolve();
      case "decide":
        return decide(bank, request.paymentId, amountMinor % 2n === 0n);
    }
  };
  for (const { commands, fault } of batches) {
    let passed = 0;
    bank.faults.at = (point) => {
      const atProcessor = !/^(claim|command|transaction)/.test(point);
      if (passed++ !== fault.point) {
        return undefined;
      }
      if (fault.kind === "crash" || !atProcessor) {
        return new Crash(point);
      }
      return fault.kind === "unreachable" && point.endsWith("/before") ? unreachable() : timeout();
    };
    await Promise.allSettled(commands.map(({ step, payment, amount }) => run(step, payment, amount)));
    bank.faults.at = () => undefined;
    await bank.checkBooks();
  }
  await bank.settle();
  await bank.checkBooks();
  for (const { paymentId } of requests) {
    await agreesWithProcessor(bank, paymentId);
  }
}

async function decide(bank: Bank, paymentId: string, confirmed: boolean): Promise<void> {
  const { payment } = await bank.order.getPayment({ paymentId });
  bank.simulator.decide(payment?.confirmationUrl.split("/").at(-1) ?? "", confirmed);
}

/** When nothing is under way, the processor and we say the same of a payment. */
async function agreesWithProcessor(bank: Bank, paymentId: string): Promise<void> {
  const signal = AbortSignal.timeout(5_000);
  const row = await bank.database.sql
    .selectFrom("payment")
    .select(["state", "order_id"])
    .where("payment_id", "=", paymentId)
    .executeTakeFirst();
  const authorized = await bank.simulator.find("authorization", `${paymentId}/authorize`, signal);
  const captured = await bank.simulator.find("capture", `${paymentId}/capture`, signal);
  const refunded = await bank.simulator.find("refund", `${paymentId}/refund`, signal);
  const state = row?.state;
  const took = state === "CAPTURED" || state === "RELEASED" || state === "REFUNDED";
  assert.equal(captured?.state === "captured", took);
  assert.equal(refunded !== undefined, state === "REFUNDED");
  if (state === undefined) {
    assert.equal(authorized, undefined);
  } else if (state === "VOIDED" || state === "EXPIRED") {
    assert.ok(authorized === undefined || authorized.state === "dropped" || authorized.state === "declined");
  } else if (state === "AUTHORIZED") {
    assert.equal(authorized?.state, "approved");
  }
  assert.notEqual(state, "AUTHORIZING");
}
