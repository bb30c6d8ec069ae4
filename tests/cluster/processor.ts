import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { tool } from "./cluster.ts";
import { rolledOut } from "./stores.ts";

const NAME = "processor";
const PORT = 8080;

/**
 * Puts a simulated processor into a namespace, outside the mesh and the release, as a real one is: its books outlive an upgrade. It is reached at
 * `http://processor.NAMESPACE.svc.cluster.local:8080/v1`.
 */
export async function openProcessor(namespace: string, image: string): Promise<void> {
  const labels = { app: NAME, "sidecar.istio.io/inject": "false" };
  const env = {
    SOUK_ENV: "development",
    SOUK_HOST: "0.0.0.0",
    SOUK_PORT: `${PORT}`,
    SOUK_SIMULATOR_FILE: "/var/lib/souk/processor.db",
  };
  const container = {
    name: NAME,
    image,
    args: ["services/processor.ts"],
    env: Object.entries(env).map(([name, value]) => ({ name, value })),
    ports: [{ containerPort: PORT, name: "http" }],
    readinessProbe: { httpGet: { path: "/readyz", port: "http" }, periodSeconds: 1, timeoutSeconds: 5 },
    resources: { requests: { cpu: "10m", memory: "64Mi" }, limits: { memory: "256Mi" } },
    securityContext: { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ["ALL"] } },
    volumeMounts: [
      { name: "data", mountPath: "/var/lib/souk" },
      { name: "tmp", mountPath: "/tmp" },
    ],
  };
  const pod = {
    automountServiceAccountToken: false,
    enableServiceLinks: false,
    securityContext: {
      runAsNonRoot: true,
      runAsUser: 1000,
      runAsGroup: 1000,
      fsGroup: 1000,
      seccompProfile: { type: "RuntimeDefault" },
    },
    containers: [container],
    volumes: ["data", "tmp"].map((name) => ({ name, emptyDir: {} })),
  };
  const items = [
    {
      apiVersion: "apps/v1",
      kind: "Deployment",
      metadata: { name: NAME },
      spec: {
        strategy: { type: "Recreate" },
        selector: { matchLabels: { app: NAME } },
        template: { metadata: { labels }, spec: pod },
      },
    },
    {
      apiVersion: "v1",
      kind: "Service",
      metadata: { name: NAME },
      spec: { selector: { app: NAME }, ports: [{ name: "http", port: PORT, targetPort: "http" }] },
    },
  ];
  const folder = mkdtempSync(join(tmpdir(), "souk-processor-"));
  try {
    const file = join(folder, "processor.json");
    writeFileSync(file, JSON.stringify({ apiVersion: "v1", kind: "List", items }));
    await tool("kubectl", "-n", namespace, "apply", "-f", file);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  await rolledOut(namespace, NAME);
}
