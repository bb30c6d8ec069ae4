import { createPublicKey, randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Keys, loadOrCreateKeys } from "#runtime/tokens.ts";
import { TABLES } from "../../services/tables.ts";
import { GATEWAY_NAMESPACE, type Installed, install, tool } from "./cluster.ts";
import { openProcessor } from "./processor.ts";
import { openStores, ownPlace } from "./stores.ts";

/** The image that is installed, where the stores are, and what their administrators are known by; the variables say so for a cluster of one's own. */
export const IMAGE = process.env.SOUK_CLUSTER_IMAGE ?? "localhost/souk:test";
export const MARIADB = process.env.SOUK_CLUSTER_MARIADB ?? "mariadb.stores.svc.cluster.local";
const REDIS_URL = process.env.SOUK_CLUSTER_REDIS_URL ?? "redis://:redis-for-tests@redis.stores.svc.cluster.local:6379";

/** A chart and the image that belongs to it. */
export interface Program {
  readonly chart: string;
  readonly image: string;
}

/** What is tested. */
export const CURRENT: Program = { chart: "helm/souk", image: IMAGE };

/** How a marketplace is installed. */
export interface SoukOptions {
  readonly program?: Program;
  /** Stores of its own in its namespace, which may be killed; those of the cluster unless given. */
  readonly ownStores?: boolean;
  /** A simulated processor beside the release, which no upgrade of it replaces; the chart's own unless given. */
  readonly ownProcessor?: boolean;
  /** Labels of the namespace, which joins the mesh unless given. */
  readonly labels?: readonly string[];
}

/** A marketplace on the cluster. */
export interface Release extends Installed {
  readonly keys: Keys;
  /** The public keys of its accounts' tokens. */
  readonly jwks: string;
  /** How long `helm install` took, in ms. */
  readonly installMs: number;
  /** Runs statements as the administrator of its databases, which are named after the services behind `prefix`, and gives what they answer. */
  administer(sql: string): Promise<string>;
  readonly prefix: string;
}

/** The values that say which image. */
export function imageValues(image: string): { repository: string; tag: string } {
  return { repository: image.slice(0, image.lastIndexOf(":")), tag: image.slice(image.lastIndexOf(":") + 1) };
}

/** So little is asked for that one node has room for all pods. */
const RESOURCES = { requests: { cpu: "1m", memory: "100Mi" }, limits: { memory: "512Mi" } };

/** The values of a release behind the gateway under a host of its own, with so many pods of each service. */
export function valuesBehind(host: string, replicas = 1) {
  return (jwks: string) => ({
    defaults: { replicas, resources: RESOURCES },
    mesh: {
      environment: "development",
      issuer: { url: "souk", jwks },
      gateway: { namespace: GATEWAY_NAMESPACE, hosts: [host], plainHttp: "serve", rateLimits: { enabled: false } },
    },
  });
}

/** Installs the marketplace with databases, secrets and a namespace of its own, and waits until all of it is ready. */
export async function installSouk(
  values: (jwks: string) => Readonly<Record<string, unknown>>,
  { program = CURRENT, ownStores = false, ownProcessor = false, labels = ["istio-injection=enabled"] }: SoukOptions = {},
): Promise<Release> {
  const name = `souk-${randomBytes(3).toString("hex")}`;
  const prefix = `${name.replace("-", "_")}_`;
  const services = Object.keys(TABLES);
  const password = randomBytes(12).toString("hex");
  const folder = mkdtempSync(join(tmpdir(), "souk-release-"));
  const keys = await loadOrCreateKeys(folder);
  const jwk = createPublicKey(readFileSync(join(folder, "accounts.pem"), "utf8")).export({ format: "jwk" });
  const jwks = JSON.stringify({ keys: [{ ...jwk, alg: "ES256", use: "sig" }] });
  const { mariadb: host, redisUrl } = ownStores ? ownPlace(name) : { mariadb: MARIADB, redisUrl: REDIS_URL };
  const namespace = host.split(".")[1] ?? "stores";
  let beginTime = 0;
  const release = await install(program.chart, {
    name,
    labels,
    async prepare() {
      if (ownStores) await openStores(name);
      if (ownProcessor) await openProcessor(name, program.image);
      await asAdministrator(services.map((service) => databaseOf(prefix + service, password)).join(" "), host);
      const secret = (what: string, ...from: string[]) => tool("kubectl", "-n", name, "create", "secret", "generic", what, ...from);
      await secret("database", ...services.map((service) => `--from-literal=${service}=${password}`));
      await secret("redis", `--from-literal=url=${redisUrl}`);
      await secret("keys", `--from-file=${folder}`);
      beginTime = performance.now();
    },
    values: {
      environment: "development",
      image: imageValues(program.image),
      databaseUrl: `mariadb://${prefix}{service}:$(PASSWORD)@${host}:3306/${prefix}{service}`,
      secrets: { database: "database", redis: "redis", keys: "keys" },
      testing: { processor: !ownProcessor, issuer: true },
      ...(ownProcessor ? { processor: { url: `http://processor.${name}.svc.cluster.local:8080/v1` } } : {}),
      defaults: { replicas: 1, resources: RESOURCES },
      ...values(jwks),
    },
    egress: {
      mysql: { host, port: 3306, protocol: "TCP", namespace },
      redis: { host: new URL(redisUrl).hostname, port: 6379, protocol: "TCP", namespace },
    },
  });
  const installMs = performance.now() - beginTime;
  return {
    ...release,
    keys,
    jwks,
    installMs,
    prefix,
    administer: (sql) => asAdministrator(sql, host),
    async end() {
      await release.end();
      const drop = (service: string) => `DROP DATABASE ${prefix}${service}; DROP USER '${prefix}${service}'@'%';`;
      if (!ownStores) await asAdministrator(services.map(drop).join(" "));
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** Makes a database and its user, who is named as it is. */
export function databaseOf(name: string, password: string): string {
  return `CREATE DATABASE ${name}; CREATE USER '${name}'@'%' IDENTIFIED BY '${password}'; GRANT ALL ON ${name}.* TO '${name}'@'%';`;
}

/** Runs statements as the administrator of a MariaDB on the cluster, whose password stands in its pod; that of the cluster unless given. */
export async function asAdministrator(sql: string, mariadb = MARIADB): Promise<string> {
  const [service = "", namespace = ""] = mariadb.split(".");
  const script = 'exec mariadb -uroot -p"$MARIADB_ROOT_PASSWORD" -N -B -e "$0"';
  return tool("kubectl", "-n", namespace, "exec", `deploy/${service}`, "-c", service, "--", "bash", "-c", script, sql);
}
