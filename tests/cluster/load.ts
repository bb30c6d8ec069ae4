import { newId } from "#runtime/ids.ts";
import { type Keys, signAccountToken } from "#runtime/tokens.ts";
import { type Actor, FLOWS, type FlowName, type LoadPlan } from "../../tools/load/plan.ts";
import type { Figures } from "../../tools/load/recorder.ts";
import { prepareLoad } from "../../tools/load/run.ts";
import { GATEWAY_URL } from "./cluster.ts";

/** Longer than any work that load is put on meanwhile, in ms. */
const MAX_MS = 15 * 60_000;
const TOKEN_MS = 60 * 60_000;

/** What came of a load. */
export interface Outcome {
  /** Calls as the calling code made them, and what was sent for them. */
  readonly calls: number;
  readonly sent: number;
  readonly again: number;
  /** Calls that failed after all their attempts: `PlaceOrder UNAVAILABLE 3`. */
  readonly failures: readonly string[];
  readonly figures: Figures;
}

/** What a second brings: about 15 calls, which two processors bear while they start as many pods as there are. */
export const RATES: Readonly<Record<FlowName, number>> = { browse: 2, sell: 0.5, buy: 1, watch: 0.5 };

/** Puts load on a marketplace through the gateway for as long as the work takes: the load generator, over gRPC, with the retries of the typed client. */
export async function underLoad(
  { keys, host }: { readonly keys: Keys; readonly host: string },
  work: () => Promise<void>,
  rates = RATES,
): Promise<Outcome> {
  const actors = (count: number): Promise<Actor[]> =>
    Promise.all(
      Array.from({ length: count }, async () => {
        const accountId = newId();
        return { accountId, token: await signAccountToken(keys, { accountId, operator: false, ttlMs: TOKEN_MS }) };
      }),
    );
  const plan: LoadPlan = {
    url: GATEWAY_URL,
    authority: host,
    protocol: "grpc",
    rates,
    shape: "poisson",
    rampMs: 0,
    durationMs: MAX_MS,
    sellers: await actors(8),
    buyers: await actors(16),
    connections: 4,
    inFlightMax: 500,
    retries: true,
    seed: 1,
  };
  const load = await prepareLoad(plan);
  const stop = new AbortController();
  try {
    const running = load.run(stop.signal);
    try {
      await work();
    } finally {
      stop.abort();
    }
    return outcomeOf(await running);
  } finally {
    load.close();
  }
}

function outcomeOf(figures: Figures): Outcome {
  const failures = Object.entries(figures.calls).flatMap(([method, { failures: reasons }]) =>
    Object.entries(reasons).map(([reason, count]) => `${method} ${reason} ${count}`),
  );
  for (const flow of FLOWS) {
    const turnedAway = figures.flows[flow]?.turnedAway ?? 0;
    if (turnedAway > 0) failures.push(`${flow} turned away ${turnedAway}`);
  }
  return { ...figures.attempts, failures, figures };
}
