import { LOG_FORMATS, LOG_LEVELS } from "#runtime/log.ts";
import {
  address,
  collectorUrl,
  databaseUrl,
  file,
  folder,
  integer,
  issuerUrl,
  keyPrefix,
  keySet,
  listOf,
  oneOf,
  optional,
  pairs,
  peersUrl,
  redisUrl,
  secretText,
  servicesUri,
  serviceUrl,
  share,
  shortText,
  spiffeUri,
  webOrigin,
  yesOrNo,
} from "#runtime/setting-readers.ts";
import { ConfigError, ENVIRONMENTS, readSettings, type Setting, type SettingSources, type ValuesOf } from "#runtime/settings.ts";

export { ConfigError, ENVIRONMENTS, type Environment } from "#runtime/settings.ts";

/** Where tables and events are. Production stores are MariaDB or MySQL, and Redis. */
export const STORES = ["embedded", "production"] as const;

/** Who tries failed calls between processes again. */
export const RETRIES = ["client", "mesh"] as const;

/** Every setting there is. The help, the types and the checks derive from this table. */
export const SETTINGS = {
  env: {
    variable: "SOUK_ENV",
    shown: "NAME",
    initial: "development",
    meaning: "development has an embedded default for everything, production for nothing",
    read: oneOf(ENVIRONMENTS),
  },
  port: {
    variable: "SOUK_PORT",
    shown: "NUMBER",
    initial: "8080",
    meaning: "where it listens, for HTTP/1.1 and HTTP/2; 0 takes any free port",
    read: integer(0, 65_535),
  },
  host: {
    variable: "SOUK_HOST",
    shown: "ADDRESS",
    initial: { development: "127.0.0.1", production: "0.0.0.0" },
    meaning: "the address it listens on; 0.0.0.0 is every one of the machine",
    read: address,
  },
  publicUrl: {
    variable: "SOUK_PUBLIC_URL",
    shown: "URL",
    initial: "",
    meaning: "where people reach it, if that is not where it listens",
    read: optional(webOrigin),
  },
  corsOrigins: {
    variable: "SOUK_CORS_ORIGINS",
    shown: "LIST",
    initial: { development: "localhost", production: "" },
    meaning: "origins of web pages that may call, separated by commas; localhost is every page of the own machine",
    read: listOf((origin) => (origin === "localhost" ? origin : webOrigin(origin))),
  },
  dataDir: {
    variable: "SOUK_DATA_DIR",
    shown: "FOLDER",
    initial: ".souk",
    meaning: "the folder of the embedded parts' files and keys",
    read: folder,
  },
  stores: {
    variable: "SOUK_STORES",
    shown: "NAME",
    initial: "embedded",
    meaning: "embedded, or production: those of --database-url; npm start runs private ones in the data folder where none is named",
    read: oneOf(STORES),
  },
  databaseUrl: {
    variable: "SOUK_DATABASE_URL",
    shown: "URL",
    initial: "",
    meaning: "tables in MariaDB or MySQL 8: mariadb://souk_{service}:password@host:3306/souk_{service}, or mysql://…",
    secret: true,
    read: optional(databaseUrl),
  },
  redisUrl: {
    variable: "SOUK_REDIS_URL",
    shown: "URL",
    initial: "",
    meaning: "events in Redis: redis://:password@host:6379, rediss:// with TLS, redis+sentinel://, redis+cluster://",
    secret: true,
    read: optional(redisUrl),
  },
  redisPrefix: {
    variable: "SOUK_REDIS_PREFIX",
    shown: "TEXT",
    initial: "",
    meaning: "the beginning of all keys and channels in Redis, where several marketplaces share one: shop-a.",
    read: keyPrefix,
  },
  peersUrl: {
    variable: "SOUK_PEERS_URL",
    shown: "URL",
    initial: "",
    meaning:
      "where the services of other processes are: http://souk-{service}:8080, or a list: order=http://…,payment=http://… http://…",
    read: optional(peersUrl),
  },
  retries: {
    variable: "SOUK_RETRIES",
    shown: "WHERE",
    initial: "client",
    meaning: "who tries failed calls to the services of other processes again: client, or mesh where Istio does; never both",
    read: oneOf(RETRIES),
  },
  meshIdentity: {
    variable: "SOUK_MESH_IDENTITY",
    shown: "URI",
    initial: "",
    meaning:
      "behind a proxy that ends mutual TLS: how certificates name the services, spiffe://cluster.local/ns/shop/sa/souk-{service}; signed tokens unless given",
    read: optional(servicesUri),
  },
  meshGateway: {
    variable: "SOUK_MESH_GATEWAY",
    shown: "URI",
    initial: "",
    meaning: "with --mesh-identity: how the gateway's certificate names it; others than it and the services are refused",
    read: optional(spiffeUri),
  },
  keysDir: {
    variable: "SOUK_KEYS_DIR",
    shown: "FOLDER",
    initial: "",
    meaning: "the folder of the keys, the same for all processes; keys in the data folder unless named",
    read: optional(folder),
  },
  issuer: {
    variable: "SOUK_ISSUER",
    shown: "URL",
    initial: "",
    meaning:
      "the OpenID provider that signs accounts' tokens, exactly as they name it (iss); keys of our own sign them unless named",
    read: optional(issuerUrl),
  },
  issuerAudience: {
    variable: "SOUK_ISSUER_AUDIENCE",
    shown: "NAME",
    initial: "souk",
    meaning: "whom the provider's tokens must be for (aud)",
    read: shortText,
  },
  issuerJwks: {
    variable: "SOUK_ISSUER_JWKS",
    shown: "URL",
    initial: "",
    meaning: "where the provider's keys are, or the keys themselves as JSON; the provider's own document says where unless named",
    read: optional(keySet),
  },
  issuerRolesClaim: {
    variable: "SOUK_ISSUER_ROLES_CLAIM",
    shown: "NAME",
    initial: "roles",
    meaning: 'the claim that lists an account\'s roles, such as realm_access.roles; operators have "operator" there',
    read: shortText,
  },
  processor: {
    variable: "SOUK_PROCESSOR",
    shown: "URL",
    initial: "",
    meaning: "the payment processor, by the contract of docs/processor.md; a simulated one in this process unless named",
    read: optional(serviceUrl),
  },
  processorToken: {
    variable: "SOUK_PROCESSOR_TOKEN",
    shown: "TEXT",
    initial: "",
    meaning: "what the processor knows us by, sent as a bearer token",
    secret: true,
    read: optional(secretText),
  },
  simulatorFile: {
    variable: "SOUK_SIMULATOR_FILE",
    shown: "FILE",
    initial: "",
    meaning:
      "the books of the simulated processor, the same for all processes with payment; processor.db in the data folder unless named",
    read: optional(file),
  },
  migrate: {
    variable: "SOUK_MIGRATE",
    initial: { development: "true", production: "false" },
    meaning: "a start brings older tables up to date; without, it refuses them: npm run migrate -- up does it",
    read: yesOrNo,
  },
  seed: {
    variable: "SOUK_SEED",
    initial: { development: "true", production: "false" },
    meaning: "npm start fills a new data folder with demo accounts and listings",
    read: yesOrNo,
  },
  logLevel: {
    variable: "SOUK_LOG_LEVEL",
    shown: "LEVEL",
    initial: "info",
    meaning: `the least that is logged: ${LOG_LEVELS.join(", ")}`,
    read: oneOf(LOG_LEVELS),
  },
  logFormat: {
    variable: "SOUK_LOG_FORMAT",
    shown: "FORMAT",
    initial: { development: "line", production: "json" },
    meaning: "json for machines, line for people",
    read: oneOf(LOG_FORMATS),
  },
  metrics: {
    variable: "SOUK_METRICS",
    initial: "true",
    meaning: "measurements for Prometheus at /metrics, on the same port; not for requests that came through a proxy",
    read: yesOrNo,
  },
  otlpEndpoint: {
    variable: "OTEL_EXPORTER_OTLP_ENDPOINT",
    shown: "URL",
    initial: "",
    meaning: "the OpenTelemetry collector that gets traces and measurements, by OTLP over HTTP: http://otel-collector:4318",
    read: optional(collectorUrl),
  },
  otlpHeaders: {
    variable: "OTEL_EXPORTER_OTLP_HEADERS",
    shown: "LIST",
    initial: "",
    meaning: "headers that the collector wants, such as x-api-key=…, separated by commas",
    secret: true,
    read: pairs,
  },
  otlpTimeoutMs: {
    variable: "OTEL_EXPORTER_OTLP_TIMEOUT",
    shown: "MS",
    initial: "10000",
    meaning: "how long the collector may take; what it does not take by then is dropped and counted",
    read: integer(100, 60_000),
  },
  otelServiceName: {
    variable: "OTEL_SERVICE_NAME",
    shown: "NAME",
    initial: "",
    meaning: "what the process is called in telemetry; souk, or souk-order where it runs one service, unless named",
    read: optional(shortText),
  },
  otelResource: {
    variable: "OTEL_RESOURCE_ATTRIBUTES",
    shown: "LIST",
    initial: "",
    meaning: "more about the process in telemetry: deployment.environment.name=staging,k8s.pod.name=…",
    read: pairs,
  },
  tracesRatio: {
    variable: "OTEL_TRACES_SAMPLER_ARG",
    shown: "SHARE",
    initial: { development: "1", production: "0.1" },
    meaning: "the share of traces that begin here and are recorded, 0 to 1; one that began elsewhere is recorded as it was there",
    read: share,
  },
  metricsIntervalMs: {
    variable: "OTEL_METRIC_EXPORT_INTERVAL",
    shown: "MS",
    initial: "60000",
    meaning: "how often measurements are sent to the collector",
    read: integer(1_000, 3_600_000),
  },
  connectionAgeMs: {
    variable: "SOUK_CONNECTION_AGE_MS",
    shown: "MS",
    initial: "1800000",
    meaning:
      "how old a connection becomes before its client is asked to make a new one, give or take a tenth; 0 is as old as it likes",
    read: integer(0, 86_400_000),
  },
  drainDelayMs: {
    variable: "SOUK_DRAIN_DELAY_MS",
    shown: "MS",
    initial: { development: "0", production: "5000" },
    meaning: "how long it takes calls after it has said that it is not ready, so that whoever sends them notices before it closes",
    read: integer(0, 300_000),
  },
  drainMs: {
    variable: "SOUK_DRAIN_MS",
    shown: "MS",
    initial: "10000",
    meaning: "how long calls in flight may take to finish when it is ended",
    read: integer(0, 300_000),
  },
} satisfies Readonly<Record<string, Setting<unknown>>>;

/** Variables of the tools and programs beside the server. They are no mistake, and not ours to read. */
const TOOLS_VARIABLES = new Set([
  "SOUK_TOKEN",
  "SOUK_URL",
  "SOUK_LANDED_REF",
  "SOUK_PROOF_ROUNDS",
  "SOUK_PROOF_SEED",
  "SOUK_SIMULATOR_LATENCY_MS",
  "SOUK_TEST_MYSQL_URL",
  "SOUK_TEST_REDIS_URL",
  "SOUK_TEST_STORE",
]);

/** The variables of the server and its tools, which another program beside them finds in its environment and leaves alone. */
export const SERVER_VARIABLES: ReadonlySet<string> = new Set([
  ...Object.values(SETTINGS).map(({ variable }) => variable),
  ...TOOLS_VARIABLES,
]);

/** What OpenTelemetry lets one choose and there is no choice of here: another value would be told of nowhere. */
const FIXED_VARIABLES: ReadonlyMap<string, { readonly value: string; readonly why: string }> = new Map([
  ["OTEL_EXPORTER_OTLP_PROTOCOL", { value: "http/protobuf", why: "a collector takes it at port 4318, and gRPC at 4317" }],
  ["OTEL_TRACES_SAMPLER", { value: "parentbased_traceidratio", why: "OTEL_TRACES_SAMPLER_ARG is the share, and 1 is all" }],
]);

type Values = ValuesOf<typeof SETTINGS>;

/** What a process was told, read once at its start. */
export type Config = Readonly<Values> & {
  /** The services that run in this process, in the order of wiring. */
  readonly services: readonly string[];
};

/** Where settings come from. */
export interface ConfigSources extends SettingSources {
  /** The names of all services there are. */
  readonly services: readonly string[];
  /** Whether nothing but the tables is to be worked on: then nothing else is needed. */
  readonly tablesOnly?: boolean;
}

/**
 * Reads flags and environment. A flag wins over a variable, a variable over the default. Answers the help's text when it is asked for.
 * Throws ConfigError with everything that is wrong at once.
 */
export function readConfig(sources: ConfigSources): { readonly config: Config } | { readonly help: string } {
  const all = sources.services;
  const usage = `usage: npm start -- [settings] [services]\n\nservices: ${all.join(", ")}; all of them unless named`;
  const written = readSettings({ settings: SETTINGS, usage, services: all, others: TOOLS_VARIABLES }, sources);
  if ("help" in written) return written;
  const { values, problems } = written;
  checkFixed(sources.env, problems);
  if (values.databaseUrl !== undefined || values.redisUrl !== undefined) values.stores = "production";
  const chosen = written.services.length === 0 ? all : all.filter((name) => written.services.includes(name));
  if (problems.length === 0) {
    if (values.env === "production") checkProduction(values, sources.tablesOnly ? [] : chosen, problems);
    checkOutside(values, problems);
  }
  checkPartial(all, chosen, values, problems);
  if (problems.length > 0) {
    throw new ConfigError(problems.join("\n"));
  }
  return { config: { ...values, services: chosen } };
}

function checkFixed(env: ConfigSources["env"], problems: string[]): void {
  for (const [name, { value, why }] of FIXED_VARIABLES) {
    const given = env[name];
    if (given && given !== value) problems.push(`${name} is "${given.slice(0, 100)}", but there is only ${value}: ${why}.`);
  }
}

/** What production needs in place of each embedded part, none of which it ever falls back to. */
function checkProduction(values: Values, services: readonly string[], problems: string[]): void {
  const lacks = [
    values.databaseUrl === undefined && "tables in MySQL or MariaDB: name them in SOUK_DATABASE_URL",
    services.length > 0 && values.redisUrl === undefined && "events and caches in Redis: name it in SOUK_REDIS_URL",
    services.length > 0 && values.issuer === undefined && "an OpenID provider to sign in with: name it in SOUK_ISSUER",
    services.includes("payment") && values.processor === undefined && "a payment processor: name it in SOUK_PROCESSOR",
  ].filter((each) => each !== false);
  if (lacks.length > 0) {
    const list = lacks.map((each) => `  - ${each}`).join("\n");
    problems.push(
      `SOUK_ENV is production, and production never falls back to an embedded part. It lacks:\n${list}\nTo try things out, start it with SOUK_ENV=development.`,
    );
  }
  if (values.simulatorFile !== undefined) {
    problems.push("SOUK_SIMULATOR_FILE is set and SOUK_ENV is production, which takes no simulated processor. Leave it out.");
  }
  const keysUrl = values.issuerJwks !== undefined && "url" in values.issuerJwks ? values.issuerJwks.url : undefined;
  for (const [name, url] of [
    ["SOUK_ISSUER", values.issuer],
    ["SOUK_ISSUER_JWKS", keysUrl],
  ]) {
    if (url !== undefined && !url.startsWith("https://")) {
      problems.push(
        `${name} is "${url}" and SOUK_ENV is production: keys that arrive in the clear may be anybody's. Use https://.`,
      );
    }
  }
}

/** What belongs together of the parts outside. */
function checkOutside(values: Values, problems: string[]): void {
  if (values.issuerJwks !== undefined && values.issuer === undefined) {
    problems.push("SOUK_ISSUER_JWKS has the keys of a provider that is not named: name it in SOUK_ISSUER.");
  }
  if (values.meshGateway !== undefined && values.meshIdentity === undefined) {
    problems.push("SOUK_MESH_GATEWAY names the gateway, and nothing says how the services are named: set SOUK_MESH_IDENTITY, too.");
  }
  if (values.simulatorFile !== undefined && values.processor !== undefined) {
    problems.push("SOUK_PROCESSOR and SOUK_SIMULATOR_FILE name two processors, and payments have one. Leave one of them out.");
  }
}

/** What a process needs that runs some of the services only. */
function checkPartial(all: readonly string[], chosen: readonly string[], values: Values, problems: string[]): void {
  const elsewhere = all.filter((name) => !chosen.includes(name));
  if (elsewhere.length === 0) return;
  const only = `Only ${chosen.join(", ") || "none"} would run here`;
  if (values.redisUrl === undefined) {
    problems.push(
      `${only}, and without Redis events reach no other process. Name it in SOUK_REDIS_URL, or start all services: leave the names out, or add ${elsewhere.join(", ")}.`,
    );
    return;
  }
  if (values.databaseUrl === undefined) {
    problems.push(`${only}, and tables in files belong to one process. Name the databases in SOUK_DATABASE_URL.`);
  }
  const unreachable = elsewhere.filter((name) => values.peersUrl?.(name) === undefined);
  if (unreachable.length > 0) {
    problems.push(
      `${only}. Name in SOUK_PEERS_URL where the others are reached: ${unreachable.join(", ")}. For example http://souk-{service}:8080.`,
    );
  }
  if (values.keysDir === undefined) {
    problems.push(
      `${only}, and processes with keys of their own refuse each other's tokens. Name in SOUK_KEYS_DIR a folder that all of them read.`,
    );
  }
}
