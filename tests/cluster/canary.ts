import assert from "node:assert/strict";
import type { Lab } from "./lab.ts";
import { succeeded } from "./retries.ts";

const CALLS = 1_000;

/** Calls a workload of which a canary gets this share, and checks that it does, within four standard deviations of chance. Answers the share. */
export async function canaryGetsItsShare(lab: Lab, share: number): Promise<number> {
  await lab.tell("account", { forget: true });
  const request = { accountId: "01900000-0000-7000-8000-0000000000a1" };
  const calls = { as: "order", protocol: "gRPC", method: "account/getProfile", request, timeoutMs: 5_000 } as const;
  succeeded(await lab.call({ ...calls, workers: 20, calls: CALLS }));
  const counts = await lab.counts("account");
  const [canary = ""] = await lab.pods("account", "canary");
  const got = counts[canary] ?? 0;
  const deviation = Math.sqrt(CALLS * share * (1 - share));
  assert.ok(Math.abs(got - CALLS * share) <= 4 * deviation, `the canary got ${got} of ${CALLS} calls`);
  return got / CALLS;
}
