import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { tool } from "./cluster.ts";

const IMAGES = {
  mariadb: process.env.SOUK_CLUSTER_MARIADB_IMAGE ?? "localhost/mariadb:10.11",
  redis: process.env.SOUK_CLUSTER_REDIS_IMAGE ?? "localhost/redis:7.0",
};
/** Good for a namespace that nobody outside the cluster can reach, and that goes with its test. */
const PASSWORD = "only-for-tests";
const PORTS = { mariadb: 3306, redis: 6379 };

/** A store that can be killed. */
export type StoreName = keyof typeof PORTS;

/** Where stores are. */
export interface StoresPlace {
  /** The full name of MariaDB's Service. */
  readonly mariadb: string;
  readonly redisUrl: string;
}

/** Where the stores of a namespace's own are. */
export function ownPlace(namespace: string): StoresPlace {
  const host = (name: StoreName) => `${name}.${namespace}.svc.cluster.local`;
  return { mariadb: host("mariadb"), redisUrl: `redis://:${PASSWORD}@${host("redis")}:${PORTS.redis}` };
}

/** Puts a MariaDB and a Redis into a namespace, outside the mesh as a managed service would be. They are as restricted as the marketplace's own pods. */
export async function openStores(namespace: string): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "souk-stores-"));
  try {
    const file = join(folder, "stores.json");
    const items = [
      ...manifests("mariadb", {
        env: [
          { name: "MARIADB_ROOT_PASSWORD", value: PASSWORD },
          { name: "POD_IP", valueFrom: { fieldRef: { fieldPath: "status.podIP" } } },
        ],
        folders: { data: "/var/lib/mysql", run: "/run/mysqld", tmp: "/tmp" },
        // Over TCP, which it takes only when all is there.
        ready: 'MYSQL_PWD="$MARIADB_ROOT_PASSWORD" exec mariadb -h "$POD_IP" -u root -e "SELECT 1"',
      }),
      ...manifests("redis", {
        args: ["--requirepass", PASSWORD, "--protected-mode", "no"],
        folders: { data: "/data" },
        ready: `REDISCLI_AUTH=${PASSWORD} redis-cli ping | grep -q PONG`,
      }),
    ];
    writeFileSync(file, JSON.stringify({ apiVersion: "v1", kind: "List", items }));
    await tool("kubectl", "-n", namespace, "apply", "-f", file);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  for (const name of ["mariadb", "redis"]) await rolledOut(namespace, name);
}

/** Waits until a Deployment of a namespace has all its pods ready. */
export async function rolledOut(namespace: string, deployment: string): Promise<void> {
  await tool("kubectl", "-n", namespace, "rollout", "status", `deploy/${deployment}`, "--timeout=120s");
}

/** Kills a store as a machine that fails would: its process is gone at once, and its files stay. */
export async function killStore(namespace: string, name: StoreName): Promise<void> {
  const program = { mariadb: "mariadbd", redis: "redis-server" }[name];
  // The containers of the pod share their processes, or the first one of a container could not be killed from within.
  const script = `for each in /proc/[0-9]*; do [ "$(cat $each/comm 2>/dev/null)" = ${program} ] && kill -9 \${each#/proc/} && exit 0; done; exit 1`;
  await tool("kubectl", "-n", namespace, "exec", `deploy/${name}`, "--", "bash", "-c", script);
}

interface Store {
  readonly env?: readonly object[];
  readonly args?: readonly string[];
  readonly folders: Readonly<Record<string, string>>;
  /** Succeeds when the store takes questions. */
  readonly ready: string;
}

function manifests(name: StoreName, { env = [], args = [], folders, ready }: Store): object[] {
  const names = Object.keys(folders);
  const container = {
    name,
    image: IMAGES[name],
    args,
    env,
    ports: [{ containerPort: PORTS[name], name }],
    readinessProbe: { exec: { command: ["bash", "-c", ready] }, periodSeconds: 1, timeoutSeconds: 5 },
    resources: { requests: { cpu: "10m", memory: "64Mi" }, limits: { memory: "768Mi" } },
    securityContext: { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ["ALL"] } },
    volumeMounts: names.map((each) => ({ name: each, mountPath: folders[each] })),
  };
  const user = { runAsNonRoot: true, runAsUser: 999, runAsGroup: 999, fsGroup: 999, seccompProfile: { type: "RuntimeDefault" } };
  const pod = {
    shareProcessNamespace: true,
    terminationGracePeriodSeconds: 5,
    automountServiceAccountToken: false,
    securityContext: user,
    containers: [container],
    volumes: names.map((each) => ({ name: each, emptyDir: {} })),
  };
  const labels = { app: name, "sidecar.istio.io/inject": "false" };
  return [
    {
      apiVersion: "apps/v1",
      kind: "Deployment",
      metadata: { name },
      spec: {
        strategy: { type: "Recreate" },
        selector: { matchLabels: { app: name } },
        template: { metadata: { labels }, spec: pod },
      },
    },
    {
      apiVersion: "v1",
      kind: "Service",
      metadata: { name },
      spec: { selector: { app: name }, ports: [{ name: `tcp-${name}`, port: PORTS[name], targetPort: name }] },
    },
  ];
}
