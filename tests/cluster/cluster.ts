import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { exportJWK, generateKeyPair, SignJWT } from "jose";
import { root, run } from "../../tools/checks/run.ts";

/** Where the cluster's ingress gateway is reached, and where it runs; the variables say so for a cluster of one's own. */
export const GATEWAY_URL = process.env.SOUK_CLUSTER_GATEWAY_URL ?? "http://192.168.77.2:30080";
export const GATEWAY_HTTPS_URL = process.env.SOUK_CLUSTER_GATEWAY_HTTPS_URL ?? "https://192.168.77.2:30443";
export const GATEWAY_NAMESPACE = process.env.SOUK_CLUSTER_GATEWAY_NAMESPACE ?? "istio-ingress";

/** Runs kubectl, helm or istioctl; fails with what it printed. */
export async function tool(program: "kubectl" | "helm" | "istioctl", ...args: string[]): Promise<string> {
  const { code, output } = await run(program, args);
  if (code !== 0) throw new Error(`${program} ${args.join(" ")}\n${output}`);
  return output;
}

/** What is installed: by a name of its own choice, after what `prepare` does in its namespace, with more of the mesh chart's egress. */
export interface Installation {
  readonly name?: string;
  /** Labels of the namespace, such as `istio-injection=enabled`, which they are unless given. */
  readonly labels?: readonly string[];
  readonly prepare?: () => Promise<void>;
  readonly values: Readonly<Record<string, unknown>>;
  readonly egress?: Readonly<Record<string, unknown>>;
}

/** Installs a chart into a namespace of its own and waits until it is ready, for the tests of one file. */
export async function install(
  chart: string,
  { name = randomName(), labels = ["istio-injection=enabled"], prepare, values, egress }: Installation,
): Promise<Installed> {
  const folder = mkdtempSync(join(tmpdir(), "souk-cluster-"));
  const file = join(folder, "values.yaml");
  const mesh = { ...(values.mesh as object | undefined), ...(egress === undefined ? {} : { egress }) };
  // JSON is YAML.
  writeFileSync(file, JSON.stringify(egress === undefined ? values : { ...values, mesh }));
  await tool("kubectl", "create", "namespace", name);
  if (labels.length > 0) await tool("kubectl", "label", "namespace", name, ...labels);
  const end = async () => {
    await run("helm", ["uninstall", name, "--namespace", name, "--wait"]);
    await tool("kubectl", "delete", "namespace", name, "--wait=false");
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    await prepare?.();
    await tool("helm", "install", name, resolve(root, chart), "--namespace", name, "--values", file, "--wait", "--timeout", "5m");
  } catch (error) {
    const pods = await run("kubectl", ["-n", name, "get", "pods"]);
    await end();
    throw new Error(pods.output, { cause: error });
  }
  return { name, values: file, end };
}

function randomName(): string {
  return `souk-${randomBytes(3).toString("hex")}`;
}

/** A release in a namespace of the same name. */
export interface Installed {
  readonly name: string;
  /** The file with the values it was installed with. */
  readonly values: string;
  end(): Promise<void>;
}

/** Who signs tokens in a test: keys that the mesh is given, and tokens that say what the test wants. */
export async function issuer(url: string) {
  const { privateKey, publicKey } = await generateKeyPair("ES256", { extractable: true });
  const jwks = JSON.stringify({ keys: [{ ...(await exportJWK(publicKey)), kid: "1", alg: "ES256", use: "sig" }] });
  const token = (subject: string, { issuer = url, audience = "souk", expires = "1h", roles = [] as string[] } = {}) =>
    new SignJWT({ roles })
      .setProtectedHeader({ alg: "ES256", typ: "at+jwt", kid: "1" })
      .setIssuer(issuer)
      .setAudience(audience)
      .setSubject(subject)
      .setIssuedAt()
      .setExpirationTime(expires)
      .sign(privateKey);
  return { url, jwks, token };
}

/** A port of a pod, on this machine. */
export interface Forwarded {
  readonly url: string;
  close(): void;
}

/** Reaches a port of a pod at its own loopback address, past the proxy before it. */
export function forward(namespace: string, pod: string, port: number): Promise<Forwarded> {
  const child = spawn("kubectl", ["-n", namespace, "port-forward", `pod/${pod}`, `:${port}`], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  return new Promise((resolve, reject) => {
    let output = "";
    const read = (chunk: Buffer) => {
      output += chunk;
      const address = /Forwarding from (127\.0\.0\.1:\d+)/.exec(output)?.[1];
      if (address !== undefined) resolve({ url: `http://${address}`, close: () => void child.kill() });
    };
    child.stdout.on("data", read);
    child.stderr.on("data", read);
    child.once("error", reject);
    child.once("close", () => reject(new Error(`kubectl port-forward pod/${pod} ended: ${output}`)));
  });
}

/** Asks again and again until the answer is there; fails after half a minute, or as long as it may take. */
export async function until(what: string, ask: () => Promise<boolean>, seconds = 30): Promise<void> {
  for (const end = Date.now() + seconds * 1_000; Date.now() < end; ) {
    if (await ask().catch(() => false)) return;
    await sleep(500);
  }
  throw new Error(`${what} did not come true within ${seconds} s`);
}
