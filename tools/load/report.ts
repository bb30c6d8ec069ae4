import { type DescMethod, getOption } from "@bufbuild/protobuf";
import { CatalogService } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { OrderService } from "#gen/marketplace/order/v1/order_pb.ts";
import { method as policyOption } from "#gen/marketplace/policy/v1/policy_pb.ts";
import { SearchService } from "#gen/marketplace/search/v1/search_pb.ts";
import { methodName } from "#runtime/policy.ts";
import { Histogram } from "./histogram.ts";
import { FLOWS, type LoadPlan } from "./plan.ts";
import type { Attempts, Figures, FlowFigures } from "./recorder.ts";

/** What is promised of a method. */
export interface Budget {
  readonly p99Ms: number;
  readonly availabilityPpm: number;
}

/** One method under load. Durations are in ms. */
export interface MethodReport {
  readonly method: string;
  readonly calls: number;
  readonly failed: number;
  readonly failures: Readonly<Record<string, number>>;
  /** Calls whose durations are below: those after the ramp. */
  readonly measured: number;
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly p999: number;
  readonly max: number;
  readonly availabilityPpm: number;
  readonly budget: Budget;
}

/** The outcome of a load. */
export interface LoadReport {
  readonly url: string;
  readonly protocol: string;
  readonly shape: string;
  readonly rampMs: number;
  readonly durationMs: number;
  readonly seed: number;
  readonly workers: number;
  readonly interrupted: boolean;
  readonly flows: Readonly<Record<string, FlowFigures & { readonly perSecond: number }>>;
  readonly methods: readonly MethodReport[];
  readonly attempts: Attempts;
  /** How late the generator itself was, in ms: 99 of 100 arrivals were begun within that. */
  readonly latenessP99Ms: number;
  /** What was missed, one sentence each; empty when all budgets are met. */
  readonly missed: readonly string[];
}

/** Beyond this the figures are the generator's own as much as the marketplace's, in ms. */
const LATENESS_MAX_MS = 25;

/** The promise of a method by its full name, which may have a remark behind it. */
export type BudgetOf = (name: string) => Budget;

const services = [SearchService, CatalogService, OrderService];
const methods = new Map<string, DescMethod>(services.flatMap((service) => service.methods.map((each) => [methodName(each), each])));

/** The promises of the contract. */
export const contractBudgets: BudgetOf = (name) => {
  const { budget } = getOption(methods.get(name.split(" ", 1)[0] as string) as DescMethod, policyOption);
  const { seconds: whole = 0n, nanos = 0 } = budget?.p99Latency ?? {};
  return { p99Ms: Number(whole) * 1000 + nanos / 1_000_000, availabilityPpm: budget?.availabilityPpm ?? 0 };
};

/** Weighs what was counted against what is promised. */
export function reportOf(
  plan: LoadPlan,
  figures: Figures,
  {
    workers = 1,
    interrupted = false,
    budgets = contractBudgets,
  }: { workers?: number; interrupted?: boolean; budgets?: BudgetOf } = {},
): LoadReport {
  const reports = Object.entries(figures.calls)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, { calls, failures, latency }]): MethodReport => {
      const histogram = new Histogram();
      histogram.add(latency);
      const ms = (percent: number) => histogram.percentile(percent) / 1000;
      const failed = Object.values(failures).reduce((sum, count) => sum + count, 0);
      return {
        method: name.replace(/^marketplace\.\w+\.v\d+\./, ""),
        calls,
        failed,
        failures,
        measured: histogram.count,
        ...{ p50: ms(50), p90: ms(90), p99: ms(99), p999: ms(99.9), max: ms(100) },
        availabilityPpm: Math.floor(((calls - failed) / calls) * 1_000_000),
        budget: budgets(name),
      };
    });
  const lateness = new Histogram();
  lateness.add(figures.lateness);
  const flows = FLOWS.flatMap((flow) => {
    const counted = figures.flows[flow];
    return plan.rates[flow] === 0 || counted === undefined ? [] : [[flow, { perSecond: plan.rates[flow], ...counted }] as const];
  });
  const { url, protocol, shape, rampMs, durationMs, seed } = plan;
  const latenessP99Ms = lateness.percentile(99) / 1000;
  const missed = [
    ...reports.flatMap(missedBy),
    ...flows.flatMap(([name, flow]) => missedByFlow(name, flow)),
    ...late(latenessP99Ms),
  ];
  return {
    ...{ url, protocol, shape, rampMs, durationMs, seed, workers, interrupted },
    flows: Object.fromEntries(flows),
    methods: reports,
    attempts: figures.attempts,
    latenessP99Ms,
    missed: missed.length === 0 && reports.length === 0 ? ["nothing was called"] : missed,
  };
}

function missedBy({ method, calls, failed, measured, p99, availabilityPpm, budget }: MethodReport): string[] {
  const missed: string[] = [];
  if (measured > 0 && p99 > budget.p99Ms) missed.push(`${method}: p99 is ${duration(p99)}, promised are ${duration(budget.p99Ms)}`);
  if (availabilityPpm < budget.availabilityPpm) {
    missed.push(
      `${method}: ${failed} of ${calls} calls failed: ${percent(availabilityPpm)} available, promised are ${percent(budget.availabilityPpm)}`,
    );
  }
  return missed;
}

function missedByFlow(name: string, { arrived, turnedAway }: FlowFigures): string[] {
  return turnedAway === 0 ? [] : [`${name}: ${turnedAway} of ${arrived} arrivals were not begun: too many were under way`];
}

function late(p99Ms: number): string[] {
  if (p99Ms <= LATENESS_MAX_MS) return [];
  return [
    `the generator began calls ${duration(p99Ms)} late (p99): it has too little CPU for this load; try --workers or lower rates`,
  ];
}

/** The report for people. */
export function printed(report: LoadReport): string {
  const { flows, methods: rows, attempts, missed } = report;
  const times = `${seconds(report.durationMs)} after a ramp of ${seconds(report.rampMs)}`;
  const by = `${report.workers} process${report.workers === 1 ? "" : "es"}`;
  const failures = rows.flatMap(({ method, failures: reasons }) =>
    Object.entries(reasons).map(([reason, count]) => [`  ${method}`, reason, number(count)]),
  );
  return [
    `${report.url} over ${report.protocol}, ${times}, ${report.shape} arrivals (seed ${report.seed}), ${by}${report.interrupted ? "; stopped early" : ""}`,
    "",
    ...table([
      ["flow", "rate/s", "arrived", "finished", "failed", "not begun"],
      ...Object.entries(flows).map(([name, flow]) => [
        name,
        String(flow.perSecond),
        ...[flow.arrived, flow.finished, flow.failed, flow.turnedAway].map(number),
      ]),
    ]),
    "",
    ...table([
      ["method", "calls", "failed", "p50", "p90", "p99", "promised", "p99.9", "max", "available", "promised"],
      ...rows.map((row) => [
        row.method,
        number(row.calls),
        number(row.failed),
        ...[row.p50, row.p90, row.p99, row.budget.p99Ms, row.p999, row.max].map(duration),
        percent(row.availabilityPpm),
        percent(row.budget.availabilityPpm),
      ]),
    ]),
    ...(failures.length === 0 ? [] : ["", "Failed calls by reason", ...table(failures)]),
    "",
    `Attempts: ${number(attempts.sent)} sent for ${number(attempts.calls)} calls, ${number(attempts.again)} of them again.`,
    `The generator was at most ${duration(report.latenessP99Ms)} late (p99). Durations count from when a call should have begun, after the ramp.`,
    "",
    ...(missed.length === 0 ? ["All budgets are met."] : ["Missed:", ...missed.map((sentence) => `  ${sentence}`)]),
    "",
  ].join("\n");
}

/** Columns side by side: the first to the left, numbers to the right. */
function table(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => (row[column] ?? "").length)));
  return rows.map((row) =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[column] as number) : cell.padStart(widths[column] as number)))
      .join("  "),
  );
}

const number = (count: number) => count.toLocaleString("en-US");
const seconds = (ms: number) => `${ms / 1000} s`;
const percent = (ppm: number) => `${(Math.floor(ppm / 10) / 1000).toFixed(3)} %`;

function duration(ms: number): string {
  if (ms >= 1000) return `${(ms / 1000).toFixed(2)} s`;
  return ms >= 100 ? `${ms.toFixed(0)} ms` : `${ms.toFixed(1)} ms`;
}
