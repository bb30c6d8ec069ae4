import { type Contract, type Method, mayRetry } from "./contract.ts";

/** A schema of JSON Schema draft 7, which Helm checks values against. */
export type Schema = Readonly<Record<string, unknown>>;

/** The most attempts a method may get, as `max_attempts` of the policy. */
const MAX_ATTEMPTS = 5;
/** The longest timeout, in seconds. */
const MAX_TIMEOUT_S = 60;

const closed = (properties: Readonly<Record<string, Schema>>, more: Schema = {}): Schema => ({
  type: "object",
  additionalProperties: false,
  properties,
  ...more,
});
const text = (pattern: string): Schema => ({ type: "string", pattern });
const DNS_NAME = "^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$";
const LABEL = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";
const HEADER = "^[a-z0-9-]+$";
const refer = (name: string): Schema => ({ $ref: `#/definitions/${name}` });
const port = refer("port");
const percent = refer("percent");
const duration = refer("duration");

const rateOfCalls: Schema = { type: "integer", minimum: 1, maximum: 60_000 };
const DEFINITIONS: Readonly<Record<string, Schema>> = {
  port: { type: "integer", minimum: 1, maximum: 65_535 },
  percent: { type: "integer", minimum: 0, maximum: 100 },
  duration: text("^[1-9][0-9]*(ms|s|m|h)$"),
  timeout: text(`^([1-9][0-9]{0,3}ms|[1-9]s|[1-5][0-9]s|${MAX_TIMEOUT_S}s)$`),
  canary: canary(),
  fault: closed({
    abortPercent: percent,
    abortGrpcStatus: text("^[A-Z_]+$"),
    delayPercent: percent,
    delay: duration,
  }),
};

/** The schema of the chart's values: closed at every level, and of each method no more attempts than its idempotency allows. */
export function valuesSchema(contract: Contract): Schema {
  const workloads = contract.workloads.map(({ name }) => name);
  const methods = contract.services.flatMap((service) => service.methods);
  return {
    $schema: "http://json-schema.org/draft-07/schema#",
    title: "Values of the mesh chart",
    definitions: { ...DEFINITIONS, ...overrides() },
    ...closed({
      // Helm gives these to every chart that another one depends on.
      global: { type: "object" },
      standalone: { type: "boolean" },
      enabled: { type: "boolean" },
      environment: { enum: ["development", "production"] },
      dataPlane: { enum: ["sidecar", "waypoint"] },
      names: names(),
      gateway: gateway(),
      issuer: closed({
        url: text("^\\S*$"),
        audience: { type: "string" },
        jwksUri: text("^(https?://.+)?$"),
        jwks: { type: "string" },
        rolesClaim: { type: "string", minLength: 1 },
      }),
      connections: connections(),
      outliers: closed({
        consecutiveErrors: { type: "integer", minimum: 1 },
        interval: duration,
        ejectionTime: duration,
        maxEjectionPercent: percent,
      }),
      retries: closed({ budgetPercent: percent, minConcurrency: { type: "integer", minimum: 0 } }),
      egress: { type: "object", additionalProperties: external(workloads) },
      telemetry: closed({
        accessLogProvider: { type: "string" },
        tracingProvider: { type: "string" },
        samplingPercent: { type: "number", minimum: 0, maximum: 100 },
      }),
      networkPolicies: closed({
        enabled: { type: "boolean" },
        meshNamespace: text(LABEL),
        dnsNamespace: text(LABEL),
        ingressNamespaces: { type: "array", items: text(LABEL) },
        monitoringNamespace: text("^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$"),
      }),
      canaries: closed(Object.fromEntries(workloads.map((name) => [name, refer("canary")]))),
      faults: faults(methods),
      methods: closed(Object.fromEntries(methods.map((method) => [method.name, override(method)]))),
      switches: closed(
        Object.fromEntries(contract.doors.filter((door) => door.switch !== "").map((door) => [door.switch, { type: "boolean" }])),
      ),
      monitoring: closed({
        rules: closed({
          enabled: { type: "boolean" },
          labels: { type: "object" },
          runbookBaseUrl: text("^([^\\s]*[^\\s/])?$"),
        }),
        dashboard: closed({ enabled: { type: "boolean" }, labels: { type: "object" } }),
      }),
    }),
  };
}

function names(): Schema {
  return closed({
    prefix: text("^([a-z0-9][a-z0-9-]{0,39})?$"),
    namespace: text("^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$"),
    clusterDomain: text(DNS_NAME),
    trustDomain: text(DNS_NAME),
    port,
    waypoint: text(LABEL),
    selector: { type: "object", additionalProperties: { type: "string" } },
  });
}

function gateway(): Schema {
  return closed({
    enabled: { type: "boolean" },
    namespace: text(LABEL),
    serviceAccount: text(LABEL),
    selector: { type: "object", minProperties: 1, additionalProperties: { type: "string" } },
    podPorts: { type: "array", minItems: 1, items: text("^[1-9][0-9]{0,4}$") },
    hosts: { type: "array", minItems: 1, items: text("^(\\*|(\\*\\.)?[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)$") },
    tlsSecret: text("^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)?$"),
    plainHttp: { enum: ["redirect", "serve", "off"] },
    corsOrigins: { type: "array", items: text("^https?://[^/*]+$") },
    innerHeaders: { type: "array", items: text(HEADER) },
    subjectHeader: text(HEADER),
    webPage: closed({ host: { type: "string" }, port }),
    rateLimits: closed({ enabled: { type: "boolean" }, maxBuckets: { type: "integer", minimum: 1 } }),
  });
}

function connections(): Schema {
  const count: Schema = { type: "integer", minimum: 1 };
  return closed({ maxConnections: count, maxRequests: count, maxPending: count, connectTimeout: duration, idleTimeout: duration });
}

function external(workloads: readonly string[]): Schema {
  return closed(
    {
      host: text(DNS_NAME),
      port,
      protocol: { enum: ["TCP", "TLS", "HTTPS", "HTTP", "GRPC"] },
      namespace: text(LABEL),
      addresses: { type: "array", items: text("^[0-9a-f.:/]+$") },
      resolution: { enum: ["DNS", "NONE"] },
      workloads: { type: "array", items: { enum: workloads } },
    },
    { required: ["host", "port", "protocol"] },
  );
}

function canary(): Schema {
  const header = closed({ name: text(HEADER), value: { type: "string", minLength: 1 } }, { required: ["name", "value"] });
  return closed({ weight: percent, header });
}

function faults(methods: readonly Method[]): Schema {
  const each = Object.fromEntries(methods.map(({ name }) => [name, refer("fault")]));
  return closed({ enabled: { type: "boolean" }, methods: closed(each) });
}

/** What an installation may change of a method: by whether it streams, may be repeated, and has a rate. */
function overrides(): Record<string, Schema> {
  const all: Record<string, Schema> = {};
  for (const stream of [false, true]) {
    for (const repeatable of [false, true]) {
      for (const rated of [false, true]) {
        all[overrideName(stream, repeatable, rated)] = closed({
          ...(stream ? {} : { timeout: refer("timeout") }),
          attempts: { type: "integer", minimum: 1, maximum: repeatable ? MAX_ATTEMPTS : 1 },
          ...(rated ? { perMinute: rateOfCalls, burst: rateOfCalls } : {}),
        });
      }
    }
  }
  return all;
}

function overrideName(stream: boolean, repeatable: boolean, rated: boolean): string {
  return [stream ? "stream" : "unary", ...(repeatable ? ["repeatable"] : []), ...(rated ? ["rated"] : [])].join("-");
}

function override(method: Method): Schema {
  return refer(overrideName(method.stream, mayRetry(method), method.rate !== undefined));
}
