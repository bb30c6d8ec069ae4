import { createPublicKey, randomBytes } from "node:crypto";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseAllDocuments } from "yaml";
import { type Keys, loadOrCreateKeys } from "#runtime/tokens.ts";
import type { policies } from "../../mesh/plugin/policies.ts";
import { root, run } from "../../tools/checks/run.ts";
import type { Resource } from "../charts/rendered.ts";
import { GATEWAY_NAMESPACE, tool } from "./cluster.ts";
import { everything } from "./pods/manifests.ts";
import type { Answered, Asked } from "./pods/program.ts";

/** What `mesh/plugin` wrote of the contract. */
export type Policies = ReturnType<typeof policies>;

/** A method that is in no contract and that nobody may repeat; `order` may call it on `payment`, and `ops` on `search`. */
export const ONCE = "souk.lab.v1.LabService/Once";
/** Who signs the accounts' tokens. */
const ISSUER = "souk";
/** Longer than any call of the lab takes; streams outlive it. */
export const LONGEST_MS = 2_000;

/** The mesh chart on the cluster, with a pod for each workload, and pods that call with the identity of each. */
export interface Guarded {
  /** The name of the release and of its namespace. */
  readonly name: string;
  /** The gateway's host for it. */
  readonly host: string;
  /** Another namespace, with a place that egress names for `order` (declared) and one that it does not (undeclared). */
  readonly elsewhere: string;
  readonly keys: Keys;
  /** Where a workload is called. */
  urlOf(workload: string): string;
  /** Makes calls from within a pod: `workload/order` is the pod of order, `as/order` one with its identity and without its bounds; `as/default`,
   * `as/gateway`, `elsewhere/order`, `elsewhere/search` and `plain` are strangers. */
  ask(pod: string, asked: readonly Asked[]): Promise<Answered[]>;
  /** The place elsewhere, by its address. */
  listenerUrl(): Promise<string>;
  /** Changes the installed configuration: what `edit` does to a copy of the chart's files, or to its values; without, it is as declared again. */
  configure(edit?: Edit): Promise<void>;
}

/** A change of the chart. */
export interface Edit {
  /** Files of the chart, by their path, and what becomes of their text. */
  readonly files?: Readonly<Record<string, (text: string) => string>>;
  readonly policies?: (policies: Policies) => Policies;
  readonly values?: (values: ReturnType<typeof valuesOf>) => object;
}

/** Resources by kind and name, as JSON. */
type Rendered = ReadonlyMap<string, string>;

function rendered(text: string): Rendered {
  const documents = parseAllDocuments(text).map((document) => document.toJS() as Resource | null);
  const resources = documents.filter((each) => each !== null);
  return new Map(resources.map((each) => [`${each.kind} ${each.metadata.name}`, JSON.stringify(each)]));
}

/** Kinds of which the chart puts some beside the gateway. */
const OF_THE_GATEWAY = "gateways.networking.istio.io,requestauthentications,authorizationpolicies,envoyfilters";

let shared: Promise<Guarded & { end(): Promise<void> }> | undefined;

/** The one of this run, which the first who asks installs. */
export function guarded(): Promise<Guarded> {
  shared ??= installGuarded();
  return shared;
}

/** Ends the shared one, to make room: the last file that uses it does, and whichever did, what is left at the end of all. */
export async function endGuarded(): Promise<void> {
  const ending = shared;
  shared = undefined;
  await (await ending?.catch(() => undefined))?.end();
}

after(function () {
  this.timeout(120_000);
  return endGuarded();
});

function valuesOf(name: string, elsewhere: string, host: string, jwks: string) {
  return {
    environment: "development",
    issuer: { url: ISSUER, audience: "souk", jwks },
    gateway: {
      namespace: GATEWAY_NAMESPACE,
      hosts: [host],
      plainHttp: "serve",
      corsOrigins: ["https://shop.example"],
      rateLimits: { enabled: false },
    },
    egress: {
      declared: {
        host: `declared.${elsewhere}.svc.cluster.local`,
        port: 8080,
        protocol: "GRPC",
        namespace: elsewhere,
        workloads: ["order"],
      },
    },
    outliers: { interval: "1s" },
    connections: { idleTimeout: `${LONGEST_MS}ms` },
    // A stream must outlive all of these.
    methods: Object.fromEntries(
      readPolicies().workloads.flatMap(({ methods }) =>
        methods.filter(({ stream }) => !stream).map((method) => [method.name, { timeout: `${LONGEST_MS}ms` }]),
      ),
    ),
    names: { prefix: `${name}-` },
  };
}

/** The policies of the contract. */
export function readPolicies(): Policies {
  return JSON.parse(readFileSync(join(root, "mesh/generated/policies.json"), "utf8"));
}

/** The contract's policies, and a method that nobody may repeat. */
function withOnce(all: Policies): Policies {
  const { workloads } = all;
  return {
    ...all,
    workloads: workloads.map((workload) => {
      const caller = ({ payment: "order", search: "ops" } as Record<string, string>)[workload.name];
      const like = workload.methods.find(({ stream, access }) => !stream && access.services.includes(caller ?? ""));
      if (like === undefined) return workload;
      const once = { ...like, name: ONCE, attempts: 1, http: ["POST"], exposed: false };
      return { ...workload, methods: [...workload.methods, once] } as typeof workload;
    }),
  };
}

async function installGuarded(): Promise<Guarded & { end(): Promise<void> }> {
  const name = `guarded-${randomBytes(2).toString("hex")}`;
  const elsewhere = `${name}-x`;
  const host = `${name}.souk.example`;
  const folder = mkdtempSync(join(tmpdir(), "souk-guarded-"));
  const keys = await loadOrCreateKeys(join(folder, "keys"), { services: false });
  const jwk = createPublicKey(readFileSync(join(folder, "keys/accounts.pem"), "utf8")).export({ format: "jwk" });
  const values = valuesOf(name, elsewhere, host, JSON.stringify({ keys: [{ ...jwk, alg: "ES256", use: "sig" }] }));
  const workloads = readPolicies().workloads.map((workload) => workload.name);
  const render = async ({ files = {}, policies = (all) => all, values: change = (all) => all }: Edit) => {
    const chart = join(folder, "mesh");
    rmSync(chart, { recursive: true, force: true });
    cpSync(join(root, "mesh"), chart, { recursive: true });
    for (const [file, edit] of Object.entries(files)) {
      const before = readFileSync(join(chart, file), "utf8");
      const text = edit(before);
      if (text === before) throw new Error(`The change of ${file} changes nothing.`);
      writeFileSync(join(chart, file), text);
    }
    writeFileSync(join(chart, "generated/policies.json"), JSON.stringify(policies(withOnce(readPolicies()))));
    writeFileSync(join(folder, "values.yaml"), JSON.stringify(change(values)));
    return rendered(await tool("helm", "template", name, chart, "--namespace", name, "--values", join(folder, "values.yaml")));
  };
  let current: Rendered = new Map();
  const configure = async (edit: Edit = {}) => {
    const next = await render(edit);
    const kubectl = async (verb: string, keys: readonly string[], from: Rendered) => {
      const items = keys.map((key) => JSON.parse(from.get(key) as string));
      writeFileSync(join(folder, "changed.json"), JSON.stringify({ apiVersion: "v1", kind: "List", items }));
      if (items.length > 0) await tool("kubectl", verb, "-f", join(folder, "changed.json"));
    };
    const [before, keys] = [current, [...next.keys()]];
    current = next;
    await kubectl(
      "replace",
      keys.filter((key) => before.has(key) && before.get(key) !== next.get(key)),
      next,
    );
    await kubectl(
      "create",
      keys.filter((key) => !before.has(key)),
      next,
    );
    await kubectl(
      "delete",
      [...before.keys()].filter((key) => !next.has(key)),
      before,
    );
  };
  const end = async () => {
    await run("kubectl", ["-n", GATEWAY_NAMESPACE, "delete", OF_THE_GATEWAY, "-l", `app.kubernetes.io/part-of=${name}`]);
    await run("kubectl", ["-n", GATEWAY_NAMESPACE, "delete", "pod,configmap", "-l", `souk-lab=${name}`, "--wait=false"]);
    await run("kubectl", ["delete", "namespace", name, elsewhere, "--wait=false"]);
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    for (const namespace of [name, elsewhere]) {
      await tool("kubectl", "create", "namespace", namespace);
      await tool("kubectl", "label", "namespace", namespace, "istio-injection=enabled");
    }
    const files = ["accounts.pem", "page-tokens.key"].map((file) => `--from-file=${join(folder, "keys", file)}`);
    await tool("kubectl", "-n", name, "create", "secret", "generic", "keys", ...files);
    const manifest = join(folder, "pods.json");
    writeFileSync(manifest, JSON.stringify({ apiVersion: "v1", kind: "List", items: everything(name, elsewhere, workloads) }));
    await Promise.all([configure(), tool("kubectl", "apply", "-f", manifest)]);
    for (const namespace of [name, elsewhere, GATEWAY_NAMESPACE])
      await tool("kubectl", "-n", namespace, "wait", "pod", "-l", `souk-lab=${name}`, "--for=condition=Ready", "--timeout=240s");
  } catch (error) {
    const pods = await run("kubectl", ["get", "pods", "-A", "-l", `souk-lab=${name}`]);
    if (process.env.SOUK_CLUSTER_KEEP === undefined) await end();
    throw new Error(pods.output, { cause: error });
  }
  return {
    name,
    host,
    elsewhere,
    keys,
    urlOf: (workload) => `http://${name}-${workload}.${name}.svc.cluster.local:8080`,
    async ask(pod, asked) {
      const { namespace, podName } = placeOf(pod, name, elsewhere);
      const command = ["node", "--disable-warning=ExperimentalWarning", "/lab/program.ts", "ask", JSON.stringify(asked)];
      return JSON.parse(await tool("kubectl", "-n", namespace, "exec", podName, "-c", "lab", "--", ...command));
    },
    async listenerUrl() {
      return `http://${await tool("kubectl", "-n", elsewhere, "get", "pod", "listener", "-o", "jsonpath={.status.podIP}")}:8080`;
    },
    configure,
    end,
  };
}

function placeOf(pod: string, name: string, elsewhere: string): { namespace: string; podName: string } {
  const podName = pod.replace("/", "-");
  if (pod === "as/gateway") return { namespace: GATEWAY_NAMESPACE, podName: `${name}-${podName}` };
  return { namespace: pod.startsWith("elsewhere/") ? elsewhere : name, podName };
}
