import { isIP, isIPv4, isIPv6 } from "node:net";
import { resolve } from "node:path";
import { LOG_FORMATS, LOG_LEVELS } from "#runtime/log.ts";

/** Where tables and events are. Production stores are MariaDB or MySQL, and Redis. */
export const STORES = ["embedded", "production"] as const;

/** Who tries failed calls between processes again. */
export const RETRIES = ["client", "mesh"] as const;

/** Where a process runs. Development has an embedded default for everything; production falls back to nothing. */
export const ENVIRONMENTS = ["development", "production"] as const;
/** Where a process runs. */
export type Environment = (typeof ENVIRONMENTS)[number];

interface Setting<T> {
  /** The variable of the environment; the flag is made from the setting's name. */
  readonly variable: string;
  /** What stands for the value in the help. A setting without is a switch: `--seed`, `--no-seed`. */
  readonly shown?: string;
  /** The default as one would write it. */
  readonly initial: string | Readonly<Record<Environment, string>>;
  readonly meaning: string;
  /** Whether it holds a password, which no message repeats. */
  readonly secret?: boolean;
  /** Reads what was written, or throws what is allowed, as the end of a sentence. */
  read(text: string): T;
}

/** Every setting there is. The help, the types and the checks derive from this table. */
const SETTINGS = {
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
  keysDir: {
    variable: "SOUK_KEYS_DIR",
    shown: "FOLDER",
    initial: "",
    meaning: "the folder of the keys, the same for all processes; keys in the data folder unless named",
    read: optional(folder),
  },
  simulatorFile: {
    variable: "SOUK_SIMULATOR_FILE",
    shown: "FILE",
    initial: "",
    meaning:
      "the simulated processor's books, the same for all processes with payment; processor.db in the data folder unless named",
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

/** Variables of the tools beside the server. They are no mistake, and not ours to read. */
const TOOLS_VARIABLES = new Set([
  "SOUK_TOKEN",
  "SOUK_URL",
  "SOUK_LANDED_REF",
  "SOUK_PROOF_ROUNDS",
  "SOUK_PROOF_SEED",
  "SOUK_TEST_MYSQL_URL",
  "SOUK_TEST_REDIS_URL",
  "SOUK_TEST_STORE",
]);

/** What OpenTelemetry lets one choose and there is no choice of here: another value would be told of nowhere. */
const FIXED_VARIABLES: ReadonlyMap<string, { readonly value: string; readonly why: string }> = new Map([
  ["OTEL_EXPORTER_OTLP_PROTOCOL", { value: "http/protobuf", why: "a collector takes it at port 4318, and gRPC at 4317" }],
  ["OTEL_TRACES_SAMPLER", { value: "parentbased_traceidratio", why: "OTEL_TRACES_SAMPLER_ARG is the share, and 1 is all" }],
]);

/** What production needs in place of each embedded part, none of which it ever falls back to. */
const EMBEDDED_PARTS = [
  "tables in MySQL or MariaDB (SOUK_DATABASE_URL)",
  "events and caches in Redis (SOUK_REDIS_URL)",
  "an OpenID provider to sign in with (SOUK_ISSUER)",
  "a payment processor (SOUK_PROCESSOR)",
] as const;

type Values = { -readonly [Name in keyof typeof SETTINGS]: ReturnType<(typeof SETTINGS)[Name]["read"]> };

/** What a process was told, read once at its start. */
export type Config = Readonly<Values> & {
  /** The services that run in this process, in the order of wiring. */
  readonly services: readonly string[];
};

/** A sentence, or several, that say which setting is wrong, why, and what is allowed. Printed as it is, without a stack. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
}

/** Where settings come from. */
export interface ConfigSources {
  /** The arguments after the program's name. */
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The names of all services there are. */
  readonly services: readonly string[];
}

/**
 * Reads flags and environment. A flag wins over a variable, a variable over the default. Answers the help's text when it is asked for.
 * Throws ConfigError with everything that is wrong at once.
 */
export function readConfig(sources: ConfigSources): { readonly config: Config } | { readonly help: string } {
  const problems: string[] = [];
  const { flags, services, help } = readArguments(sources, problems);
  if (help) {
    return { help: helpText(sources.services) };
  }
  checkVariables(sources.env, problems);
  const environment = readOne("env", sources, flags, "development", problems) ?? "development";
  const values: Record<string, unknown> = {};
  for (const name of Object.keys(SETTINGS) as (keyof typeof SETTINGS)[]) {
    values[name] = name === "env" ? environment : readOne(name, sources, flags, environment, problems);
  }
  if (values.databaseUrl !== undefined || values.redisUrl !== undefined) values.stores = "production";
  if (problems.length === 0 && environment === "production") {
    problems.push(
      `SOUK_ENV is production, and production never falls back to an embedded part. It needs:\n${EMBEDDED_PARTS.map((part) => `  - ${part}`).join("\n")}\nThis version has no more than the first two: start it with SOUK_ENV=development.`,
    );
  }
  const chosen = services.length === 0 ? sources.services : sources.services.filter((name) => services.includes(name));
  checkPartial(sources.services, chosen, values as Values, problems);
  if (problems.length > 0) {
    throw new ConfigError(problems.join("\n"));
  }
  return { config: { ...(values as Values), services: chosen } };
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

type Flags = ReadonlyMap<string, { readonly text: string; readonly written: string }>;

function readArguments(sources: ConfigSources, problems: string[]): { flags: Flags; services: string[]; help: boolean } {
  const flags = new Map<string, { text: string; written: string }>();
  const services: string[] = [];
  const known = new Map(Object.keys(SETTINGS).map((name) => [flagOf(name), name]));
  const rest = [...sources.argv];
  let help = false;
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
    if (word === "--help" || word === "-h") {
      help = true;
      continue;
    }
    if (!word.startsWith("-")) {
      if (sources.services.includes(word)) services.push(word);
      else
        problems.push(
          `There is no service "${word}".${suggestion(word, sources.services)} There are: ${sources.services.join(", ")}.`,
        );
      continue;
    }
    const [flag, attached] = split(word);
    const name = known.get(flag) ?? known.get(flag.replace(/^--no-/, "--"));
    const isSwitch = name !== undefined && settingOf(name).shown === undefined;
    if (name === undefined || (flag.startsWith("--no-") && (!isSwitch || attached !== undefined))) {
      problems.push(`There is no flag ${flag}.${suggestion(flag, [...known.keys(), "--help"])} --help lists all.`);
      continue;
    }
    const text = isSwitch ? (attached ?? String(!flag.startsWith("--no-"))) : (attached ?? rest.shift());
    if (text === undefined) problems.push(`${flag} needs a value: ${flag} ${settingOf(name).shown}.`);
    else flags.set(name, { text, written: flag });
  }
  return { flags, services, help };
}

function split(word: string): [flag: string, attached: string | undefined] {
  const at = word.indexOf("=");
  return at < 0 ? [word, undefined] : [word.slice(0, at), word.slice(at + 1)];
}

function checkVariables(env: ConfigSources["env"], problems: string[]): void {
  const known = Object.values(SETTINGS).map(({ variable }) => variable as string);
  for (const name of Object.keys(env)) {
    if (name.startsWith("SOUK_") && !known.includes(name) && !TOOLS_VARIABLES.has(name)) {
      problems.push(`There is no setting ${name}.${suggestion(name, known)} --help lists all.`);
    }
  }
  for (const [name, { value, why }] of FIXED_VARIABLES) {
    const given = env[name];
    if (given && given !== value) problems.push(`${name} is "${given.slice(0, 100)}", but there is only ${value}: ${why}.`);
  }
}

function readOne<Name extends keyof typeof SETTINGS>(
  name: Name,
  { env }: ConfigSources,
  flags: Flags,
  environment: Environment,
  problems: string[],
): Values[Name] | undefined {
  const setting: Setting<unknown> = SETTINGS[name];
  const flag = flags.get(name);
  // To OpenTelemetry a variable that is empty is not set.
  const given = env[setting.variable] === "" && setting.variable.startsWith("OTEL_") ? undefined : env[setting.variable];
  const text = flag?.text ?? given ?? initialOf(setting, environment);
  try {
    return setting.read(text.trim()) as Values[Name];
  } catch (error) {
    const written = flag?.written ?? setting.variable;
    const shown = setting.secret ? `${written} is refused:` : `${written} is "${text.slice(0, 100)}", but`;
    problems.push(`${shown} ${(error as Error).message}.`);
    return undefined;
  }
}

function helpText(services: readonly string[]): string {
  const rows = Object.keys(SETTINGS).map((name) => {
    const setting = settingOf(name);
    const flag =
      setting.shown === undefined ? `${flagOf(name)}, --no-${flagOf(name).slice(2)}` : `${flagOf(name)} ${setting.shown}`;
    return { flag, setting };
  });
  const width = Math.max(...rows.map(({ flag }) => flag.length));
  const lines = rows.map(
    ({ flag, setting }) =>
      `  ${flag.padEnd(width)}  ${setting.meaning}\n  ${" ".repeat(width)}  ${setting.variable}, ${initialText(setting)}`,
  );
  return [
    "usage: npm start -- [settings] [services]",
    "",
    `services: ${services.join(", ")}; all of them unless named`,
    "",
    ...lines,
    "",
    "A flag wins over a variable of the environment, a variable over the default.",
    "",
  ].join("\n");
}

function initialText({ initial }: Setting<unknown>): string {
  if (typeof initial === "string") return initial === "" ? "not set by default" : `${initial} by default`;
  const { development, production } = initial;
  return `${development || "not set"} in development, ${production || "not set"} in production`;
}

function initialOf({ initial }: Setting<unknown>, environment: Environment): string {
  return typeof initial === "string" ? initial : initial[environment];
}

function settingOf(name: string): Setting<unknown> {
  return SETTINGS[name as keyof typeof SETTINGS];
}

function flagOf(name: string): string {
  return `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

function oneOf<const T extends readonly string[]>(allowed: T): (text: string) => T[number] {
  return (text) => {
    if (allowed.includes(text)) return text as T[number];
    throw new Error(`it must be one of ${allowed.join(", ")}`);
  };
}

function integer(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
    if (value >= least && value <= most) return value;
    throw new Error(`it must be a whole number from ${least} to ${most}`);
  };
}

function yesOrNo(text: string): boolean {
  if (text === "true" || text === "false") return text === "true";
  throw new Error("it must be true or false");
}

function address(text: string): string {
  if (isIP(text) !== 0 || text === "localhost") return text;
  throw new Error("it must be an IP address of this machine, or localhost");
}

function folder(text: string): string {
  if (text === "" || text.includes("\0")) throw new Error("it must be the path of a folder");
  return resolve(text);
}

function file(text: string): string {
  if (text.endsWith("/") || text.includes("\0")) throw new Error("it must be the path of a file");
  return resolve(text);
}

function webOrigin(text: string): string {
  const url = URL.parse(text);
  if (
    url !== null &&
    /^https?:$/.test(url.protocol) &&
    url.pathname === "/" &&
    url.search === "" &&
    url.hash === "" &&
    url.username === ""
  ) {
    return url.origin;
  }
  throw new Error("it must be the origin of a web address, such as https://shop.example");
}

function databaseUrl(text: string): string {
  const url = URL.parse(text.replaceAll("{service}", "service"));
  if (url === null || !/^(mariadb|mysql):$/.test(url.protocol) || url.hostname === "" || url.pathname.length < 2)
    throw new Error("it must be like mariadb://souk_{service}:password@host:3306/souk_{service}, or mysql://…");
  if (!text.slice(text.lastIndexOf("/")).includes("{service}"))
    throw new Error("each service has a database of its own: {service} must stand in the database's name");
  return text;
}

function collectorUrl(text: string): string {
  const url = URL.parse(text);
  if (url !== null && /^https?:$/.test(url.protocol) && url.search === "" && url.hash === "" && url.username === "") {
    return url.href.replace(/\/+$/, "");
  }
  throw new Error("it must be the address of a collector, such as http://otel-collector:4318, without the path of a signal");
}

/** `name=value` pairs as the OTEL_ variables write them: separated by commas, with percent escapes. */
function pairs(text: string): Readonly<Record<string, string>> {
  const parts = text.split(",").map((part) => part.trim());
  return Object.fromEntries(
    parts
      .filter((part) => part !== "")
      .map((part) => {
        const [, name, value] = /^([\w.\-/]+)\s*=\s*(.*)$/.exec(part) ?? [];
        try {
          if (name !== undefined) return [name, decodeURIComponent(value as string)];
        } catch {
          // A percent sign that escapes nothing.
        }
        throw new Error("it must be like name=value,name=value, with %2C for a comma in a value");
      }),
  );
}

function share(text: string): number {
  const value = /^(0|1|[01]?\.\d{1,9})$/.test(text) ? Number(text) : Number.NaN;
  if (value >= 0 && value <= 1) return value;
  throw new Error("it must be a number from 0 to 1");
}

function shortText(text: string): string {
  if (/^[\w.\-/ ]{1,100}$/.test(text)) return text;
  throw new Error("it must be letters, digits, dots and hyphens, at most 100");
}

function redisUrl(text: string): string {
  if (/^rediss?(\+sentinel|\+cluster)?:\/\/[^/]/.test(text)) return text;
  throw new Error("it must be like redis://:password@host:6379");
}

/** Where each service is reached, from a pattern for all or a list; several places of one are separated by spaces. */
function peersUrl(text: string): (service: string) => string | undefined {
  const refuse = (): never => {
    throw new Error(
      "it must be like http://souk-{service}:8080, or a list like order=http://10.0.0.1:8080,payment=http://10.0.0.2:8080",
    );
  };
  const places = (urls: string[]): string => {
    const hosts = urls.map((url) => new URL(url).hostname.replace(/^\[|\]$/g, ""));
    if (urls.length > 1 && !hosts.every(isIPv4) && !hosts.every(isIPv6)) {
      throw new Error(
        "several places of one service are separated by spaces and named by IP addresses; otherwise give one name with several addresses",
      );
    }
    return urls.join(" ");
  };
  const origin = (url: string): string => {
    try {
      return webOrigin(url);
    } catch {
      return refuse();
    }
  };
  if (!text.includes("=")) {
    if (!text.includes("{service}")) refuse();
    origin(text.replaceAll("{service}", "service"));
    return (service) => webOrigin(text.replaceAll("{service}", service));
  }
  const named = new Map(
    text.split(",").map((part) => {
      const [, name, url] = /^\s*([a-z]+)=(.+?)\s*$/.exec(part) ?? refuse();
      return [name as string, places((url as string).split(/\s+/).map(origin))];
    }),
  );
  return (service) => named.get(service);
}

function optional<T>(read: (text: string) => T): (text: string) => T | undefined {
  return (text) => (text === "" ? undefined : read(text));
}

function listOf<T>(read: (text: string) => T): (text: string) => readonly T[] {
  return (text) =>
    text
      .split(",")
      .map((part) => part.trim())
      .filter((part) => part !== "")
      .map(read);
}

/** " Did you mean …?" when something allowed is close to what was written. */
function suggestion(written: string, allowed: readonly string[]): string {
  const [closest] = allowed.map((word) => ({ word, distance: distanceOf(written, word) })).sort((a, b) => a.distance - b.distance);
  return closest !== undefined && closest.distance <= Math.max(2, written.length / 4) ? ` Did you mean ${closest.word}?` : "";
}

/** How many letters differ: the edit distance of Levenshtein. */
function distanceOf(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] as number) + 1, (next[j - 1] as number) + 1));
    }
    row = next;
  }
  return row[b.length] as number;
}
