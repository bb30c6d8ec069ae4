import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { amplification, HOPS } from "./amplification.ts";
import { canaryGetsItsShare } from "./canary.ts";
import { callsGoOn, certificatesRotate } from "./certificates.ts";
import { withoutControlPlane } from "./disaster.ts";
import { type Lab, openLab, openPlainLab } from "./lab.ts";
import { badReplicaIsLeftOutAndComesBack } from "./outliers.ts";
import { secondsToEffect } from "./policy-effect.ts";
import { report, seconds, table } from "./report.ts";
import { commandTakesEffectOnce, deadlineEndsTheChain, PROTOCOLS } from "./retries.ts";
import { type Cost, costOfSidecars } from "./sidecar-cost.ts";

/** How long the control plane is away, in ms. */
const AWAY_MS = 15_000;

/** Faults of a command's first attempt, beside what they are. */
const FAULTS = [
  ["whose answer was lost", "drop:1"],
  ["that outlived its per-try time-out", "hold:1:1500"],
  ["whose first attempt begins after it was given up", "late:1:1500"],
] as const;

describe("the mesh between workloads that fail", function () {
  this.timeout(420_000);
  let lab: Lab;
  before(async () => {
    lab = await openLab();
  });
  after(() => lab?.end());

  /** Opens another lab for one test. */
  async function beside<T>(what: "sidecars" | "no sidecars", work: (plain: Lab) => Promise<T>): Promise<T> {
    const plain = await openPlainLab(what);
    try {
      return await work(plain);
    } finally {
      await plain.end();
    }
  }

  for (const protocol of PROTOCOLS) {
    for (const [what, fault] of FAULTS) {
      it(`tries a command ${what} again over ${protocol}, and it takes effect once, with the first answer`, () =>
        commandTakesEffectOnce(lab, protocol, fault));
    }

    it(`ends everybody's work at the deadline of a call over ${protocol}, which shrinks along the chain`, () =>
      deadlineEndsTheChain(lab, protocol));
  }

  it("leaves a bad replica out, so that reads succeed over gRPC and Connect, and takes it back", async () => {
    report(`reads that succeed beside a failing replica: ${JSON.stringify(await badReplicaIsLeftOutAndComesBack(lab))}`);
  });

  it("sends a canary at 10 % a tenth of the calls", async () => {
    report(`a canary at 10 % got ${((await canaryGetsItsShare(lab, 0.1)) * 100).toFixed(1)} %`);
  });

  it("loses no call while certificates rotate", async () => {
    const calls = await callsGoOn(lab, () => certificatesRotate(lab));
    report(`certificates of all workloads were replaced under load: ${calls} calls, none failed`);
  });

  it("loses no call while its control plane is away", async () => {
    const calls = await callsGoOn(lab, () => withoutControlPlane(() => sleep(AWAY_MS)));
    assert.ok(calls > 100);
    report(`istiod was away for ${AWAY_MS / 1_000} s: ${calls} calls, none failed`);
  });

  it("costs what its sidecars take", async () => {
    const costs = await beside("no sidecars", (bare) => costOfSidecars(lab, bare));
    const row = (what: string, { p50, p99, programs, proxies }: Cost) =>
      [what, twoDigits(p50), twoDigits(p99), Math.round(programs), Math.round(proxies)] as const;
    report(
      "a small call over gRPC, by four callers:",
      ...table([
        ["", "p50 in ms", "p99 in ms", "programs in µs of processor time", "proxies"],
        [...row("with sidecars", costs.with)],
        [...row("without", costs.without)],
      ]),
    );
    assert.ok(costs.with.proxies > 0 && costs.without.proxies === 0);
  });

  it("asks a dead workload at depth 3 at most 1.2 times a call at every hop, for a minute", async () => {
    const [ours, istio, naive, naiveIstio] = await beside(
      "sidecars",
      async (plain) =>
        [
          ...(await Promise.all([amplification(lab, 60), amplification(plain, 60)])),
          ...(await Promise.all([amplification(lab, 15, true), amplification(plain, 15, true)])),
        ] as const,
    );
    const rows = {
      ours: ours,
      "Istio's defaults": istio,
      "ours, UNAVAILABLE handed on": naive,
      "Istio's defaults, UNAVAILABLE handed on": naiveIstio,
    };
    report(
      "attempts a call, the last workload being dead:",
      ...table([
        ["", ...HOPS, "at the dead end for a call at the top", "calls"],
        ...Object.entries(rows).map(([what, { attempts, inAll, calls }]) => [
          what,
          ...attempts.map(twoDigits),
          twoDigits(inAll),
          calls,
        ]),
      ]),
    );
    for (const each of [ours, naive]) {
      assert.ok(each.mostAtOnce >= 100);
      for (const [hop, attempts] of each.attempts.entries())
        assert.ok(attempts <= 1.2, `${HOPS[hop]}: ${attempts} attempts a call`);
    }
    assert.ok(istio.attempts[2] > 1.2, "Istio's defaults amplify");
  });

  it("acts on another time-out after helm upgrade", async () => {
    const { upgradeMs, effectMs } = await secondsToEffect(lab);
    report(`a policy was in effect ${seconds(effectMs)} after helm upgrade, which took ${seconds(upgradeMs)}`);
  });
});

function twoDigits(number: number): string {
  return number.toFixed(2);
}
