import type { Lab } from "./lab.ts";
import { CHAIN } from "./retries.ts";

/** The hops of the chain, whose last one ends at a dead workload. */
export const HOPS = ["ops → order", "order → catalog", "catalog → inventory"] as const;

/** What was measured. */
export interface Amplification {
  readonly calls: number;
  readonly failures: Readonly<Record<string, number>>;
  readonly mostAtOnce: number;
  /** Attempts for each call, hop by hop. */
  readonly attempts: readonly [number, number, number];
  /** Attempts at the dead end for each call at the top. */
  readonly inAll: number;
}

/** How long a dead workload takes to say so, in ms. */
const DEAD_MS = 300;

/**
 * Calls down a chain of three whose end is dead, 120 at once, and counts the attempts that arrive at each hop. With `handOn` the workloads between hand the failure on
 * as their own UNAVAILABLE, as programs do that know no better; ours say DEPENDENCY_UNAVAILABLE, which nobody repeats.
 */
export async function amplification(lab: Lab, seconds: number, handOn = false): Promise<Amplification> {
  const chain = ["order", "catalog", "inventory"] as const;
  await Promise.all(chain.map((workload) => lab.tell(workload, { forget: true, handOn })));
  await lab.tell("inventory", { fault: { kind: "unavailable", attempts: 1_000, ms: DEAD_MS } });
  try {
    const { calls, failures, mostAtOnce } = await lab.call({
      ...CHAIN,
      protocol: "gRPC",
      workers: 120,
      seconds,
      timeoutMs: 20_000,
    });
    const [order = 0, catalog = 0, inventory = 0] = await Promise.all(
      chain.map(async (workload) => total(await lab.counts(workload))),
    );
    const inAll = inventory / calls;
    return { calls, failures, mostAtOnce, attempts: [order / calls, catalog / order, inventory / catalog], inAll };
  } finally {
    await Promise.all(chain.map((workload) => lab.tell(workload, { fault: null, handOn: false })));
  }
}

function total(counts: Readonly<Record<string, number>>): number {
  return Object.values(counts).reduce((sum, each) => sum + each, 0);
}
