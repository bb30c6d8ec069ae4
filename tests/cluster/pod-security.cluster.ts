import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseAllDocuments } from "yaml";
import { root } from "../../tools/checks/run.ts";
import { tool } from "./cluster.ts";
import { installSouk, type Release } from "./release.ts";

const STANDARD = "restricted";

/** An object of the cluster with pods. */
interface Workload {
  readonly kind: string;
  readonly metadata: { readonly name: string };
  readonly spec: { readonly template: { readonly metadata: object; readonly spec: object } };
}

describe("a namespace that enforces the restricted Pod Security Standard", function () {
  this.timeout(420_000);

  describe("without the mesh", () => {
    let release: Release;
    after(() => release?.end());

    it("takes a whole release, which passes its own test", async () => {
      release = await installSouk(() => ({ mesh: { enabled: false } }), {
        labels: [`pod-security.kubernetes.io/enforce=${STANDARD}`],
      });
      const said = await tool("helm", "test", release.name, "--namespace", release.name, "--timeout", "3m");
      assert.match(said, /Phase: +Succeeded/);
    });
  });

  // Istio's init container sets up the redirection of traffic, for which it needs NET_ADMIN and NET_RAW: with injection the namespace can enforce the
  // standard only where istio-cni does that instead. So here the standard warns, and whom it warns of is looked at.
  describe("with Istio's containers in the pods", () => {
    const namespace = `souk-${randomBytes(3).toString("hex")}`;
    const folder = mkdtempSync(join(tmpdir(), "souk-pods-"));
    before(async () => {
      await tool("kubectl", "create", "namespace", namespace);
      await tool(
        "kubectl",
        "label",
        "namespace",
        namespace,
        "istio-injection=enabled",
        `pod-security.kubernetes.io/warn=${STANDARD}`,
      );
    });
    after(async () => {
      rmSync(folder, { recursive: true, force: true });
      await tool("kubectl", "delete", "namespace", namespace, "--wait=false");
    });

    it("would refuse pods for Istio's init container alone", async () => {
      const workloads = await rendered(namespace);
      assert.ok(workloads.length >= 8, "all services and the migrations");
      for (const { metadata, spec } of workloads) {
        const { metadata: meta, spec: pod } = spec.template;
        // It would be made under this account, which is not there.
        const { serviceAccountName: _, ...withoutAccount } = pod as Record<string, unknown>;
        const warnings = await wouldBe({
          apiVersion: "v1",
          kind: "Pod",
          metadata: { ...meta, name: metadata.name },
          spec: withoutAccount,
        });
        const named = [...warnings.matchAll(/containers? ((?:"[^"]+"(?:, )?)+)/g)].flatMap(
          ([, names]) => names?.match(/[^", ]+/g) ?? [],
        );
        assert.deepEqual(
          named.filter((name) => !["istio-init", "istio-proxy", "istio-validation"].includes(name)),
          [],
          `${metadata.name}: ${warnings}`,
        );
      }
    });

    async function wouldBe(pod: object): Promise<string> {
      const file = join(folder, "pod.json");
      writeFileSync(file, JSON.stringify(pod));
      return tool("kubectl", "-n", namespace, "create", "--dry-run=server", "-f", file);
    }
  });
});

/** The workloads of a release in the mesh. */
async function rendered(namespace: string): Promise<Workload[]> {
  const values = join(root, "tests/charts/values/souk-production.yaml");
  const text = await tool("helm", "template", "souk", join(root, "helm/souk"), "--namespace", namespace, "--values", values);
  const objects = parseAllDocuments(text.slice(text.indexOf("---"))).map((document) => document.toJS() as Workload | null);
  return objects.filter((each) => each !== null && ["Deployment", "Job"].includes(each.kind)) as Workload[];
}
