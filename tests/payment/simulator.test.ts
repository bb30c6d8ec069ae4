import assert from "node:assert/strict";
import { join } from "node:path";
import { manualClock } from "#runtime/clock.ts";
import { newId } from "#runtime/ids.ts";
import { ProcessorTimeout } from "../../services/payment/processor.ts";
import { openSimulator, PAYOUT_DELAY_MS, type Simulator } from "../../services/payment/simulator.ts";
import { simulatorDoors } from "../../services/payment/simulator-doors.ts";
import { temporaryFolder } from "../support/database.ts";

describe("the processor's simulator", () => {
  const clock = manualClock();
  const signal = new AbortController().signal;
  let simulator: Simulator;

  beforeEach(() => {
    simulator = openSimulator({ file: ":memory:", clock, baseUrl: () => "http://shop.test" });
  });
  afterEach(() => simulator.close());

  const order = (paymentMethodToken: string) => ({ amountMinor: 500n, currencyCode: "USD", paymentMethodToken });
  const payout = (destinationToken: string) => ({ amountMinor: 500n, currencyCode: "USD", destinationToken });

  it("answers each token in its way", async () => {
    const outcomes = await Promise.all(
      ["tok_approved", "tok_declined", "tok_insufficient_funds", "tok_other"].map((token) =>
        simulator.authorize(newId(), order(token), signal),
      ),
    );
    assert.deepEqual(outcomes, [
      { state: "approved" },
      { state: "declined", reason: "PAYMENT_DECLINED" },
      { state: "declined", reason: "INSUFFICIENT_FUNDS" },
      { state: "declined", reason: "PAYMENT_METHOD_INVALID" },
    ]);
  });

  for (const [effect, found] of [
    ["charged", { state: "approved" }],
    ["not_charged", undefined],
  ] as const) {
    it(`times out the first time and ${effect}`, async () => {
      const key = newId();
      await assert.rejects(simulator.authorize(key, order(`tok_timeout_${effect}`), signal), ProcessorTimeout);
      assert.deepEqual(await simulator.find("authorization", key, signal), found);
      assert.deepEqual(await simulator.authorize(key, order(`tok_timeout_${effect}`), signal), { state: "approved" });
    });
  }

  it("does a thing once under one key, and refuses another thing under it", async () => {
    const [a, c] = [newId(), newId()];
    await simulator.authorize(a, order("tok_approved"), signal);
    await simulator.authorize(a, order("tok_approved"), signal);
    await assert.rejects(simulator.authorize(a, { ...order("tok_approved"), amountMinor: 1n }, signal), /something else/);
    await simulator.capture(c, a, signal);
    await simulator.capture(c, a, signal);
    await simulator.refund(newId(), a, signal);
    await assert.rejects(simulator.refund(newId(), a, signal), /UNIQUE/);
    assert.deepEqual(await simulator.books("USD", signal), { capturedMinor: 500n, refundedMinor: 500n, paidOutMinor: 0n });
    assert.deepEqual(await simulator.books("JPY", signal), { capturedMinor: 0n, refundedMinor: 0n, paidOutMinor: 0n });
  });

  it("captures nothing that was voided", async () => {
    const a = newId();
    await simulator.authorize(a, order("tok_approved"), signal);
    assert.deepEqual(await simulator.void(newId(), a, signal), { state: "voided" });
    assert.deepEqual(await simulator.capture(newId(), a, signal), { state: "expired" });
    assert.deepEqual(await simulator.void(newId(), newId(), signal), { state: "not_found" });
  });

  it("pays out after a moment, or not at all", async () => {
    const [pays, fails] = [newId(), newId()];
    assert.deepEqual(await simulator.payout(pays, payout("bank_demo_ada"), signal), { state: "pending" });
    assert.deepEqual(await simulator.payout(fails, payout("bank_fails"), signal), {
      state: "failed",
      reason: "DESTINATION_REFUSED",
    });
    clock.advance(PAYOUT_DELAY_MS);
    assert.deepEqual(await simulator.find("payout", pays, signal), { state: "paid" });
    assert.equal((await simulator.books("USD", signal)).paidOutMinor, 500n);
  });

  it("times out when the caller's patience is over", async () => {
    const slow = openSimulator({ file: ":memory:", clock, baseUrl: () => "", latencyMs: 60_000 });
    await assert.rejects(slow.authorize(newId(), order("tok_approved"), AbortSignal.timeout(5)), ProcessorTimeout);
    slow.close();
  });

  it("remembers after a restart", async () => {
    const { path, remove } = temporaryFolder();
    const file = join(path, "below", "processor.db");
    const key = newId();
    const first = openSimulator({ file, clock, baseUrl: () => "" });
    await first.authorize(key, order("tok_approved"), signal);
    first.close();
    const second = openSimulator({ file, clock, baseUrl: () => "" });
    assert.deepEqual(await second.find("authorization", key, signal), { state: "approved" });
    second.close();
    remove();
  });

  describe("the confirmation page", () => {
    const visit = async (method: "GET" | "POST", url: string) => {
      const door = simulatorDoors(simulator).find((d) => d.method === method && new URL(url).pathname.startsWith(d.path));
      assert.ok(door);
      const response = await door.handle(new Request(url, { method }));
      return { status: response.status, text: await response.text() };
    };
    const confirmation = async (key: string) => {
      const outcome = await simulator.authorize(key, order("tok_needs_confirmation"), signal);
      assert.equal(outcome.state, "confirm");
      return outcome.confirmationUrl;
    };

    it("shows the amount with two buttons, and takes the answer once", async () => {
      const key = newId();
      const url = await confirmation(key);
      assert.match(url, /^http:\/\/shop\.test\/simulator\/confirmations\/[0-9a-f]{32}$/);
      const page = await visit("GET", url);
      assert.equal(page.status, 200);
      assert.match(page.text, /5\.00 USD/);
      assert.match(page.text, new RegExp(`formaction="${new URL(url).pathname}/confirm"`));
      assert.match(page.text, new RegExp(`formaction="${new URL(url).pathname}/decline"`));
      assert.match((await visit("POST", `${url}/confirm`)).text, /Confirmed/);
      assert.match((await visit("POST", `${url}/decline`)).text, /Confirmed/);
      assert.deepEqual(await simulator.find("authorization", key, signal), { state: "approved" });
    });

    it("declines", async () => {
      const key = newId();
      await visit("POST", `${await confirmation(key)}/decline`);
      assert.deepEqual(await simulator.find("authorization", key, signal), { state: "declined", reason: "PAYMENT_DECLINED" });
    });

    it("is not there for ids that nobody gave out, and does nothing it was not asked", async () => {
      assert.equal((await visit("GET", "http://shop.test/simulator/confirmations/")).status, 404);
      assert.equal((await visit("GET", "http://shop.test/simulator/confirmations/00%3Cscript")).status, 404);
      const url = await confirmation(newId());
      assert.equal((await visit("POST", `${url}/steal`)).status, 404);
      assert.equal((await visit("POST", url)).status, 404);
      assert.equal((await visit("POST", `${url}/confirm/x`)).status, 404);
    });
  });
});
