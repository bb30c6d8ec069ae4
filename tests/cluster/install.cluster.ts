import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseAllDocuments } from "yaml";
import { loadOrCreateKeys } from "#runtime/tokens.ts";
import { TABLES } from "../../services/tables.ts";
import { root, run } from "../../tools/checks/run.ts";
import { GATEWAY_NAMESPACE, tool, until } from "./cluster.ts";
import { asAdministrator, databaseOf, IMAGE, imageValues } from "./release.ts";
import { openStores, ownPlace } from "./stores.ts";
import { askGateway } from "./through-gateway.ts";

const SERVICES = Object.keys(TABLES);
const PASSWORD = randomBytes(12).toString("hex");
const SECRETS = { database: "souk-database", redis: "souk-redis", keys: "souk-keys" };
const GATEWAY_HOST = "install-test.souk.example";

/** A namespace with the secrets that the chart asks for. */
async function makePlace(namespace: string, labels: readonly string[], redisUrl: string, keys: string): Promise<void> {
  await tool("kubectl", "create", "namespace", namespace);
  if (labels.length > 0) await tool("kubectl", "label", "namespace", namespace, ...labels);
  const secret = (name: string, ...from: string[]) =>
    tool("kubectl", "-n", namespace, "create", "secret", "generic", name, ...from);
  await secret(SECRETS.database, ...SERVICES.map((service) => `--from-literal=${service}=${PASSWORD}`));
  await secret(SECRETS.redis, `--from-literal=url=${redisUrl}`);
  await secret(SECRETS.keys, `--from-file=${keys}`);
}

/** A token of the built-in issuer for a demo account. */
async function tokenOf(namespace: string): Promise<string> {
  const url = `http://souk-issuer.${namespace}.svc.cluster.local:8080/token`;
  const answer = await fetch(url, { method: "POST", body: new URLSearchParams({ account: "ada" }) });
  return ((await answer.json()) as { access_token: string }).access_token;
}

/** The same token with another signature. */
function forged(token: string): string {
  const [header, payload, signature = ""] = token.split(".");
  return [header, payload, Buffer.from(signature, "base64url").reverse().toString("base64url")].join(".");
}

/** Everything of a release that the cluster still has, wherever the chart put it. */
async function left(manifest: string, namespace: string): Promise<string[]> {
  const documents = parseAllDocuments(manifest);
  const kinds = new Set<string>();
  const namespaces = new Set([namespace]);
  for (const document of Array.isArray(documents) ? documents : []) {
    const resource = document.toJS() as { apiVersion: string; kind: string; metadata: { namespace?: string } } | null;
    if (resource === null) continue;
    const group = resource.apiVersion.includes("/") ? `.${resource.apiVersion.split("/")[0]}` : "";
    kinds.add(`${resource.kind.toLowerCase()}${group}`);
    namespaces.add(resource.metadata.namespace ?? namespace);
  }
  for (const kind of ["serviceaccount", "job.batch", "pod", "configmap", "secret", "persistentvolumeclaim"]) kinds.add(kind);
  const found: string[] = [];
  for (const each of namespaces) {
    const list = await tool(
      "kubectl",
      "-n",
      each,
      "get",
      [...kinds].join(","),
      "-l",
      "app.kubernetes.io/part-of=souk",
      "-o",
      "name",
    );
    found.push(...list.split("\n").filter((line) => line !== ""));
  }
  return found.sort();
}

describe("an installation of the chart", function () {
  this.timeout(600_000);
  const [meshed, plain] = ["mesh", "plain"].map((kind) => `souk-${kind}-${randomBytes(3).toString("hex")}`) as [string, string];
  const folder = mkdtempSync(join(tmpdir(), "souk-install-"));
  const values = { [meshed]: join(folder, "mesh.yaml"), [plain]: join(folder, "plain.yaml") };
  const install = (namespace: string, ...more: string[]) =>
    tool(
      "helm",
      "install",
      "souk",
      join(root, "helm/souk"),
      "-n",
      namespace,
      "-f",
      values[namespace] ?? "",
      "--wait",
      "--timeout",
      "5m",
      ...more,
    );
  const helmTest = (namespace: string) => tool("helm", "test", "souk", "-n", namespace, "--logs", "--timeout", "4m");

  before(async () => {
    const keys = join(folder, "keys");
    await loadOrCreateKeys(keys);
    const { mariadb, redisUrl } = ownPlace(meshed);
    await makePlace(meshed, ["istio-injection=enabled"], redisUrl, keys);
    await openStores(meshed);
    // By the names that the chart's values have, and others for the second release on the same server.
    const databases = ["souk_", "plain_"].flatMap((prefix) => SERVICES.map((service) => databaseOf(prefix + service, PASSWORD)));
    await asAdministrator(databases.join(" "), mariadb);
    await makePlace(plain, [], redisUrl, keys);
    const common = { image: imageValues(IMAGE), secrets: SECRETS };
    writeFileSync(values[meshed] ?? "", JSON.stringify(common));
    const second = {
      ...common,
      databaseUrl: `mariadb://plain_{service}:$(PASSWORD)@${mariadb}:3306/plain_{service}`,
      redisHosts: [new URL(redisUrl).host],
      defaults: { replicas: 1 },
      mesh: { enabled: false, networkPolicies: { ingressNamespaces: [plain] } },
    };
    writeFileSync(values[plain] ?? "", JSON.stringify(second));
  });
  after(async () => {
    for (const namespace of [meshed, plain]) {
      await run("helm", ["uninstall", "souk", "-n", namespace]);
      await run("kubectl", ["delete", "namespace", namespace, "--wait=false"]);
    }
    rmSync(folder, { recursive: true, force: true });
  });

  /** Buys over plain gRPC from a pod of the namespace, and gives the listing that was bought. */
  async function buy(
    namespace: string,
    settings: { readonly address: string; readonly authority?: string; readonly issuer: string },
  ): Promise<string> {
    const script = readFileSync(join(root, "tests/cluster/grpc-client.js"), "utf8");
    const spec = {
      containers: [
        {
          name: "client",
          image: IMAGE,
          command: ["node", "--disable-warning=ExperimentalWarning", "--input-type=module", "-e", script],
          env: [{ name: "SETTINGS", value: JSON.stringify(settings) }],
        },
      ],
      restartPolicy: "Never",
    };
    const file = join(folder, "client.json");
    const labels = { "sidecar.istio.io/inject": "false" };
    writeFileSync(file, JSON.stringify({ apiVersion: "v1", kind: "Pod", metadata: { name: "client", labels }, spec }));
    await tool("kubectl", "-n", namespace, "apply", "-f", file);
    const said = () => tool("kubectl", "-n", namespace, "logs", "client");
    await until("the client has ended", async () => {
      const phase = await tool("kubectl", "-n", namespace, "get", "pod", "client", "-o", "jsonpath={.status.phase}");
      return phase === "Succeeded" || phase === "Failed";
    });
    const [, listingId = ""] = /bought over gRPC: PAID (\S+)/.exec(await said()) ?? [];
    assert.notEqual(listingId, "", await said());
    return listingId;
  }

  it("is ready with its defaults and the secrets, sells by `helm test`, and to a plain gRPC client through the gateway", async () => {
    const notes = await install(meshed);
    assert.match(notes, /THIS IS FOR TRYING THINGS OUT/);
    const ready = await tool("kubectl", "-n", meshed, "get", "deploy", "-l", "app.kubernetes.io/instance=souk", "-o", "json");
    const { items } = JSON.parse(ready) as { items: { spec: { replicas: number }; status: { readyReplicas?: number } }[] };
    assert.ok(items.length >= SERVICES.length + 1);
    for (const { spec, status } of items) assert.equal(status.readyReplicas, spec.replicas);
    const token = await tokenOf(meshed);
    const balance = "/marketplace.payment.v1.PaymentService/GetBalance";
    const asked = (given: string) => askGateway({ host: GATEWAY_HOST }, balance, { headers: { authorization: `Bearer ${given}` } });
    const taken = await asked(token);
    assert.equal(taken.status, 200, `the first call with a token is answered: ${taken.text}`);
    assert.equal((await asked(forged(token))).status, 401);
    assert.match(await helmTest(meshed), /The books balance\.\n.*This installation works\./s);
    const issuer = `http://souk-issuer.${meshed}.svc.cluster.local:8080`;
    await buy(meshed, { address: `istio-ingressgateway.${GATEWAY_NAMESPACE}:80`, authority: GATEWAY_HOST, issuer });
  });

  it("sells without the mesh, too, beside the first on the same servers, to a plain gRPC client through the Services", async () => {
    await install(plain);
    assert.match(await helmTest(plain), /This installation works\./);
    const at = `${plain}.svc.cluster.local:8080`;
    await buy(plain, { address: `dns:///souk-{service}.${at}`, issuer: `http://souk-issuer.${at}` });
    const { password } = new URL(ownPlace(meshed).redisUrl);
    const redis = ["exec", "deploy/redis", "--", "redis-cli", "--no-auth-warning", "-a", password, "--scan"];
    const keys = (await tool("kubectl", "-n", meshed, ...redis)).split("\n").filter((key) => key.includes("souk."));
    for (const namespace of [meshed, plain])
      assert.ok(
        keys.some((key) => key.includes(`${namespace}.souk.`)),
        keys.join(" "),
      );
    for (const key of keys) assert.match(key, new RegExp(`(${meshed}|${plain})\\.souk\\.`));
  });

  it("is gone after `helm uninstall` but for what the chart's README names", async () => {
    for (const namespace of [meshed, plain]) {
      const manifest = await tool("helm", "get", "manifest", "souk", "-n", namespace);
      assert.ok((await left(manifest, namespace)).length > 30);
      await tool("helm", "uninstall", "souk", "-n", namespace, "--wait");
      // Pods end in their own time.
      const pods = ["-l", "app.kubernetes.io/instance=souk", "--for=delete", "--timeout=120s"];
      await tool("kubectl", "-n", namespace, "wait", "pod", ...pods);
      assert.deepEqual(await left(manifest, namespace), ["pod/souk-purchase-test", "serviceaccount/souk-migrations"]);
      const [, command = ""] =
        /`kubectl -n shop (delete serviceaccount,job,pod .*?)`/.exec(readFileSync(join(root, "helm/souk/README.md"), "utf8")) ?? [];
      await tool("kubectl", "-n", namespace, ...command.split(" "));
      assert.deepEqual(await left(manifest, namespace), []);
    }
  });
});
