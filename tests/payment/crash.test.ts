import assert from "node:assert/strict";
import { PaymentState, PayoutState } from "#gen/marketplace/payment/v1/payment_pb.ts";
import { newId } from "#runtime/ids.ts";
import { carriers } from "../support/server.ts";
import { authorization, type Bank, Crash, openBank, paid, timeout, unreachable } from "./bank.ts";

/** Each step repeats until it succeeds, as a saga does, with the same request_id; between tries time passes and jobs run. */
async function insist<T>(bank: Bank, step: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await step();
    } catch (error) {
      if (attempt === 6) {
        throw error;
      }
      bank.clock.advance(25_000);
      await bank.jobs.runDue();
    }
  }
}

interface Scenario {
  readonly name: string;
  /** Brings a payment to its end and expects it there. */
  run(bank: Bank): Promise<void>;
}

const of = (paymentId: string, step: string) => ({ paymentId, requestId: `${paymentId}/${step}` });

async function reaches(bank: Bank, paymentId: string, state: PaymentState): Promise<void> {
  await bank.settle();
  assert.equal((await bank.order.getPayment({ paymentId })).payment?.state, state);
}

const scenarios: readonly Scenario[] = [
  {
    name: "a sale",
    async run(bank) {
      const request = authorization();
      const { paymentId } = request;
      await insist(bank, () => bank.order.authorizePayment(request));
      await insist(bank, () => bank.order.capturePayment(of(paymentId, "capture")));
      await insist(bank, () => bank.order.releaseEscrow(of(paymentId, "release")));
      await reaches(bank, paymentId, PaymentState.RELEASED);
    },
  },
  {
    name: "a refund",
    async run(bank) {
      const request = authorization();
      const { paymentId } = request;
      await insist(bank, () => bank.order.authorizePayment(request));
      await insist(bank, () => bank.order.capturePayment(of(paymentId, "capture")));
      await insist(bank, () => bank.order.refundPayment(of(paymentId, "refund")));
      await reaches(bank, paymentId, PaymentState.REFUNDED);
    },
  },
  {
    name: "a void",
    async run(bank) {
      const request = authorization();
      const { paymentId } = request;
      // The authorization is tried once: whatever became of it, the void ends it.
      await bank.order.authorizePayment(request).catch(() => undefined);
      await insist(bank, () => bank.order.voidPayment(of(paymentId, "void")));
      await bank.settle();
      const found = await bank.simulator.find("authorization", `${paymentId}/authorize`, AbortSignal.timeout(1000));
      assert.ok(found === undefined || found.state === "dropped");
      const row = await bank.database.sql
        .selectFrom("payment")
        .select("state")
        .where("payment_id", "=", paymentId)
        .executeTakeFirst();
      assert.equal(row?.state, "VOIDED");
    },
  },
  {
    name: "a confirmation",
    async run(bank) {
      const request = authorization({ token: "tok_needs_confirmation" });
      const { paymentId } = request;
      const { payment } = await insist(bank, () => bank.order.authorizePayment(request));
      bank.simulator.decide(payment?.confirmationUrl.split("/").at(-1) ?? "", true);
      await insist(bank, () => bank.order.confirmPayment(of(paymentId, "confirm")));
      await reaches(bank, paymentId, PaymentState.AUTHORIZED);
    },
  },
  {
    name: "a payout",
    async run(bank) {
      const sellerId = newId();
      bank.destinations.set(`${sellerId}/USD`, { token: "bank_demo", currencyCode: "USD" });
      const at = bank.faults.at;
      bank.faults.at = () => undefined;
      await paid(bank, "released", { sellerId });
      bank.faults.points.length = 0;
      bank.faults.at = at;
      const request = { requestId: newId(), amount: { currencyCode: "USD", amountMinor: 500n } };
      const { payout } = await insist(bank, () => bank.account(sellerId).createPayout(request));
      await bank.settle();
      const later = await bank.account(sellerId).getPayout({ payoutId: payout?.payoutId ?? "" });
      assert.equal(later.payout?.state, PayoutState.PAID);
      const { balances } = await bank.account(sellerId).getBalance({});
      assert.equal(balances[0]?.available?.amountMinor, 8_500n);
    },
  },
];

/** The most points that a scenario may have: so that none runs away. */
const POINTS_MAX = 60;

for (const carrier of carriers)
  describe(`a payment whose process dies (${carrier})`, () => {
    let bank: Bank;
    before(async () => {
      bank = await openBank(carrier);
    });
    after(() => bank.close());

    for (const scenario of scenarios) {
      it(`converges wherever it happened in ${scenario.name}`, async () => {
        for (let index = 0; index < POINTS_MAX; index++) {
          bank.faults.points.length = 0;
          let died = "";
          bank.faults.at = (point, i) => {
            if (died === "" && i >= index) {
              died = point;
              return new Crash(`died at ${point}`);
            }
            return undefined;
          };
          await scenario.run(bank).catch((error: unknown) => {
            throw new Error(`after the process died at point ${index}, ${died}`, { cause: error });
          });
          bank.faults.at = () => undefined;
          await bank.checkBooks();
          if (died === "") {
            assert.ok(index >= 4, "the scenario has points");
            return;
          }
        }
        assert.fail("the scenario never ends");
      });

      for (const [name, error] of [
        ["does not answer", timeout],
        ["is out of reach", unreachable],
      ] as const) {
        it(`converges when the processor ${name} at any call of ${scenario.name}`, async () => {
          for (let index = 0; index < POINTS_MAX; index++) {
            bank.faults.points.length = 0;
            let failed = false;
            let calls = 0;
            bank.faults.at = (point) => {
              const fits = /^(authorize|capture|void|refund|payout|find)\/(before|after)$/.exec(point);
              // Out of reach means that the call took no effect.
              if (failed || fits === null || (error === unreachable && fits[2] === "after") || calls++ < index) {
                return undefined;
              }
              failed = true;
              return error();
            };
            await scenario.run(bank);
            bank.faults.at = () => undefined;
            await bank.checkBooks();
            if (!failed) {
              return;
            }
          }
          assert.fail("the scenario never ends");
        });
      }
    }
  });
