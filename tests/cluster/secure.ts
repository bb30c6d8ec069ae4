import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import type { LookupFunction } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Interceptor, Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { run } from "../../tools/checks/run.ts";
import { GATEWAY_HTTPS_URL, GATEWAY_NAMESPACE, tool } from "./cluster.ts";
import { IMAGE } from "./release.ts";

/** A certificate at the gateway, by an authority of its own. */
export interface Secured {
  /** The secret in the gateway's namespace, as `gateway.tlsSecret` takes it. */
  readonly secret: string;
  /** The certificate of the authority that signed it, and of one of the same name that did not. */
  readonly authority: string;
  readonly otherAuthority: string;
  end(): Promise<void>;
}

/** Makes an authority and has it certify a host, for the gateway. */
export async function secure(secret: string, host: string): Promise<Secured> {
  const folder = await mkdtemp(join(tmpdir(), "souk-authority-"));
  const file = (name: string) => join(folder, name);
  const certify = async (name: string, subject: string, ...more: string[]) => {
    const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", file(`${name}.key`)];
    const args = ["req", "-x509", ...key, "-out", file(`${name}.pem`), "-days", "2", "-subj", `/CN=${subject}`, ...more];
    const { code, output } = await run("openssl", args);
    if (code !== 0) throw new Error(`openssl ${args.join(" ")}\n${output}`);
  };
  try {
    for (const name of ["authority", "other"]) await certify(name, "An authority of a test");
    const extensions = [`subjectAltName=DNS:${host}`, "basicConstraints=critical,CA:FALSE"].flatMap((each) => ["-addext", each]);
    await certify("host", host, "-CA", file("authority.pem"), "-CAkey", file("authority.key"), ...extensions);
    const files = [`--cert=${file("host.pem")}`, `--key=${file("host.key")}`];
    await tool("kubectl", "-n", GATEWAY_NAMESPACE, "create", "secret", "tls", secret, ...files);
    return {
      secret,
      authority: await readFile(file("authority.pem"), "utf8"),
      otherAuthority: await readFile(file("other.pem"), "utf8"),
      end: async () => void (await tool("kubectl", "-n", GATEWAY_NAMESPACE, "delete", "secret", secret)),
    };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** A connection that no call uses is closed at once: a gateway that is configured anew ends it anyway. */
const IDLE_MS = 500;

/** The way to a host at the gateway over HTTPS, for who trusts one authority: Connect over this version of HTTP, or gRPC. */
export function securely(host: string, authority: string, how: "1.1" | "2" | "grpc", interceptors: Interceptor[] = []): Transport {
  const { hostname, port } = new URL(GATEWAY_HTTPS_URL);
  // In place of DNS: the URL has the host's own name.
  const lookup: LookupFunction = (_name, options, done) =>
    options.all ? done(null, [{ address: hostname, family: 4 }]) : done(null, hostname, 4);
  const options = { baseUrl: `https://${host}:${port}`, interceptors, nodeOptions: { ca: authority, lookup } };
  if (how === "1.1") return createConnectTransport({ ...options, httpVersion: how });
  const open = how === "2" ? createConnectTransport : createGrpcTransport;
  return open({ ...options, httpVersion: "2", idleConnectionTimeoutMs: IDLE_MS });
}

/** Runs a whole marketplace in one pod under the name of a release's catalog, with embedded stores. */
export async function startCatalog(release: string): Promise<void> {
  const labels = { "app.kubernetes.io/name": "catalog", "app.kubernetes.io/instance": release };
  const metadata = { name: `${release}-catalog`, namespace: release, labels };
  const env = { SOUK_ENV: "development", SOUK_HOST: "0.0.0.0", SOUK_PORT: "8080" };
  const container = {
    name: "souk",
    image: IMAGE,
    imagePullPolicy: "IfNotPresent",
    args: ["services/main.ts"],
    env: Object.entries(env).map(([name, value]) => ({ name, value })),
    readinessProbe: { httpGet: { path: "/readyz", port: 8080 }, periodSeconds: 1, failureThreshold: 60 },
    resources: { requests: { cpu: "10m", memory: "64Mi" } },
    volumeMounts: [{ name: "data", mountPath: "/var/lib/souk" }],
  };
  const items = [
    { apiVersion: "v1", kind: "ServiceAccount", metadata },
    {
      apiVersion: "v1",
      kind: "Service",
      metadata,
      spec: { selector: labels, ports: [{ name: "grpc", port: 8080, appProtocol: "kubernetes.io/h2c" }] },
    },
    {
      apiVersion: "v1",
      kind: "Pod",
      metadata,
      spec: {
        serviceAccountName: metadata.name,
        enableServiceLinks: false,
        securityContext: { fsGroup: 1000 },
        containers: [container],
        volumes: [{ name: "data", emptyDir: {} }],
      },
    },
  ];
  const folder = await mkdtemp(join(tmpdir(), "souk-catalog-"));
  try {
    const file = join(folder, "catalog.json");
    await writeFile(file, JSON.stringify({ apiVersion: "v1", kind: "List", items }));
    await tool("kubectl", "apply", "-f", file);
    await tool("kubectl", "-n", release, "wait", "--for=condition=ready", `pod/${metadata.name}`, "--timeout=120s");
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
