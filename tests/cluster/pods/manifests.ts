import { readFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "../../../tools/checks/run.ts";
import { GATEWAY_NAMESPACE } from "../cluster.ts";
import { IMAGE } from "../release.ts";

/** The workload that is the real program, with all services in its process; the others tell what reaches them. */
export const REAL = "catalog";

/** Workloads whose accounts' names strangers have, in another namespace. */
const ELSEWHERE = ["order", "search"];

/** All that stands on the cluster beside the chart. */
export function everything(name: string, elsewhere: string, workloads: readonly string[]): object[] {
  const program = readFileSync(join(root, "tests/cluster/pods/program.ts"), "utf8");
  const programs = [name, elsewhere, GATEWAY_NAMESPACE].map((namespace) => ({
    apiVersion: "v1",
    kind: "ConfigMap",
    metadata: { name: `${name}-program`, namespace, labels: { "souk-lab": name } },
    data: { "program.ts": program },
  }));
  const account = (namespace: string, service: string) => ({
    apiVersion: "v1",
    kind: "ServiceAccount",
    metadata: { name: `${name}-${service}`, namespace },
  });
  const callers = workloads.map((each) => podOf(name, { name: `as-${each}`, namespace: name, account: `${name}-${each}` }));
  return [
    ...programs,
    ...workloads.map((each) => account(name, each)),
    ...ELSEWHERE.map((each) => account(elsewhere, each)),
    ...workloads.flatMap((each) => workloadOf(name, each)),
    // One of two replicas, which fails the calls that ask for it.
    servedBy(name, { name: "workload-search-2", namespace: name, account: `${name}-search`, labels: labelsOf(name, "search") }, [
      "fails",
    ]),
    ...callers,
    podOf(name, { name: "as-default", namespace: name, account: "default" }),
    podOf(name, { name: "plain", namespace: name, account: "default", labels: { "sidecar.istio.io/inject": "false" } }),
    ...ELSEWHERE.map((each) => podOf(name, { name: `elsewhere-${each}`, namespace: elsewhere, account: `${name}-${each}` })),
    podOf(name, {
      name: `${name}-as-gateway`,
      namespace: GATEWAY_NAMESPACE,
      account: "istio-ingressgateway",
      labels: { "sidecar.istio.io/inject": "true" },
    }),
    servedBy(name, {
      name: "listener",
      namespace: elsewhere,
      account: "default",
      labels: { app: "listener", "sidecar.istio.io/inject": "false" },
    }),
    ...["declared", "undeclared"].map((service) => serviceOf(elsewhere, service, { app: "listener" })),
  ];
}

interface PodOptions {
  readonly name: string;
  readonly namespace: string;
  readonly account: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly command?: readonly string[];
  readonly env?: readonly object[];
}

function labelsOf(name: string, workload: string): Record<string, string> {
  return { "app.kubernetes.io/instance": name, "app.kubernetes.io/name": workload };
}

function workloadOf(name: string, workload: string): object[] {
  const options = {
    name: `workload-${workload}`,
    namespace: name,
    account: `${name}-${workload}`,
    labels: labelsOf(name, workload),
  };
  const identity = `spiffe://cluster.local/ns/${name}/sa/${name}-{service}`;
  const env = {
    SOUK_ENV: "development",
    SOUK_HOST: "0.0.0.0",
    SOUK_KEYS_DIR: "/etc/souk/keys",
    SOUK_MESH_IDENTITY: identity,
    SOUK_MESH_GATEWAY: `spiffe://cluster.local/ns/${GATEWAY_NAMESPACE}/sa/istio-ingressgateway`,
  };
  const real = {
    ...options,
    command: ["node", "--disable-warning=ExperimentalWarning", "services/main.ts"],
    env: Object.entries(env).map(([variable, value]) => ({ name: variable, value })),
  };
  const pod = workload === REAL ? podOf(name, real) : servedBy(name, options);
  return [pod, serviceOf(name, `${name}-${workload}`, labelsOf(name, workload))];
}

function serviceOf(namespace: string, name: string, selector: Record<string, string>): object {
  const ports = [{ name: "grpc", port: 8080, appProtocol: "kubernetes.io/h2c" }];
  return { apiVersion: "v1", kind: "Service", metadata: { name, namespace }, spec: { selector, ports } };
}

/** A pod that answers. */
function servedBy(name: string, options: PodOptions, more: readonly string[] = []): object {
  const who = options.labels?.["app.kubernetes.io/name"] ?? options.name;
  const command = ["node", "--disable-warning=ExperimentalWarning", "/lab/program.ts", "serve", who, "8080", ...more];
  return podOf(name, { ...options, command });
}

/** A pod that waits for what it is told, unless it has a command. */
function podOf(
  lab: string,
  { name, namespace, account, labels = {}, command = ["sleep", "infinity"], env = [] }: PodOptions,
): object {
  const small = { requests: { cpu: "5m", memory: "40Mi" }, limits: { memory: "400Mi" } };
  const isReal = command.includes("services/main.ts");
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: {
      name,
      namespace,
      labels: { ...labels, "souk-lab": lab },
      annotations: {
        "sidecar.istio.io/proxyCPU": "5m",
        "sidecar.istio.io/proxyMemory": "40Mi",
        "proxy.istio.io/config": '{"holdApplicationUntilProxyStarts": true, "concurrency": 1}',
        "inject.istio.io/templates": "sidecar",
      },
    },
    spec: {
      serviceAccountName: account,
      terminationGracePeriodSeconds: 0,
      enableServiceLinks: false,
      containers: [
        {
          name: "lab",
          image: IMAGE,
          command,
          env,
          resources: small,
          volumeMounts: [
            { name: "program", mountPath: "/lab" },
            { name: "data", mountPath: "/var/lib/souk" },
            ...(isReal ? [{ name: "keys", mountPath: "/etc/souk/keys" }] : []),
          ],
        },
      ],
      volumes: [
        { name: "program", configMap: { name: `${lab}-program` } },
        { name: "data", emptyDir: {} },
        ...(isReal ? [{ name: "keys", secret: { secretName: "keys" } }] : []),
      ],
      securityContext: { runAsUser: 1000, runAsGroup: 1000, fsGroup: 1000 },
    },
  };
}
