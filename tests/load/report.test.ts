import assert from "node:assert/strict";
import { Code, ConnectError } from "@connectrpc/connect";
import { OrderService } from "#gen/marketplace/order/v1/order_pb.ts";
import { failure, OVERLOADED } from "#runtime/errors.ts";
import { methodName } from "#runtime/policy.ts";
import { Usage } from "../../tools/checks/usage.ts";
import { CHANGE_SEEN } from "../../tools/load/flows.ts";
import { checkHost, type LoadPlan, sharesOf } from "../../tools/load/plan.ts";
import { CallFailed, Recorder, sumOf } from "../../tools/load/recorder.ts";
import { contractBudgets, printed, reportOf } from "../../tools/load/report.ts";

const PLACE = methodName(OrderService.method.placeOrder);
const plan: LoadPlan = {
  url: "http://localhost:8080",
  protocol: "grpc",
  rates: { browse: 0, sell: 0, buy: 3, watch: 1 },
  shape: "poisson",
  rampMs: 0,
  durationMs: 1000,
  sellers: [1, 2, 3].map((id) => ({ accountId: `s${id}`, token: "" })),
  buyers: [1, 2, 3].map((id) => ({ accountId: `b${id}`, token: "" })),
  connections: 1,
  inFlightMax: 10,
  retries: true,
  seed: 1,
};

/** Figures of calls that took so many ms each and ended so. */
async function counted(calls: readonly { ms: number; error?: ConnectError; measured?: boolean }[], name = PLACE) {
  const recorder = new Recorder();
  for (const { ms, error, measured = true } of calls) {
    const flight = { from: performance.now() - ms, measured };
    const work = () => (error === undefined ? Promise.resolve() : Promise.reject(error));
    await recorder.call(name, flight, work).catch((thrown: unknown) => assert.ok(thrown instanceof CallFailed));
  }
  return recorder;
}
const attempts = { calls: 1, sent: 1, again: 0 };
const many = (count: number, ms: number) => Array.from({ length: count }, () => ({ ms }));
const missedOf = async (...args: Parameters<typeof counted>) =>
  reportOf(plan, (await counted(...args)).figures(attempts)).missed.join("\n");

describe("The report of a load", () => {
  it("weighs by the promises that the contract makes of each method, of a stream's changes, too", () => {
    assert.deepEqual(contractBudgets(PLACE), { p99Ms: 2000, availabilityPpm: 999_500 });
    assert.deepEqual(contractBudgets(CHANGE_SEEN), { p99Ms: 1000, availabilityPpm: 999_000 });
  });

  it("misses nothing when the 99th percentile and the failures are within them", async () => {
    assert.equal(await missedOf([...many(99, 1_500), { ms: 60_000 }]), "");
  });

  it("misses a 99th percentile that is too high", async () => {
    assert.match(
      await missedOf([...many(98, 10), { ms: 60_000 }, { ms: 60_000 }]),
      /PlaceOrder: p99 is 60.0\d s, promised are 2.00 s/,
    );
  });

  it("misses availability for any failed call beyond the promise, whatever the reason", async () => {
    const error = failure(OVERLOADED);
    assert.match(
      await missedOf([...many(1_998, 10), { ms: 10, error }]),
      /1 of 1999 calls failed: 99.949 % available, promised are 99.950 %/,
    );
    assert.equal(await missedOf([...many(1_999, 10), { ms: 10, error }]), "");
    const other = new ConnectError("odd", Code.DataLoss);
    const figures = (
      await counted([
        { ms: 1, error },
        { ms: 1, error: other },
        { ms: 1, error },
      ])
    ).figures(attempts);
    assert.deepEqual(figures.calls[PLACE]?.failures, { OVERLOADED: 2, DataLoss: 1 });
  });

  it("measures no durations during the ramp, and counts failures all the same", async () => {
    assert.equal(await missedOf([{ ms: 60_000, measured: false }, ...many(10, 10)]), "");
    assert.match(await missedOf([{ ms: 1, error: failure(OVERLOADED), measured: false }, ...many(10, 10)]), /1 of 11 calls failed/);
  });

  it("misses arrivals that were turned away, a generator that was late, and a load that called nothing", async () => {
    const recorder = await counted(many(10, 1));
    Object.assign(recorder.flow("buy"), { arrived: 12, finished: 10, turnedAway: 2 });
    assert.match(reportOf(plan, recorder.figures(attempts)).missed.join(), /buy: 2 of 12 arrivals were not begun/);
    const late = await counted(many(10, 1));
    for (let count = 0; count < 10; count++) late.late(90);
    assert.match(reportOf(plan, late.figures(attempts)).missed.join(), /the generator began calls 90.\d ms late/);
    assert.deepEqual(reportOf(plan, new Recorder().figures(attempts)).missed, ["nothing was called"]);
  });

  it("is the same for several processes as for one", async () => {
    const [one, other] = [await counted(many(50, 5)), await counted([...many(50, 70), { ms: 1, error: failure(OVERLOADED) }])];
    const sum = sumOf([
      one.figures({ calls: 50, sent: 52, again: 2 }),
      JSON.parse(JSON.stringify(other.figures({ calls: 51, sent: 51, again: 0 }))),
    ]);
    const [row] = reportOf(plan, sum).methods;
    assert.deepEqual([row?.calls, row?.failed, row?.measured], [101, 1, 101]);
    assert.deepEqual(sum.attempts, { calls: 101, sent: 103, again: 2 });
    assert.ok((row?.p50 ?? 0) < (row?.p90 ?? 0));
  });

  it("says to people what came, what it took, why calls failed, and what is missed", async () => {
    const recorder = await counted([...many(10, 5), { ms: 3, error: failure(OVERLOADED) }]);
    Object.assign(recorder.flow("buy"), { arrived: 11, finished: 10, failed: 1 });
    const text = printed(reportOf(plan, recorder.figures({ calls: 1_200, sent: 1_203, again: 3 })));
    for (const pattern of [
      /^buy +3 +11 +10 +1 +0$/m,
      /^OrderService\/PlaceOrder +11 +1 .* 2\.00 s .* 99\.950 %$/m,
      /^ +OrderService\/PlaceOrder +OVERLOADED +1$/m,
      /^Attempts: 1,203 sent for 1,200 calls, 3 of them again\.$/m,
      /^Missed:\n {2}OrderService\/PlaceOrder: 1 of 11 calls failed/m,
    ]) {
      assert.match(text, pattern);
    }
  });
});

describe("A plan", () => {
  it("shared by several processes is the plan", () => {
    const shares = sharesOf(plan, 3);
    assert.deepEqual(
      shares.map(({ rates }) => rates.buy),
      [1, 1, 1],
    );
    assert.deepEqual(
      shares.flatMap(({ buyers }) => buyers),
      plan.buyers,
    );
    assert.equal(new Set(shares.map(({ seed }) => seed)).size, 3);
  });

  it("loads this machine and private networks, and others only when their name is said once more", () => {
    for (const host of [
      "localhost",
      "127.0.0.1",
      "[::1]",
      "10.2.3.4",
      "192.168.0.9",
      "172.20.0.1",
      "souk-order",
      "souk.shop.svc",
      "a.b.svc.cluster.local",
      "[fd00::7]",
    ]) {
      checkHost(`http://${host}:8080`, undefined);
    }
    for (const host of [
      "shop.example",
      "8.8.8.8",
      "172.32.0.1",
      "127.0.0.1.nip.io",
      "svc.example",
      "[2001:db8::1]",
      "[fc::1]",
      "[::ffff:808:808]",
      "1.10.0.1",
    ]) {
      assert.throws(() => checkHost(`http://${host}`, undefined), Usage, host);
      assert.throws(() => checkHost(`http://${host}`, "other.example"), Usage);
      checkHost(`http://${host}`, host.replace(/[[\]]/g, ""));
    }
  });
});
