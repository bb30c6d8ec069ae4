import { createPublicKey, randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Keys, loadOrCreateKeys } from "#runtime/tokens.ts";
import { TABLES } from "../../services/tables.ts";
import { type Installed, install, tool } from "./cluster.ts";

/** The image that is installed, where the stores are, and what their administrators are known by; the variables say so for a cluster of one's own. */
export const IMAGE = process.env.SOUK_CLUSTER_IMAGE ?? "localhost/souk:test";
const MARIADB = process.env.SOUK_CLUSTER_MARIADB ?? "mariadb.stores.svc.cluster.local";
const REDIS_URL = process.env.SOUK_CLUSTER_REDIS_URL ?? "redis://:redis-for-tests@redis.stores.svc.cluster.local:6379";

/** A marketplace on the cluster. */
export interface Release extends Installed {
  readonly keys: Keys;
  /** The public keys of its accounts' tokens. */
  readonly jwks: string;
}

/** Installs the marketplace with databases, secrets and a namespace of its own, and waits until all of it is ready. */
export async function installSouk(values: (jwks: string) => Readonly<Record<string, unknown>>): Promise<Release> {
  const name = `souk-${randomBytes(3).toString("hex")}`;
  const prefix = `${name.replace("-", "_")}_`;
  const services = Object.keys(TABLES);
  const password = randomBytes(12).toString("hex");
  const folder = mkdtempSync(join(tmpdir(), "souk-release-"));
  const keys = await loadOrCreateKeys(folder);
  const jwk = createPublicKey(readFileSync(join(folder, "accounts.pem"), "utf8")).export({ format: "jwk" });
  const jwks = JSON.stringify({ keys: [{ ...jwk, alg: "ES256", use: "sig" }] });
  await asAdministrator(services.map((service) => databaseOf(prefix + service, password)).join(" "));
  const [host, namespace] = [MARIADB, MARIADB.split(".")[1] ?? "stores"];
  const release = await install("helm/souk", {
    name,
    async prepare() {
      const secret = (what: string, ...from: string[]) => tool("kubectl", "-n", name, "create", "secret", "generic", what, ...from);
      await secret("database", ...services.map((service) => `--from-literal=${service}=${password}`));
      await secret("redis", `--from-literal=url=${REDIS_URL}`);
      await secret("keys", `--from-file=${folder}`);
    },
    values: {
      environment: "development",
      image: { repository: IMAGE.slice(0, IMAGE.lastIndexOf(":")), tag: IMAGE.slice(IMAGE.lastIndexOf(":") + 1) },
      databaseUrl: `mariadb://${prefix}{service}:$(PASSWORD)@${host}:3306/${prefix}{service}`,
      secrets: { database: "database", redis: "redis", keys: "keys" },
      testing: { processor: true, issuer: true },
      defaults: { replicas: 1, resources: { requests: { cpu: "10m", memory: "100Mi" }, limits: { memory: "512Mi" } } },
      ...values(jwks),
    },
    egress: {
      mysql: { host, port: 3306, protocol: "TCP", namespace },
      redis: { host: new URL(REDIS_URL).hostname, port: 6379, protocol: "TCP", namespace },
    },
  });
  return {
    ...release,
    keys,
    jwks,
    async end() {
      await release.end();
      await asAdministrator(
        services.map((service) => `DROP DATABASE ${prefix}${service}; DROP USER '${prefix}${service}'@'%';`).join(" "),
      );
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

function databaseOf(name: string, password: string): string {
  return `CREATE DATABASE ${name}; CREATE USER '${name}'@'%' IDENTIFIED BY '${password}'; GRANT ALL ON ${name}.* TO '${name}'@'%';`;
}

/** Runs statements as the administrator of the MariaDB on the cluster, whose password stands in its pod. */
async function asAdministrator(sql: string): Promise<void> {
  const [service = "", namespace = ""] = MARIADB.split(".");
  const script = 'exec mariadb -uroot -p"$MARIADB_ROOT_PASSWORD" -e "$0"';
  await tool("kubectl", "-n", namespace, "exec", `deploy/${service}`, "--", "bash", "-c", script, sql);
}
