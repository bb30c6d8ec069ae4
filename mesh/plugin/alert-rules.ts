import type { Contract, Method } from "./contract.ts";
import { DURATION, METHOD, OUR_FAULT, STATUS, WHERE } from "./metrics.ts";

/**
 * Windows and burn rates of the SRE Workbook, chapter 5, "Multiwindow, Multi-Burn-Rate Alerts", for a budget of 28 days: the long window says that
 * it matters, the short one that it still goes on.
 */
const ALERTS = [
  { long: "1h", short: "5m", rate: 14.4, severity: "page", for: "2m" },
  { long: "6h", short: "30m", rate: 6, severity: "page", for: "15m" },
  { long: "1d", short: "2h", rate: 3, severity: "ticket", for: "1h" },
  { long: "3d", short: "6h", rate: 1, severity: "ticket", for: "3h" },
] as const;
const WINDOWS = ["5m", "30m", "1h", "2h", "6h", "1d", "3d"] as const;

/** The part of calls that may be slower than a 99th percentile. */
const SLOW_BUDGET = 0.01;

/** The page that says of these alerts what to do, from where the installation keeps its runbooks; each has a heading there. */
const RUNBOOK = "rpc-budgets.md";

interface Rule {
  readonly name: string;
  readonly expr: string;
  readonly for?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** Recording rules of every method's budget and of what is eaten of it, and the alerts on them, in Prometheus' YAML. */
export function alertRules({ services }: Contract): string {
  const methods = services.flatMap((service) => service.methods);
  const groups: [string, "record" | "alert", readonly Rule[]][] = [
    ["rpc-budgets", "record", methods.flatMap(budgets)],
    ["rpc-errors", "record", WINDOWS.map(errorRatio)],
    ["rpc-latency", "record", WINDOWS.map(slowRatio)],
    ["rpc-burn-rates", "alert", ALERTS.flatMap((alert) => [errorsBurn(alert), latencyBurns(alert)])],
  ];
  const lines = ["# Made from the proto by mesh/plugin.", "groups:"];
  for (const [name, kind, rules] of groups) {
    // Prometheus refuses a group without rules.
    if (rules.length === 0) continue;
    lines.push(`  - name: ${name}`, "    rules:", ...rules.flatMap((rule) => print(kind, rule)));
  }
  return `${lines.join("\n")}\n`;
}

function budgets({ name, budget }: Method): Rule[] {
  const failing = (1_000_000 - budget.availabilityPpm) / 1_000_000;
  return [
    { name: "rpc:error_budget:ratio", expr: `vector(${failing})`, labels: { [METHOD]: name } },
    { name: "rpc:p99_budget:one", expr: "vector(1)", labels: { [METHOD]: name, le: String(budget.p99Ms / 1000) } },
  ];
}

function errorRatio(window: string): Rule {
  const total = `sum by (${WHERE}, ${METHOD}) (rate(${DURATION}_count[${window}]))`;
  const failed = `sum by (${WHERE}, ${METHOD}) (rate(${DURATION}_count{${STATUS}=~"${OUR_FAULT.join("|")}"}[${window}]))`;
  return { name: `rpc:errors:ratio_rate${window}`, expr: `(${failed} or ${total} * 0) / ${total}` };
}

/** The bucket that ends at the method's 99th percentile is found by its label: Prometheus 3 writes whole numbers with ".0". */
function slowRatio(window: string): Rule {
  const total = `sum by (${WHERE}, ${METHOD}) (rate(${DURATION}_count[${window}]))`;
  const buckets = `label_replace(sum by (${WHERE}, ${METHOD}, le) (rate(${DURATION}_bucket[${window}])), "le", "$1", "le", "([0-9]+)\\\\.0")`;
  const fast = `sum by (${WHERE}, ${METHOD}) (${buckets} * on (${METHOD}, le) group_left () rpc:p99_budget:one)`;
  return { name: `rpc:slow:ratio_rate${window}`, expr: `1 - ${fast} / ${total}` };
}

type Alert = (typeof ALERTS)[number];

function errorsBurn({ long, short, rate, severity, for: pending }: Alert): Rule {
  const over = (window: string) =>
    `rpc:errors:ratio_rate${window} > on (${METHOD}) group_left () (${rate} * rpc:error_budget:ratio)`;
  return {
    name: "RpcErrorBudgetBurns",
    expr: `(${over(long)}) and (${over(short)})`,
    for: pending,
    labels: { severity, window: long },
    annotations: {
      summary: `{{ $labels.${METHOD} }} fails too often`,
      description: `Over ${long} {{ $value | humanizePercentage }} of the calls failed by our fault: ${rate} times what its budget of 28 days allows.`,
      runbook_url: `${RUNBOOK}#rpcerrorbudgetburns`,
    },
  };
}

function latencyBurns({ long, short, rate, severity, for: pending }: Alert): Rule {
  const over = (window: string) => `rpc:slow:ratio_rate${window} > ${Number((rate * SLOW_BUDGET).toFixed(4))}`;
  return {
    name: "RpcLatencyBudgetBurns",
    expr: `(${over(long)}) and (${over(short)})`,
    for: pending,
    labels: { severity, window: long },
    annotations: {
      summary: `{{ $labels.${METHOD} }} is too slow`,
      description: `Over ${long} {{ $value | humanizePercentage }} of the calls were slower than the 99th percentile that its budget promises: 1 % may be.`,
      runbook_url: `${RUNBOOK}#rpclatencybudgetburns`,
    },
  };
}

function print(kind: "record" | "alert", { name, expr, for: pending, labels, annotations }: Rule): string[] {
  const map = (key: string, entries: Readonly<Record<string, string>> = {}) =>
    Object.keys(entries).length === 0
      ? []
      : [`        ${key}:`, ...Object.entries(entries).map(([label, value]) => `          ${label}: ${JSON.stringify(value)}`)];
  return [
    `      - ${kind}: ${name}`,
    `        expr: ${JSON.stringify(expr)}`,
    ...(pending === undefined ? [] : [`        for: ${pending}`]),
    ...map("labels", labels),
    ...map("annotations", annotations),
  ];
}
