import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadOrCreateKeys } from "#runtime/tokens.ts";
import { root } from "../../tools/checks/run.ts";
import { type Forwarded, forward, install, tool } from "./cluster.ts";
import type { Job, Outcome } from "./lab/caller.ts";
import type { Attempt } from "./lab/faulty-proxy.ts";
import type { Orders } from "./lab/workload.ts";
import { asAdministrator, databaseOf, IMAGE, MARIADB } from "./release.ts";

/** The workloads of the lab, each of which has one pod unless it says how many; `track` tells pods of one workload apart. */
interface Workload {
  readonly name: string;
  readonly replicas?: number;
  readonly track?: "stable" | "canary";
}

const WORKLOADS: readonly Workload[] = [
  { name: "ops" },
  { name: "order" },
  { name: "catalog" },
  { name: "inventory", replicas: 3 },
  { name: "account" },
  { name: "account", track: "canary" },
];
/** Of a lab without the chart, which is only compared with. */
const PLAIN_WORKLOADS: readonly Workload[] = [
  { name: "ops" },
  { name: "order" },
  { name: "catalog" },
  { name: "inventory", replicas: 3 },
];
/** Of a lab without sidecars. */
const BARE_WORKLOADS: readonly Workload[] = [{ name: "order" }, { name: "account" }];

const PROGRAMS = ["faulty-proxy.ts", "workload.ts", "caller.ts"];

/** Workloads that fail when they are told to, in pods of their own with the real proxies, under the names and the policies of the marketplace. */
export interface Lab {
  /** The namespace, and the release. */
  readonly name: string;
  /** Makes calls from within a workload's pod. */
  call(job: Job): Promise<Outcome>;
  /** The names of a workload's pods. */
  pods(workload: string, track?: string): Promise<string[]>;
  /** Tells a pod, or all pods of a workload, what to do. */
  tell(to: string, orders: Orders): Promise<void>;
  /** The attempts that reached a workload's pods, in the order of time. */
  attempts(workload: string): Promise<(Attempt & { readonly pod: string })[]>;
  /** How many attempts each pod of a workload has had. */
  counts(workload: string): Promise<Record<string, number>>;
  /** Sums up a counter of a workload's proxies for the calls to another workload, such as `upstream_rq_retry`. */
  stat(from: string, to: string, counter: string): Promise<number>;
  /** Upgrades the chart with values changed as `helm --set` has them. */
  upgrade(...settings: string[]): Promise<void>;
  end(): Promise<void>;
}

/** Opens a lab under the chart's policies, changed by values. */
export async function openLab(values: Readonly<Record<string, unknown>> = {}): Promise<Lab> {
  const name = newName();
  const database = name.replace("-", "_");
  const password = randomBytes(12).toString("hex");
  await asAdministrator(databaseOf(database, password));
  const [host, namespace] = [MARIADB, MARIADB.split(".")[1] ?? "stores"];
  const drop = () => asAdministrator(`DROP DATABASE ${database}; DROP USER '${database}'@'%';`);
  const installed = await install("mesh", {
    name,
    prepare: () => startWorkloads(name, WORKLOADS, `mariadb://${database}:${password}@${host}:3306/${database}`),
    values: {
      environment: "development",
      gateway: { enabled: false },
      canaries: { account: { weight: 10 } },
      egress: { mysql: { host, port: 3306, protocol: "TCP", namespace, workloads: ["inventory"] } },
      ...values,
    },
  });
  return labOf({
    name,
    async upgrade(...settings) {
      const sets = settings.flatMap((setting) => ["--set", setting]);
      await tool("helm", "upgrade", name, join(root, "mesh"), "--namespace", name, "--values", installed.values, ...sets);
    },
    async end() {
      await installed.end();
      await drop();
    },
  });
}

/** Opens a lab without any policies of ours: in a mesh as Istio is by itself, or with no sidecars at all. */
export async function openPlainLab(what: "sidecars" | "no sidecars"): Promise<Lab> {
  const name = newName();
  await tool("kubectl", "create", "namespace", name);
  const end = async () => void (await tool("kubectl", "delete", "namespace", name, "--wait=false"));
  try {
    if (what === "sidecars") await tool("kubectl", "label", "namespace", name, "istio-injection=enabled");
    await startWorkloads(name, what === "sidecars" ? PLAIN_WORKLOADS : BARE_WORKLOADS);
    return labOf({ name, end });
  } catch (error) {
    await end();
    throw error;
  }
}

function newName(): string {
  return `lab-${randomBytes(3).toString("hex")}`;
}

async function startWorkloads(name: string, workloads: readonly Workload[], databaseUrl?: string): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "souk-lab-"));
  try {
    const keys = join(folder, "keys");
    await loadOrCreateKeys(keys);
    await tool("kubectl", "-n", name, "create", "secret", "generic", "keys", `--from-file=${keys}`);
    const programs = PROGRAMS.map((file) => `--from-file=${join(root, "tests/cluster/lab", file)}`);
    await tool("kubectl", "-n", name, "create", "configmap", "lab", ...programs);
    const items = workloads.flatMap((workload) => manifestsOf(name, workload, databaseUrl));
    const file = join(folder, "lab.json");
    writeFileSync(file, JSON.stringify({ apiVersion: "v1", kind: "List", items }));
    await tool("kubectl", "apply", "-f", file);
    await tool("kubectl", "-n", name, "wait", "--for=condition=available", "deploy", "--all", "--timeout=240s");
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function manifestsOf(
  release: string,
  { name, replicas = 1, track = "stable" }: Workload,
  databaseUrl: string | undefined,
): object[] {
  const fullName = `${release}-${name}`;
  const selector = { "app.kubernetes.io/name": name, "app.kubernetes.io/instance": release };
  const labels = { ...selector, track };
  const meta = (suffix = "") => ({ name: `${fullName}${suffix}`, namespace: release, labels });
  const env = {
    LAB_PEERS_URL: `http://${release}-{service}.${release}.svc.cluster.local:8080`,
    SOUK_ENV: "development",
    ...(databaseUrl === undefined || name !== "inventory" ? {} : { LAB_DATABASE_URL: databaseUrl }),
  };
  const deployment = {
    apiVersion: "apps/v1",
    kind: "Deployment",
    metadata: meta(track === "stable" ? "" : `-${track}`),
    spec: {
      replicas,
      selector: { matchLabels: labels },
      template: {
        metadata: { labels, annotations: { "proxy.istio.io/config": JSON.stringify(PROXY) } },
        spec: podOf(fullName, ["tests/cluster/lab/workload.ts", name], env),
      },
    },
  };
  if (track !== "stable") return [deployment];
  const service = { selector, ports: [{ name: "grpc", port: 8080, appProtocol: "kubernetes.io/h2c" }] };
  return [
    { apiVersion: "v1", kind: "ServiceAccount", metadata: meta() },
    { apiVersion: "v1", kind: "Service", metadata: meta(), spec: service },
    deployment,
  ];
}

/** As in the marketplace's chart; counters that Istio leaves out unless asked; and certificates that live for minutes, so that a test sees them replaced. */
const PROXY = {
  holdApplicationUntilProxyStarts: true,
  proxyStatsMatcher: { inclusionRegexps: ["cluster\\.outbound.*"] },
  proxyMetadata: { SECRET_TTL: "2m0s" },
};

function podOf(account: string, args: readonly string[], env: Readonly<Record<string, string>>): object {
  const files = PROGRAMS.map((file) => ({
    name: "lab",
    mountPath: `/souk/tests/cluster/lab/${file}`,
    subPath: file,
    readOnly: true,
  }));
  return {
    serviceAccountName: account,
    enableServiceLinks: false,
    terminationGracePeriodSeconds: 10,
    securityContext: { fsGroup: 1000 },
    containers: [
      {
        name: "souk",
        image: IMAGE,
        imagePullPolicy: "IfNotPresent",
        args,
        env: Object.entries(env).map(([name, value]) => ({ name, value })),
        readinessProbe: { httpGet: { path: "/readyz", port: 8081 }, periodSeconds: 1, failureThreshold: 30 },
        resources: { requests: { cpu: "10m", memory: "64Mi" } },
        volumeMounts: [
          { name: "data", mountPath: "/var/lib/souk" },
          { name: "keys", mountPath: "/etc/souk/keys", readOnly: true },
          ...files,
        ],
      },
    ],
    volumes: [
      { name: "data", emptyDir: {} },
      { name: "keys", secret: { secretName: "keys" } },
      { name: "lab", configMap: { name: "lab" } },
    ],
  };
}

interface Pod {
  readonly metadata: { readonly name: string; readonly deletionTimestamp?: string };
  readonly status: { readonly phase: string };
}

/** The lab that runs in a namespace. */
export function labOf({ name, upgrade = noUpgrade, end }: Pick<Lab, "name" | "end"> & Partial<Pick<Lab, "upgrade">>): Lab {
  const doors = new Map<string, Promise<Forwarded>>();
  const pods = async (workload: string, track?: string) => {
    const selector = `app.kubernetes.io/name=${workload}${track === undefined ? "" : `,track=${track}`}`;
    const found = JSON.parse(await tool("kubectl", "-n", name, "get", "pods", "-l", selector, "-o", "json")) as { items: Pod[] };
    // Those that are ending still run.
    const live = found.items.filter(({ metadata, status }) => !metadata.deletionTimestamp && status.phase === "Running");
    return live.map(({ metadata }) => metadata.name);
  };
  const ask = async <T>(pod: string, path: string, asked: unknown): Promise<T> => {
    const door = doors.get(pod) ?? forward(name, pod, 9001);
    doors.set(pod, door);
    const answer = await fetch(`${(await door).url}${path}`, { method: "POST", body: JSON.stringify(asked) });
    const text = await answer.text();
    if (answer.status !== 200) throw new Error(`${pod}${path}: ${text}`);
    return JSON.parse(text);
  };
  const look = (pod: string, orders: Orders = {}) =>
    ask<{ attempts: Attempt[]; counts: Record<string, number> }>(pod, "/tell", orders);
  const everywhere = async <T>(workload: string, each: (pod: string) => Promise<T>) =>
    Promise.all((await pods(workload)).map(each));
  return {
    name,
    upgrade,
    async end() {
      for (const door of doors.values()) (await door.catch(() => undefined))?.close();
      await end();
    },
    pods,
    call: async (job) => ask((await pods(job.as))[0] ?? "", "/call", job),
    async tell(to, orders) {
      if (to.startsWith(name)) await look(to, orders);
      else await everywhere(to, (pod) => look(pod, orders));
    },
    async attempts(workload) {
      const all = await everywhere(workload, async (pod) => (await look(pod)).attempts.map((attempt) => ({ ...attempt, pod })));
      return all.flat().sort((a, b) => a.beginTime - b.beginTime);
    },
    async counts(workload) {
      return Object.fromEntries(await everywhere(workload, async (pod) => [pod, sum(Object.values((await look(pod)).counts))]));
    },
    async stat(from, to, counter) {
      const all = await everywhere(from, (pod) => proxyStats(name, pod, counter));
      const line = new RegExp(`^cluster\\.outbound\\|8080\\|[^|]*\\|${name}-${to}\\.[^:]*[.;]${counter}: (\\d+)`, "gm");
      return sum([...all.join("\n").matchAll(line)].map(([, value]) => Number(value)));
    },
  };
}

function noUpgrade(): Promise<void> {
  throw new Error("There is no chart to upgrade.");
}

/** What Envoy itself counts in a pod, of names that hold this text. */
export function proxyStats(namespace: string, pod: string, filter: string): Promise<string> {
  const request = ["pilot-agent", "request", "GET", `stats?filter=${filter}`];
  return tool("kubectl", "-n", namespace, "exec", pod, "-c", "istio-proxy", "--", ...request);
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, each) => total + each, 0);
}
