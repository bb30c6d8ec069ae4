import { tool } from "./cluster.ts";
import type { Lab } from "./lab.ts";
import { succeeded } from "./retries.ts";

/** What a call costs, by whether there are sidecars. */
export interface Cost {
  readonly p50: number;
  readonly p99: number;
  /** Processor time of a call in µs: both programs, and both proxies where there are any. */
  readonly programs: number;
  readonly proxies: number;
}

const ROUNDS = 5;
const CALLS = 1_500;

/** Makes the same calls with and without sidecars, turn by turn, and gives the medians of the rounds. */
export async function costOfSidecars(meshed: Lab, bare: Lab): Promise<{ with: Cost; without: Cost }> {
  const rounds = { with: [] as Cost[], without: [] as Cost[] };
  for (let round = 0; round <= ROUNDS; round++) {
    const both = { with: await costOf(meshed, true), without: await costOf(bare, false) };
    // The first round warms up.
    if (round === 0) continue;
    rounds.with.push(both.with);
    rounds.without.push(both.without);
  }
  return { with: medians(rounds.with), without: medians(rounds.without) };
}

async function costOf(lab: Lab, hasProxies: boolean): Promise<Cost> {
  const request = { accountId: "01900000-0000-7000-8000-0000000000a1" };
  const before = await processorTimes(lab, hasProxies);
  const outcome = await lab.call({
    as: "order",
    protocol: "gRPC",
    method: "account/getProfile",
    request,
    timeoutMs: 10_000,
    workers: 4,
    calls: CALLS,
  });
  succeeded(outcome);
  const after = await processorTimes(lab, hasProxies);
  const each = (what: "souk" | "istio-proxy") => (after[what] - before[what]) / CALLS;
  return { p50: outcome.p50, p99: outcome.p99, programs: each("souk"), proxies: each("istio-proxy") };
}

/** What the containers of caller and callee have used, in µs. */
async function processorTimes(lab: Lab, hasProxies: boolean): Promise<Record<"souk" | "istio-proxy", number>> {
  const pods = [...(await lab.pods("order")), ...(await lab.pods("account"))];
  const sum = async (container: string) => {
    const all = await Promise.all(pods.map((pod) => processorTime(lab.name, pod, container)));
    return all.reduce((total, each) => total + each, 0);
  };
  return { souk: await sum("souk"), "istio-proxy": hasProxies ? await sum("istio-proxy") : 0 };
}

/** In the second version of control groups a file of several lines, in the first a number of nanoseconds. */
const READ = "cat /sys/fs/cgroup/cpu.stat 2>/dev/null || cat /sys/fs/cgroup/cpuacct/cpuacct.usage";

async function processorTime(namespace: string, pod: string, container: string): Promise<number> {
  const text = await tool("kubectl", "-n", namespace, "exec", pod, "-c", container, "--", "sh", "-c", READ);
  const micros = /^usage_usec (\d+)/m.exec(text)?.[1];
  return micros === undefined ? Number(/^\d+$/m.exec(text)?.[0]) / 1_000 : Number(micros);
}

function medians(costs: readonly Cost[]): Cost {
  const of = (what: keyof Cost) => costs.map((cost) => cost[what]).sort((a, b) => a - b)[Math.floor(costs.length / 2)] ?? 0;
  return { p50: of("p50"), p99: of("p99"), programs: of("programs"), proxies: of("proxies") };
}
