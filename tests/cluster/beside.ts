import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { tool } from "./cluster.ts";

/** Something outside that the marketplace uses, as one pod with a Service of its name. */
export interface Outside {
  readonly name: string;
  readonly image: string;
  readonly port: { readonly number: number; readonly name: string; readonly serviceName?: string };
  readonly args?: readonly string[];
  readonly env?: readonly object[];
  /** What may be written, by name and path; empty at the start of the pod. */
  readonly folders: Readonly<Record<string, string>>;
  readonly readinessProbe: object;
  readonly memory: string;
  /** The id of the user and group that it runs as. */
  readonly user: number;
  /** More of the pod. */
  readonly pod?: object;
}

/** Puts such things into a namespace, outside the mesh and the release, as restricted as the marketplace's own pods; resolves when they are ready. */
export async function putBeside(namespace: string, outsides: readonly Outside[]): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "souk-beside-"));
  try {
    const file = join(folder, "list.json");
    writeFileSync(file, JSON.stringify({ apiVersion: "v1", kind: "List", items: outsides.flatMap(manifests) }));
    await tool("kubectl", "-n", namespace, "apply", "-f", file);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  for (const { name } of outsides) await rolledOut(namespace, name);
}

/** Waits until a Deployment of a namespace has all its pods ready. */
export async function rolledOut(namespace: string, deployment: string): Promise<void> {
  await tool("kubectl", "-n", namespace, "rollout", "status", `deploy/${deployment}`, "--timeout=120s");
}

function manifests({ name, image, port, args = [], env = [], folders, readinessProbe, memory, user, pod = {} }: Outside): object[] {
  const names = Object.keys(folders);
  const container = {
    name,
    image,
    args,
    env,
    ports: [{ containerPort: port.number, name: port.name }],
    readinessProbe: { ...readinessProbe, periodSeconds: 1, timeoutSeconds: 5 },
    resources: { requests: { cpu: "10m", memory: "64Mi" }, limits: { memory } },
    securityContext: { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ["ALL"] } },
    volumeMounts: names.map((each) => ({ name: each, mountPath: folders[each] })),
  };
  const spec = {
    automountServiceAccountToken: false,
    securityContext: {
      runAsNonRoot: true,
      runAsUser: user,
      runAsGroup: user,
      fsGroup: user,
      seccompProfile: { type: "RuntimeDefault" },
    },
    containers: [container],
    volumes: names.map((each) => ({ name: each, emptyDir: {} })),
    ...pod,
  };
  const labels = { app: name, "sidecar.istio.io/inject": "false" };
  return [
    {
      apiVersion: "apps/v1",
      kind: "Deployment",
      metadata: { name },
      spec: { strategy: { type: "Recreate" }, selector: { matchLabels: { app: name } }, template: { metadata: { labels }, spec } },
    },
    {
      apiVersion: "v1",
      kind: "Service",
      metadata: { name },
      spec: {
        selector: { app: name },
        ports: [{ name: port.serviceName ?? port.name, port: port.number, targetPort: port.name }],
      },
    },
  ];
}
