import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { root } from "../../tools/checks/run.ts";
import { findProgram } from "../../tools/stores/programs.ts";

/** A series by its text, and what it is from minute to minute, in promtool's words. */
type Series = readonly [series: string, values: string];

/** What must hold for each alert to fire, what it then names, and the same a little better, at which it is silent. */
const CASES: readonly (readonly [alert: string, labels: string, bad: readonly Series[], well: readonly Series[]])[] = [
  [
    "OutboxStuck",
    'severity="page", souk_service="catalog"',
    // The processes of a service say the same; one that asked a moment before says a little less.
    [
      ['souk_outbox_age_seconds{namespace="shop", pod="a", souk_service="catalog"}', "0+60x60"],
      ['souk_outbox_age_seconds{namespace="shop", pod="b", souk_service="catalog"}', "0+59x60"],
    ],
    [['souk_outbox_age_seconds{namespace="shop", souk_service="catalog"}', "200x60"]],
  ],
  [
    "EventsLate",
    'messaging_consumer_group_name="search.index", severity="ticket"',
    [
      ['souk_event_delay_seconds_bucket{namespace="shop", messaging_consumer_group_name="search.index", le="60"}', "0+10x60"],
      ['souk_event_delay_seconds_bucket{namespace="shop", messaging_consumer_group_name="search.index", le="300"}', "0+60x60"],
      ['souk_event_delay_seconds_bucket{namespace="shop", messaging_consumer_group_name="search.index", le="+Inf"}', "0+60x60"],
    ],
    [
      ['souk_event_delay_seconds_bucket{namespace="shop", messaging_consumer_group_name="search.index", le="60"}', "0+60x60"],
      ['souk_event_delay_seconds_bucket{namespace="shop", messaging_consumer_group_name="search.index", le="+Inf"}', "0+60x60"],
    ],
  ],
  [
    "JobsOverdue",
    'severity="page", souk_service="order"',
    [['souk_jobs_age_seconds{namespace="shop", souk_service="order"}', "0+60x60"]],
    [['souk_jobs_age_seconds{namespace="shop", souk_service="order"}', "250x60"]],
  ],
  [
    "DeadLettersWait",
    'severity="ticket", souk_service="payment"',
    [['souk_dead_letters{namespace="shop", souk_service="payment"}', "1x60"]],
    [['souk_dead_letters{namespace="shop", souk_service="payment"}', "0x60"]],
  ],
  [
    "DatabaseFails",
    'severity="page", souk_service="order"',
    [['souk_database_reachable{namespace="shop", pod="a", souk_service="order"}', "1 0x60"]],
    [
      ['souk_database_reachable{namespace="shop", pod="a", souk_service="order"}', "0x60"],
      ['souk_database_reachable{namespace="shop", pod="b", souk_service="order"}', "1x60"],
    ],
  ],
  [
    "RedisFails",
    'severity="page"',
    [
      ['db_client_operation_duration_seconds_count{namespace="shop", db_system_name="redis", db_operation_name="PING"}', "9x60"],
      ['db_client_operation_duration_seconds_count{namespace="shop", db_system_name="redis", error_type="Error"}', "0+90x60"],
    ],
    [
      ['db_client_operation_duration_seconds_count{namespace="shop", db_system_name="redis", db_operation_name="PING"}', "0+90x60"],
      ['db_client_operation_duration_seconds_count{namespace="shop", db_system_name="redis", error_type="Error"}', "0+9x60"],
      ['db_client_operation_duration_seconds_count{namespace="shop", db_system_name="mariadb", error_type="Error"}', "0+90x60"],
    ],
  ],
  [
    "ServiceDown",
    'deployment="souk-order", severity="page"',
    [
      ['kube_deployment_status_replicas_available{namespace="shop", deployment="souk-order"}', "0x60"],
      ['kube_deployment_spec_replicas{namespace="shop", deployment="souk-order"}', "2x60"],
    ],
    [
      ['kube_deployment_status_replicas_available{namespace="shop", deployment="souk-order"}', "0x60"],
      ['kube_deployment_spec_replicas{namespace="shop", deployment="souk-order"}', "0x60"],
      ['kube_deployment_status_replicas_available{namespace="shop", deployment="other"}', "0x60"],
      ['kube_deployment_spec_replicas{namespace="shop", deployment="other"}', "2x60"],
    ],
  ],
  [
    "PodsRestart",
    'pod="souk-order-1", severity="page"',
    [['kube_pod_container_status_restarts_total{namespace="shop", pod="souk-order-1", container="souk"}', "0+1x60"]],
    [['kube_pod_container_status_restarts_total{namespace="shop", pod="souk-order-1", container="souk"}', "0x30 1x30"]],
  ],
  [
    "HpaAtMaximum",
    'horizontalpodautoscaler="souk-catalog", severity="ticket"',
    [
      ['kube_horizontalpodautoscaler_status_current_replicas{namespace="shop", horizontalpodautoscaler="souk-catalog"}', "20x60"],
      ['kube_horizontalpodautoscaler_spec_max_replicas{namespace="shop", horizontalpodautoscaler="souk-catalog"}', "20x60"],
    ],
    [
      ['kube_horizontalpodautoscaler_status_current_replicas{namespace="shop", horizontalpodautoscaler="souk-catalog"}', "19x60"],
      ['kube_horizontalpodautoscaler_spec_max_replicas{namespace="shop", horizontalpodautoscaler="souk-catalog"}', "20x60"],
    ],
  ],
  [
    "CallsShed",
    'rpc_method="a.B/C", severity="page"',
    [
      ['rpc_server_call_duration_seconds_count{namespace="shop", rpc_method="a.B/C", rpc_status_code="OK"}', "0+900x60"],
      ['rpc_server_call_duration_seconds_count{namespace="shop", rpc_method="a.B/C", souk_reason="OVERLOADED"}', "0+20x60"],
    ],
    [
      ['rpc_server_call_duration_seconds_count{namespace="shop", rpc_method="a.B/C", rpc_status_code="OK"}', "0+900x60"],
      ['rpc_server_call_duration_seconds_count{namespace="shop", rpc_method="a.B/C", souk_reason="OVERLOADED"}', "0+5x60"],
      ['rpc_server_call_duration_seconds_count{namespace="shop", rpc_method="a.B/C", souk_reason="OUT_OF_STOCK"}', "0+90x60"],
    ],
  ],
  [
    "TokensRefused",
    'severity="page"',
    [
      ['rpc_server_call_duration_seconds_count{namespace="shop", rpc_status_code="OK"}', "0+60x60"],
      ['rpc_server_call_duration_seconds_count{namespace="shop", souk_reason="TOKEN_INVALID"}', "0+40x60"],
    ],
    [
      ['rpc_server_call_duration_seconds_count{namespace="shop", rpc_status_code="OK"}', "0+60x60"],
      ['rpc_server_call_duration_seconds_count{namespace="shop", souk_reason="TOKEN_EXPIRED"}', "0+10x60"],
    ],
  ],
  ["MeasurementsMissing", 'severity="ticket"', [], [['souk_server_calls{namespace="shop"}', "0x60"]]],
];

/** The rules as the chart installs them for a release. */
function rulesOf(namespace: string, prefix: string): string {
  const text = readFileSync(join(root, "helm/souk/rules/operation.yaml"), "utf8");
  return text.replaceAll("$NAMESPACE", namespace).replaceAll("$PREFIX", prefix);
}

/** Asks promtool in one run whether, after 55 minutes, exactly the expected alerts fire in each case. */
function check(
  cases: readonly { readonly alert: string; readonly series: readonly Series[]; readonly firing: string | undefined }[],
) {
  const { file, env } = findProgram("promtool");
  const folder = mkdtempSync(join(tmpdir(), "souk-promtool-"));
  try {
    writeFileSync(join(folder, "rules.yaml"), rulesOf("shop", "souk-"));
    const tests = cases.map(({ alert, series, firing }) => ({
      interval: "1m",
      input_series: series.map(([name, values]) => ({ series: name, values })),
      promql_expr_test: [
        {
          expr: `ALERTS{alertname="${alert}", alertstate="firing"}`,
          eval_time: "55m",
          exp_samples: firing === undefined ? [] : [{ labels: firing, value: 1 }],
        },
      ],
    }));
    // JSON is YAML.
    const path = join(folder, "test.yaml");
    writeFileSync(path, JSON.stringify({ rule_files: ["rules.yaml"], evaluation_interval: "1m", tests }));
    return spawnSync(file, ["test", "rules", path], { encoding: "utf8", cwd: folder, env: { ...process.env, ...env } });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

describe("the alert rules beside the budgets", () => {
  it("are all tested here", () => {
    const named = [...rulesOf("shop", "souk-").matchAll(/- alert: (\w+)/g)].map(([, name]) => name);
    assert.deepEqual(named.sort(), CASES.map(([alert]) => alert).sort());
  });

  it("fire for what is wrong, and name it once", () => {
    const cases = CASES.map(([alert, labels, bad]) => ({
      alert,
      series: bad,
      firing: `ALERTS{alertname="${alert}", alertstate="firing", namespace="shop", ${labels}}`,
    }));
    const { status, stdout, stderr } = check(cases);
    assert.equal(status, 0, stdout + stderr);
  });

  it("are silent where all is well, and where it is wrong with another release", () => {
    const well = CASES.map(([alert, , , series]) => ({ alert, series, firing: undefined }));
    const elsewhere = CASES.filter(([, , bad]) => bad.length > 0).map(([alert, , bad]) => ({
      alert,
      series: bad.map(([name, values]): Series => [name.replace('namespace="shop"', 'namespace="other"'), values]),
      firing: undefined,
    }));
    const { status, stdout, stderr } = check([...well, ...elsewhere]);
    assert.equal(status, 0, stdout + stderr);
  });
});
