import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { Ajv } from "ajv";
import { parse, parseAllDocuments } from "yaml";
import { readConfig } from "#runtime/config.ts";
import { loadOrCreateKeys } from "#runtime/tokens.ts";
import { TABLES } from "../../services/tables.ts";
import { root } from "../../tools/checks/run.ts";
import { temporaryFolder } from "../support/database.ts";
import { type Body, type Module, readModule, ref } from "./module.ts";

/** What only the cloud knows, and what the example says; as they look when they are known. */
const SAMPLES: Readonly<Record<string, unknown>> = {
  "var.image.repository": "123456789012.dkr.ecr.eu-west-1.amazonaws.com/souk",
  "var.image.digest": `sha256:${"0123456789abcdef".repeat(4)}`,
  "var.host": "api.shop.example",
  "var.cors_origins": ["https://shop.example"],
  "var.processor_url": "https://processor.shop.example/v1",
  "var.issuer.url": "https://id.shop.example",
  "var.issuer.jwks_uri": "https://id.shop.example/keys",
  "var.issuer.audience": "souk",
  "aws_db_instance.souk.address": "souk.c0abc1def2gh.eu-west-1.rds.amazonaws.com",
  "aws_db_instance.souk.port": 3306,
  "aws_db_instance.souk.username": "souk_admin",
  "aws_memorydb_user.souk.user_name": "souk",
  "random_password.admin.result": "a".repeat(40),
  "random_password.redis.result": "r".repeat(64),
  "local.redis_endpoint.address": "clustercfg.souk.abc123.memorydb.eu-west-1.amazonaws.com",
  "local.redis_endpoint.port": 6379,
  "local.redis_hosts": ["clustercfg", "souk-0001-001", "souk-0001-002"].map(
    (name) => `${name}.souk.abc123.memorydb.eu-west-1.amazonaws.com:6379`,
  ),
  "local.secrets_hash": "0123456789abcdef".repeat(4),
  "kubernetes_namespace_v1.gateway.metadata[0].name": "istio-ingress",
};

interface Rendered {
  readonly kind: string;
  readonly metadata: { readonly name: string };
}

/** The chart as it is rendered for production. */
const production: readonly Rendered[] = parseAllDocuments(
  readFileSync(path.join(root, "tests/charts/golden/souk-production.yaml"), "utf8"),
).map((document) => document.toJS() as Rendered);

describe("the values that the Terraform module installs the chart with", () => {
  let souk: Module;
  let values: Body;
  before(async () => {
    souk = await readModule("terraform");
    values = filledIn(souk, souk.locals.get("values")) as Body;
  });

  it("fit the schemas of the chart and of the mesh", () => {
    for (const [file, given] of [
      ["helm/souk", values],
      ["mesh", values.mesh],
    ] as const) {
      const validate = new Ajv({ strict: false, allErrors: true }).compile(
        JSON.parse(readFileSync(path.join(root, file, "values.schema.json"), "utf8")),
      );
      validate(given);
      assert.deepEqual(validate.errors ?? [], [], file);
    }
  });

  it("are those that the chart is rendered with by npm run test:charts", () => {
    const written = parse(readFileSync(path.join(root, "tests/terraform/values.yaml"), "utf8"));
    assert.deepEqual(written, values);
  });

  it("are refused by the same schemas where one is misspelt", () => {
    const validate = new Ajv({ strict: false }).compile(
      JSON.parse(readFileSync(path.join(root, "helm/souk/values.schema.json"), "utf8")),
    );
    assert.equal(validate({ ...values, databaseURL: "mysql://x" }), false);
    assert.equal(validate({ ...values, databaseUrl: "postgres://x" }), false);
  });

  it("set nothing to what it is anyway, and leave out nothing that production needs", () => {
    assert.equal(values.environment, "production");
    assert.deepEqual(values.testing, { processor: false, issuer: false });
    const mesh = values.mesh as Record<string, Body>;
    for (const named of [mesh.gateway?.tlsSecret, mesh.issuer?.url, mesh.issuer?.jwksUri]) assert.ok(named);
  });

  it("name the secrets that the module makes, with the keys that the pods read", () => {
    const names = { database: "souk-database", redis: "souk-redis", keys: "souk-keys" };
    assert.deepEqual(values.secrets, names);
    const text = String(souk.locals.get("secret_names"));
    const listed = [...(/\[(.*)\]/.exec(text)?.[1] ?? "").matchAll(/"(\w+)"/g)].map(([, name]) => name);
    const secrets = souk.locals.get("secrets") as Record<string, unknown>;
    assert.deepEqual(listed.sort(), Object.keys(secrets).sort());
    assert.match(text, /=> "souk-\$\{each\}"/);
    assert.deepEqual(
      [...String(souk.locals.get("services")).matchAll(/"(\w+)"/g)].map(([, name]) => name).sort(),
      Object.keys(TABLES).sort(),
    );
    assert.match(String(secrets.database), /for service, password in random_password\.database : service => password\.result/);
    assert.deepEqual(Object.keys(secrets.redis as Body), ["url"]);
    assert.deepEqual(secretKeysOf("souk-redis"), ["url"]);
    assert.deepEqual(secretKeysOf("souk-database"), Object.keys(TABLES).sort());
  });

  it("lead to keys that the services can read as they are made", async () => {
    const { keys } = souk.locals.get("secrets") as { keys: Body };
    const [key] = souk.resources("tls_private_key");
    assert.deepEqual([key?.body.algorithm, key?.body.ecdsa_curve], ["ECDSA", "P256"]);
    assert.deepEqual(Object.keys(keys).sort(), ["accounts.pem", "page-tokens.key", "services.pem"]);
    for (const name of ["accounts", "services"])
      assert.equal(keys[`${name}.pem`], `\${tls_private_key.signing["${name}"].private_key_pem_pkcs8}`);
    const folder = temporaryFolder();
    try {
      for (const name of ["accounts.pem", "services.pem"]) {
        const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
        writeFileSync(path.join(folder.path, name), privateKey.export({ type: "pkcs8", format: "pem" }));
      }
      const length = Number(souk.resources("random_password").find(({ name }) => name === "page_tokens")?.body.length);
      writeFileSync(path.join(folder.path, "page-tokens.key"), "Az09".repeat(11).slice(0, length));
      assert.equal((await loadOrCreateKeys(folder.path)).pageTokens.length, 32);
    } finally {
      folder.remove();
    }
  });

  it("have URLs that a start takes", () => {
    const databaseUrl = String(values.databaseUrl).replace("$(PASSWORD)", "x".repeat(40));
    const redisUrl = String(filledIn(souk, souk.locals.get("redis_url")));
    const env = { SOUK_DATABASE_URL: databaseUrl, SOUK_REDIS_URL: redisUrl };
    const read = readConfig({ argv: [], env, services: [...Object.keys(TABLES), "ops"] });
    assert.ok("config" in read);
    assert.deepEqual([read.config.databaseUrl, read.config.redisUrl], [databaseUrl, redisUrl]);
    assert.ok((values.redisHosts as string[]).includes(new URL(redisUrl).host));
    assert.equal(databaseUrl.replaceAll("{service}", "order").match(/souk_order/g)?.length, 2);
  });

  it("name the gateway as Istio's own chart does, and the ServiceAccount that has the photos as the chart of Souk does", () => {
    const gateway = souk.resources("helm_release").find(({ name }) => name === "gateway")?.body;
    assert.equal(gateway?.name, ref("local.gateway_release"));
    const release = String(souk.locals.get("gateway_release"));
    // That chart names the ServiceAccount after the release, and its label `istio` after the release without `istio-`.
    assert.deepEqual(souk.locals.get("gateway_selector"), { istio: release.replace(/^istio-/, "") });
    const accounts = production.filter(({ kind }) => kind === "ServiceAccount").map(({ metadata }) => metadata.name);
    assert.ok(
      accounts.some((name) => name.endsWith("-catalog")),
      accounts.join(),
    );
  });
});

/** The keys that pods of the rendered chart read of a secret by reference. */
function secretKeysOf(secret: string): string[] {
  const text = JSON.stringify(production);
  return [
    ...new Set(
      [...text.matchAll(/"secretKeyRef":\{"name":"([\w-]+)","key":"([\w.-]+)"/g)]
        .filter(([, name]) => name === secret)
        .map(([, , key = ""]) => key),
    ),
  ].sort();
}

/** A value as it is when everything is known: templates are filled in, from the samples or from the module's own local values. */
function filledIn(module: Module, value: unknown): unknown {
  if (Array.isArray(value)) return value.map((each) => filledIn(module, each));
  if (typeof value === "object" && value !== null)
    return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, filledIn(module, each)]));
  if (typeof value !== "string") return value;
  const whole = /^\$\{([^{}]*)\}$/.exec(value)?.[1];
  if (whole !== undefined) return lookUp(module, whole);
  return value.replaceAll(/\$\{([^{}]*)\}/g, (_, reference: string) => String(lookUp(module, reference)));
}

function lookUp(module: Module, reference: string): unknown {
  if (reference in SAMPLES) return SAMPLES[reference];
  const [, secret] = /^local\.secret_names\.(\w+)$/.exec(reference) ?? [];
  if (secret !== undefined) return `souk-${secret}`;
  const [, name = ""] = /^local\.(\w+)$/.exec(reference) ?? [];
  assert.ok(module.locals.has(name), `there is no sample for ${reference}`);
  return filledIn(module, module.locals.get(name));
}
