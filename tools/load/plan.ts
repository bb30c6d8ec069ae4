import { isIP } from "node:net";
import { Usage } from "../checks/usage.ts";
import type { Shape } from "./schedule.ts";

/** What people do, each a sequence of calls. */
export const FLOWS = ["browse", "sell", "buy", "watch"] as const;
/** The name of a flow. */
export type FlowName = (typeof FLOWS)[number];
/** The ways to call. */
export const PROTOCOLS = ["grpc", "connect", "connect-json"] as const;
/** The name of a way. */
export type Protocol = (typeof PROTOCOLS)[number];

/** An account that acts. */
export interface Actor {
  readonly accountId: string;
  readonly token: string;
}

/** A load: what arrives how often at which marketplace. It can travel to other processes as JSON. */
export interface LoadPlan {
  readonly url: string;
  /** The host that it serves, where its URL names another one: a gateway's address. Only over gRPC. */
  readonly authority?: string | undefined;
  readonly protocol: Protocol;
  /** Arrivals a second of each flow. */
  readonly rates: Readonly<Record<FlowName, number>>;
  readonly shape: Shape;
  readonly rampMs: number;
  /** How long the full rates last; what is measured. */
  readonly durationMs: number;
  readonly sellers: readonly Actor[];
  readonly buyers: readonly Actor[];
  /** Connections that share the calls. */
  readonly connections: number;
  /** Arrivals under way at once; more are turned away, which is a failure. */
  readonly inFlightMax: number;
  /** Whether failed calls are tried again as their policy allows; only over gRPC. */
  readonly retries: boolean;
  /** Decides the arrivals and who does what. */
  readonly seed: number;
}

/** The most that a plan may ask for. */
export const BOUNDS = { perSecond: 20_000, seconds: 3_600, workers: 64, connections: 64, accounts: 10_000, inFlight: 100_000 };

/**
 * Refuses hosts that are not plainly one's own: loopback, private addresses, and names that only a private network resolves.
 *
 * @param confirmed the host's name once more, by somebody who may load it
 * @throws Usage
 */
export function checkHost(url: string, confirmed: string | undefined): void {
  const host = new URL(url).hostname.replace(/^\[|\]$/g, "");
  if (isOwn(host) || host === confirmed) return;
  throw new Usage(
    `${host} is neither this machine nor on a private network. Load it only if it is yours, and say so: --allow-host ${host}`,
  );
}

function isOwn(host: string): boolean {
  if (isIP(host) === 4) return /^(127|10)\.|^192\.168\.|^172\.(1[6-9]|2\d|3[01])\./.test(host);
  if (isIP(host) === 6) return host === "::1" || /^f[cd][0-9a-f]{2}:/i.test(host);
  // A name without a dot is resolved by the own network's search path only.
  return !host.includes(".") || /\.(localhost|test|svc|svc\.cluster\.local)$/.test(host);
}

/** The plans of several processes that together make one. */
export function sharesOf(plan: LoadPlan, workers: number): LoadPlan[] {
  const part = <T>(all: readonly T[], worker: number) => all.filter((_, index) => index % workers === worker);
  return Array.from({ length: workers }, (_, worker) => ({
    ...plan,
    rates: Object.fromEntries(FLOWS.map((flow) => [flow, plan.rates[flow] / workers])) as LoadPlan["rates"],
    sellers: part(plan.sellers, worker),
    buyers: part(plan.buyers, worker),
    inFlightMax: Math.ceil(plan.inFlightMax / workers),
    seed: plan.seed + worker,
  }));
}
