import type { Contract, Service } from "./contract.ts";
import { DURATION, METHOD, OUR_FAULT, STATUS, WHERE } from "./metrics.ts";

const PANEL_HEIGHT = 8;
const PANEL_WIDTH = 6;
/** How long an error budget is for. */
const BUDGET_WINDOW = "28d";

/** A Grafana dashboard with a row for each service: calls by method, what is eaten and what is left of their error budgets, and their 99th percentiles. */
export function dashboard({ services }: Contract) {
  return {
    uid: "rpc-budgets",
    title: "RPC budgets",
    tags: ["rpc"],
    schemaVersion: 39,
    editable: false,
    refresh: "30s",
    time: { from: "now-6h", to: "now" },
    templating: { list: [variable("datasource", "datasource", "prometheus"), namespaceVariable()] },
    panels: services.flatMap((service, index) => row(service, index)),
  };
}

function variable(name: string, type: string, query: string) {
  return { name, type, query, hide: 0 };
}

function namespaceVariable() {
  const query = `label_values(${DURATION}_count, ${WHERE})`;
  return { ...variable("namespace", "query", query), datasource: source(), refresh: 2, includeAll: true, multi: true };
}

function source() {
  return { type: "prometheus", uid: "$datasource" };
}

function row(service: Service, index: number) {
  const y = index * (PANEL_HEIGHT + 1);
  const chosen = `${WHERE}=~"$namespace", ${METHOD}=~"${service.name.replaceAll(".", "\\\\.")}/.*"`;
  const panel = (column: number, title: string, unit: string, expr: string) => ({
    id: index * 10 + column + 1,
    type: "timeseries",
    title,
    datasource: source(),
    gridPos: { x: column * PANEL_WIDTH, y: y + 1, w: PANEL_WIDTH, h: PANEL_HEIGHT },
    fieldConfig: { defaults: { unit, ...(unit !== "percentunit" && { min: 0 }) }, overrides: [] },
    targets: [{ refId: "A", expr, legendFormat: `{{${METHOD}}}` }],
  });
  const burnt = `rpc:errors:ratio_rate1h{${chosen}} / on (${METHOD}) group_left () rpc:error_budget:ratio`;
  const counted = (more: string) => `sum by (${METHOD}) (increase(${DURATION}_count{${chosen}${more}}[${BUDGET_WINDOW}]))`;
  const failed = `(${counted(`, ${STATUS}=~"${OUR_FAULT.join("|")}"`)} or ${counted("")} * 0)`;
  const left = `1 - ${failed} / ${counted("")} / on (${METHOD}) rpc:error_budget:ratio`;
  const p99 = `histogram_quantile(0.99, sum by (${METHOD}, le) (rate(${DURATION}_bucket{${chosen}, ${STATUS}="OK"}[5m])))`;
  return [
    {
      id: index * 10,
      type: "row",
      title: service.name,
      collapsed: false,
      gridPos: { x: 0, y, w: 4 * PANEL_WIDTH, h: 1 },
      panels: [],
    },
    panel(0, "Calls a second", "reqps", `sum by (${METHOD}) (rate(${DURATION}_count{${chosen}}[5m]))`),
    panel(1, "Error budget's burn rate over 1 h (1 uses it up in 28 days)", "none", burnt),
    panel(2, "Error budget that is left of 28 days (below 0: promise broken)", "percentunit", left),
    panel(3, "99th percentile of calls that succeed", "s", p99),
  ];
}
