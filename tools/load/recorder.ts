import { Code, ConnectError } from "@connectrpc/connect";
import { reasonOf } from "#runtime/errors.ts";
import { Histogram, type HistogramJson } from "./histogram.ts";

/** What became of the calls of one method. */
export interface CallFigures {
  calls: number;
  /** Calls that failed, by reason. */
  readonly failures: Record<string, number>;
  /** Durations of the calls after the ramp, failed ones included. */
  readonly latency: HistogramJson;
}

/** What became of the arrivals of one flow. */
export interface FlowFigures {
  arrived: number;
  finished: number;
  failed: number;
  /** Arrivals that found too many under way. */
  turnedAway: number;
}

/** Calls as the flows saw them, the attempts that were sent to make them, and how many of these were sent again. */
export interface Attempts {
  readonly calls: number;
  readonly sent: number;
  readonly again: number;
}

/** All that was counted, as it travels between processes. */
export interface Figures {
  readonly calls: Readonly<Record<string, CallFigures>>;
  readonly flows: Readonly<Record<string, FlowFigures>>;
  /** How late the generator itself began what had arrived. */
  readonly lateness: HistogramJson;
  readonly attempts: Attempts;
}

/** One arrival on its way through a flow. */
export interface Flight {
  /** From when the next call's duration counts: the intended beginning, then the end of the call before. */
  from: number;
  /** Whether durations count: not during the ramp. */
  readonly measured: boolean;
}

/** A call failed; it is counted already. */
export class CallFailed extends Error {}

/** Counts calls and flows. */
export class Recorder {
  readonly #calls = new Map<string, { calls: number; failures: Record<string, number>; latency: Histogram }>();
  readonly #flows = new Map<string, FlowFigures>();
  readonly #lateness = new Histogram();

  /** Makes a call, and counts it under this name. */
  async call<T>(name: string, flight: Flight, work: () => Promise<T>): Promise<T> {
    const figures = this.#callsOf(name);
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof ConnectError)) throw error;
      const reason = reasonOf(error) ?? Code[error.code];
      figures.failures[reason] = (figures.failures[reason] ?? 0) + 1;
      throw new CallFailed(reason, { cause: error });
    } finally {
      const now = performance.now();
      figures.calls++;
      if (flight.measured) figures.latency.record((now - flight.from) * 1000);
      flight.from = now;
    }
  }

  /** The figures of a flow, to be counted up. */
  flow(name: string): FlowFigures {
    const known = this.#flows.get(name) ?? { arrived: 0, finished: 0, failed: 0, turnedAway: 0 };
    this.#flows.set(name, known);
    return known;
  }

  /** Counts how late an arrival was begun, in ms. */
  late(ms: number): void {
    this.#lateness.record(Math.max(0, ms) * 1000);
  }

  figures(attempts: Attempts): Figures {
    const calls = [...this.#calls].map(([name, { latency, ...rest }]) => [name, { ...rest, latency: latency.toJSON() }] as const);
    return {
      calls: Object.fromEntries(calls),
      flows: Object.fromEntries(this.#flows),
      lateness: this.#lateness.toJSON(),
      attempts,
    };
  }

  #callsOf(name: string) {
    const known = this.#calls.get(name) ?? { calls: 0, failures: {}, latency: new Histogram() };
    this.#calls.set(name, known);
    return known;
  }
}

/** The figures of several processes as those of one. */
export function sumOf(all: readonly Figures[]): Figures {
  const calls: Record<string, CallFigures> = {};
  const flows: Record<string, FlowFigures> = {};
  for (const figures of all) {
    for (const [name, { calls: count, failures, latency }] of Object.entries(figures.calls)) {
      const before = calls[name];
      const reasons = { ...before?.failures };
      for (const [reason, failed] of Object.entries(failures)) reasons[reason] = (reasons[reason] ?? 0) + failed;
      calls[name] = { calls: (before?.calls ?? 0) + count, failures: reasons, latency: joined(before?.latency, latency) };
    }
    for (const [name, flow] of Object.entries(figures.flows)) {
      const sum = { ...(flows[name] ?? { arrived: 0, finished: 0, failed: 0, turnedAway: 0 }) };
      for (const key of Object.keys(sum) as (keyof FlowFigures)[]) sum[key] += flow[key];
      flows[name] = sum;
    }
  }
  const total = (of: (attempts: Attempts) => number) => all.reduce((sum, { attempts }) => sum + of(attempts), 0);
  return {
    calls,
    flows,
    lateness: joined(...all.map(({ lateness }) => lateness)),
    attempts: {
      calls: total((each) => each.calls),
      sent: total((each) => each.sent),
      again: total((each) => each.again),
    },
  };
}

function joined(...parts: readonly (HistogramJson | undefined)[]): HistogramJson {
  const sum = new Histogram();
  for (const part of parts) if (part !== undefined) sum.add(part);
  return sum.toJSON();
}
