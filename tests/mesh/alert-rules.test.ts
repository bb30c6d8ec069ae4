import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { root } from "../../tools/checks/run.ts";
import { findProgram } from "../../tools/stores/programs.ts";
import { contractMethods, methodPath } from "../support/contract.ts";

const RULES = join(root, "mesh/generated/alert-rules.yaml");
const PLACE_ORDER = "marketplace.order.v1.OrderService/PlaceOrder";
const GET_LISTING = "marketplace.catalog.v1.CatalogService/GetListing";

/** A method's calls a minute: how many there are, fail, and end within its 99th percentile. */
interface Traffic {
  readonly method: string;
  readonly p99: string;
  readonly calls: number;
  readonly failing?: number;
  readonly fast?: number;
}

/** An alert that fires, by its labels. */
interface Firing {
  readonly rpc_method: string;
  readonly severity: string;
  readonly window: string;
}

const MINUTES = 400;

function series({ method, p99, calls, failing = 0, fast = calls }: Traffic): { series: string; values: string }[] {
  const labels = (more: string) => `{namespace="shop", rpc_method="${method}", ${more}}`;
  const counted = (name: string, more: string, perMinute: number) => ({
    series: `rpc_server_call_duration_seconds_${name}${labels(more)}`,
    values: `0+${perMinute}x${MINUTES}`,
  });
  return [
    counted("count", 'rpc_status_code="OK"', calls - failing),
    ...(failing > 0 ? [counted("count", 'rpc_status_code="UNAVAILABLE"', failing)] : []),
    counted("bucket", `rpc_status_code="OK", le="${p99}"`, fast),
    counted("bucket", 'rpc_status_code="OK", le="+Inf"', calls),
  ];
}

function seriesName(alert: string, labels: Firing): string {
  const all = { alertname: alert, alertstate: "firing", namespace: "shop", ...labels };
  return `ALERTS{${Object.entries(all)
    .map(([name, value]) => `${name}="${value}"`)
    .join(", ")}}`;
}

/** Asks promtool which alerts fire at a minute of this traffic, and whether they are those expected. */
function check(traffic: readonly Traffic[], alert: string, minute: number, expected: readonly Firing[]): void {
  const { file, env } = findProgram("promtool");
  const folder = mkdtempSync(join(tmpdir(), "souk-promtool-"));
  try {
    const test = {
      rule_files: [RULES],
      evaluation_interval: "5m",
      tests: [
        {
          interval: "1m",
          input_series: traffic.flatMap(series),
          promql_expr_test: [
            {
              expr: `ALERTS{alertname="${alert}", alertstate="firing"}`,
              eval_time: `${minute}m`,
              exp_samples: expected.map((labels) => ({ labels: seriesName(alert, labels), value: 1 })),
            },
          ],
        },
      ],
    };
    // JSON is YAML.
    const path = join(folder, "test.yaml");
    writeFileSync(path, JSON.stringify(test));
    const { status, stdout, stderr } = spawnSync(file, ["test", "rules", path], {
      encoding: "utf8",
      env: { ...process.env, ...env },
    });
    assert.equal(status, 0, stdout + stderr);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const page = (method: string, window: string): Firing => ({ rpc_method: method, severity: "page", window });
const ticket = (method: string, window: string): Firing => ({ rpc_method: method, severity: "ticket", window });
const quiet: Traffic = { method: GET_LISTING, p99: "0.05", calls: 6000 };

describe("the alert rules", () => {
  it("are rules that Prometheus reads", () => {
    const { file, env } = findProgram("promtool");
    const { status, stdout, stderr } = spawnSync(file, ["check", "rules", RULES], {
      encoding: "utf8",
      env: { ...process.env, ...env },
    });
    assert.equal(status, 0, stdout + stderr);
  });

  it("page for the method whose error budget burns fast, and for no other", () => {
    const broken = { method: PLACE_ORDER, p99: "2", calls: 600, failing: 12 };
    check([broken, quiet], "RpcErrorBudgetBurns", 30, [page(PLACE_ORDER, "1h"), page(PLACE_ORDER, "6h")]);
    check([broken, quiet], "RpcLatencyBudgetBurns", 70, []);
  });

  it("write a ticket for a budget that burns slowly", () => {
    const ailing = { method: PLACE_ORDER, p99: "2", calls: 1000, failing: 2 };
    check([ailing, quiet], "RpcErrorBudgetBurns", 390, [ticket(PLACE_ORDER, "1d"), ticket(PLACE_ORDER, "3d")]);
  });

  it("are silent while a method keeps its promise", () => {
    const kept = { method: PLACE_ORDER, p99: "2", calls: 2000, failing: 1, fast: 1985 };
    check([kept, quiet], "RpcErrorBudgetBurns", 390, []);
    check([kept, quiet], "RpcLatencyBudgetBurns", 390, []);
  });

  it("page for the method that is slower than its own 99th percentile", () => {
    const slow = { method: PLACE_ORDER, p99: "2", calls: 1000, fast: 800 };
    check([slow, quiet], "RpcLatencyBudgetBurns", 30, [page(PLACE_ORDER, "1h"), page(PLACE_ORDER, "6h")]);
  });

  it("find a 99th percentile of whole seconds as Prometheus 3 writes it, with a point and a zero", () => {
    check([{ method: PLACE_ORDER, p99: "2.0", calls: 1000, fast: 1000 }], "RpcLatencyBudgetBurns", 70, []);
  });

  it("know the budget of every method", async () => {
    const rules = readFileSync(RULES, "utf8");
    const missing = (await contractMethods()).filter((method) => !rules.includes(`rpc_method: "${methodPath(method)}"`));
    assert.deepEqual(missing.map(methodPath), []);
  });
});
