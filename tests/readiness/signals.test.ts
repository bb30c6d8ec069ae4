import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "../../tools/checks/run.ts";
import { byName, golden } from "../charts/rendered.ts";
import { contractMethods } from "../support/contract.ts";

interface Panel {
  readonly type: string;
  readonly title: string;
  readonly targets?: readonly { readonly expr: string }[];
}

describe("the dashboard", () => {
  const { panels } = JSON.parse(readFileSync(join(root, "mesh/generated/dashboard.json"), "utf8")) as { panels: Panel[] };

  it("has for every service its calls, what is eaten and left of their error budgets, and how long they take", async () => {
    const services = new Set((await contractMethods()).map((method) => method.parent.typeName));
    assert.ok(services.size >= 7);
    for (const service of services) {
      const row = panels.findIndex(({ type, title }) => type === "row" && title === service);
      assert.notEqual(row, -1, service);
      const exprs = panels.slice(row + 1, row + 5).map(({ targets }) => targets?.[0]?.expr ?? "");
      assert.ok(
        exprs.every((expr) => expr.includes(service.replaceAll(".", "\\\\."))),
        service,
      );
      assert.match(exprs[0] as string, /_count/);
      assert.match(exprs[1] as string, /rpc:errors:ratio_rate1h.*rpc:error_budget:ratio/);
      assert.match(exprs[2] as string, /28d.*rpc:error_budget:ratio/);
      assert.match(exprs[3] as string, /histogram_quantile\(0\.99/);
    }
  });

  it("is installed by the chart where Grafana looks for it, with the alert rules where Prometheus does", () => {
    const resources = golden("mesh-everything");
    const [map] = [...byName(resources, "ConfigMap").values()] as unknown as { data: Record<string, string> }[];
    assert.equal(JSON.parse(map?.data["rpc-budgets.json"] ?? "null").uid, "rpc-budgets");
    assert.ok(byName(resources, "PrometheusRule").size >= 1);
  });
});

describe("every alert", () => {
  it("says how urgent it is, so that a page and a ticket go different ways", () => {
    for (const name of ["mesh-everything", "souk-plain"]) {
      const rules = [...byName(golden(name), "PrometheusRule").values()].flatMap(({ spec }) =>
        spec.groups.flatMap(
          (group: { rules: { alert?: string; labels: Record<string, string>; annotations: Record<string, string> }[] }) =>
            group.rules,
        ),
      );
      const alerts = rules.filter(({ alert }) => alert !== undefined);
      assert.ok(alerts.length >= 8);
      for (const { alert, labels, annotations } of alerts) {
        assert.match(labels.severity, /^(?:page|ticket)$/, alert);
        assert.ok(annotations.summary && annotations.description && annotations.runbook_url, alert);
      }
    }
  });
});
