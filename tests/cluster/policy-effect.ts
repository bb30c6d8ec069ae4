import { setTimeout as sleep } from "node:timers/promises";
import type { Lab } from "./lab.ts";

const METHOD = "marketplace.account.v1.AccountService/GetProfile";

/** How long `helm upgrade` of a policy takes, and how long it takes from its end until callers' proxies act on it, in ms. */
export async function secondsToEffect(lab: Lab): Promise<{ upgradeMs: number; effectMs: number }> {
  const request = { accountId: "01900000-0000-7000-8000-0000000000a1" };
  // Answered after 500 ms, which the method's own time-outs allow (2 s, and 666 ms for each try) and the new one does not.
  const headers = { "x-lab-fault": "hold:9:500" };
  const job = { as: "order", protocol: "Connect", method: "account/getProfile", request, headers, timeoutMs: 5_000 } as const;
  const { failures } = await lab.call({ ...job, calls: 10 });
  if (Object.keys(failures).length > 0) throw new Error(`calls within their time failed: ${JSON.stringify(failures)}`);
  const startTime = performance.now();
  await lab.upgrade(`methods.${METHOD.replaceAll(".", "\\.")}.timeout=300ms`);
  const upgradedTime = performance.now();
  for (const end = performance.now() + 60_000; performance.now() < end; await sleep(50)) {
    const sentTime = performance.now();
    const [failure] = Object.keys((await lab.call(job)).failures);
    if (failure === undefined) continue;
    // The proxy answers 504, which Connect reads as unavailable.
    if (!/unavailable/i.test(failure)) throw new Error(`a call failed by ${failure}, not by its time-out`);
    return { upgradeMs: upgradedTime - startTime, effectMs: Math.max(0, sentTime - upgradedTime) };
  }
  throw new Error("the policy did not come into effect within a minute");
}
