// The program: `node services/main.ts [settings] [services]`.

import { join } from "node:path";
import type { Verifiers } from "#runtime/access.ts";
import { type Clock, systemClock } from "#runtime/clock.ts";
import { type Config, readConfig } from "#runtime/config.ts";
import { claimDataDir } from "#runtime/data-dir.ts";
import { createHealth } from "#runtime/health.ts";
import { openIssuer } from "#runtime/issuer.ts";
import { createLog, type Log } from "#runtime/log.ts";
import { type MeshIdentity, meshIdentity } from "#runtime/mesh-identity.ts";
import { runProgram } from "#runtime/program.ts";
import { openRedis, redisProblems, redisReady } from "#runtime/redis.ts";
import { type Server, startServer } from "#runtime/server.ts";
import { metricsPage } from "#runtime/telemetry/metrics-page.ts";
import { openTelemetry, type Telemetry } from "#runtime/telemetry/telemetry.ts";
import { traceFields } from "#runtime/telemetry/traces.ts";
import {
  embeddedVerifiers,
  type Keys,
  loadOrCreateKeys,
  loadOrCreateServiceKeys,
  type ServiceKeys,
  serviceTokenVerifier,
} from "#runtime/tokens.ts";
import { type Marketplace, openMarketplace, SERVICES } from "./marketplace.ts";
import type { NamedProcessor } from "./payment/processors.ts";

export { SERVICES };

const REDIS_WAIT_MS = 5_000;

/** A process that serves. */
export interface Running {
  readonly url: string;
  /** The key of account tokens is among them where no provider signs these. */
  readonly keys: ServiceKeys & Partial<Keys>;
  readonly marketplace: Marketplace;
  readonly log: Log;
  /** Drains and ends: not ready, GOAWAY, calls in flight, jobs, events, databases. */
  stop(): Promise<void>;
}

/** Where the production stores are, and how to end them. */
export interface OpenStores {
  databaseUrl(service: string): string;
  /** Undefined keeps events in the process. */
  readonly redisUrl: string | undefined;
  stop(): Promise<void>;
}

/** Gives the production stores that the settings name. */
export async function namedStores({ databaseUrl, redisUrl }: Config): Promise<OpenStores> {
  if (databaseUrl === undefined) throw new Error("SOUK_STORES is production: name the database in SOUK_DATABASE_URL.");
  return { databaseUrl: (service) => databaseUrl.replaceAll("{service}", service), redisUrl, stop: async () => {} };
}

/** What a start may be given beside its settings. */
export interface RunOptions {
  readonly clock?: Clock;
  /** Gives the stores, where the settings ask for production's. */
  readonly productionStores?: typeof namedStores;
}

/**
 * Opens the stores, listens, and starts what works by itself; resolves when the process is ready. Nothing stays open when it fails.
 *
 * @throws Error a sentence, when the folder or the port is somebody else's.
 */
export async function run(
  config: Config,
  { clock = systemClock, productionStores = namedStores }: RunOptions = {},
): Promise<Running> {
  const watches = config.metrics || config.otlpEndpoint !== undefined;
  const log = createLog({ level: config.logLevel, format: config.logFormat, fields: watches ? traceFields : undefined });
  const undo: (() => Promise<void> | void)[] = [claimDataDir(config.dataDir)];
  const stop = async () => {
    for (let step = undo.pop(); step !== undefined; step = undo.pop()) await step();
  };
  try {
    const telemetry = watches ? telemetryOf(config, log) : undefined;
    if (telemetry) undo.push(() => telemetry.stop());
    const observer = telemetry?.observer;
    const stores = config.stores === "production" ? await productionStores(config) : undefined;
    if (stores) undo.push(() => stores.stop());
    if (stores?.redisUrl) await checkRedis(stores.redisUrl, log);
    const { keys, verifiers } = await identities(config, log);
    const health = createHealth();
    let server: Server | undefined;
    const baseUrl = () => config.publicUrl ?? server?.url ?? "";
    const marketplace = await openMarketplace({
      dataDir: config.dataDir,
      databaseUrl: stores?.databaseUrl,
      redisUrl: stores?.redisUrl,
      redisPrefix: config.redisPrefix,
      migrate: config.migrate,
      services: config.services,
      peerUrl: config.peersUrl,
      retries: config.retries === "client",
      processor: processorOf(config),
      simulatorFile: config.simulatorFile,
      keys,
      verifiers,
      clock,
      log,
      baseUrl,
      health,
      observer,
    });
    undo.push(() => marketplace.stop());
    telemetry?.watch(marketplace.modules.flatMap(({ database }) => database ?? []));
    const { port, host, corsOrigins, drainMs, drainDelayMs } = config;
    const limits = { maxConnectionAgeMs: config.connectionAgeMs };
    const reflection = config.env !== "production";
    const { modules, inner } = marketplace;
    const metrics = telemetry && config.metrics ? metricsPage(telemetry, log) : undefined;
    server = await startServer({
      modules,
      inner,
      port,
      host,
      // Calls in memory pass no proxy: there services are known by their tokens.
      verifiers: { ...verifiers, mesh: meshOf(config) },
      log,
      health,
      reflection,
      corsOrigins,
      limits,
      metrics,
      observer,
    });
    telemetry?.gauge("souk.server.connections", "Open connections.", () => server?.load.connections ?? 0);
    telemetry?.gauge("souk.server.calls", "Unary calls under way.", () => server?.load.calls ?? 0);
    undo.push(() => server?.stop(drainMs, drainDelayMs));
    await marketplace.start();
    return { url: server.url, keys, marketplace, log, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Who callers are to the mesh, where it knows them. */
function meshOf({ meshIdentity: services, meshGateway: gateway }: Config): MeshIdentity | undefined {
  return services === undefined ? undefined : meshIdentity({ services, gateway });
}

/** The processor that the settings name. Only the development of a marketplace takes a simulated one. */
function processorOf({ processor: url, processorToken: token, env }: Config): NamedProcessor | undefined {
  return url === undefined ? undefined : { url, token, simulated: env !== "production" };
}

/** The keys of this installation, and what tokens are checked with: those keys, or an OpenID provider's where one is named. */
async function identities(config: Config, log: Log): Promise<{ keys: Running["keys"]; verifiers: Verifiers }> {
  const folder = config.keysDir ?? join(config.dataDir, "keys");
  const needed = { services: meshOf(config) === undefined };
  if (config.issuer === undefined) {
    const keys = await loadOrCreateKeys(folder, needed);
    return { keys, verifiers: embeddedVerifiers(keys) };
  }
  const keys = await loadOrCreateServiceKeys(folder, needed);
  const { issuer, issuerAudience: audience, issuerJwks: jwks, issuerRolesClaim: rolesClaim } = config;
  const provider = openIssuer({ issuer, audience, jwks, rolesClaim, log });
  await provider.ready();
  return { keys, verifiers: { accounts: provider.accounts, services: serviceTokenVerifier(keys) } };
}

function telemetryOf(config: Config, log: Log): Telemetry {
  const { services, otelResource: resource, otlpEndpoint: endpoint, otlpHeaders: headers, otlpTimeoutMs: timeoutMs } = config;
  return openTelemetry({
    serviceName: config.otelServiceName ?? resource["service.name"] ?? (services.length === 1 ? `souk-${services[0]}` : "souk"),
    resource,
    collector: endpoint === undefined ? undefined : { endpoint, headers, timeoutMs },
    ratio: config.tracesRatio,
    intervalMs: config.metricsIntervalMs,
    log,
  });
}

/**
 * Names what is wrong with Redis. Only a refused password stops the start: nothing that is sold or read depends on Redis, and events that
 * it lost are published again.
 */
async function checkRedis(url: string, log: Log): Promise<void> {
  const client = openRedis({ url, log, name: "start" });
  try {
    await redisReady(client, REDIS_WAIT_MS);
    for (const problem of await redisProblems(client)) log.warn(problem);
  } catch (error) {
    const { message } = error as Error;
    if (/WRONGPASS|NOAUTH/.test(message)) throw new Error("Redis refuses the password in SOUK_REDIS_URL.", { cause: error });
    log.warn({ err: error }, "Redis cannot be checked; events wait in the outbox until it is there");
  } finally {
    client.disconnect();
  }
}

/**
 * Reads the settings, runs, and ends on SIGINT or SIGTERM.
 *
 * @param argv the arguments after the program's name
 * @param ready runs once the process is ready
 * @param productionStores gives the stores, where the settings ask for production's
 */
export async function main(
  argv: readonly string[],
  ready: (running: Running, config: Config) => Promise<void>,
  productionStores = namedStores,
): Promise<void> {
  await runProgram({
    read() {
      const settings = readConfig({ argv, env: process.env, services: SERVICES });
      return "help" in settings ? settings : settings.config;
    },
    start: (config) => run(config, { productionStores }),
    ready,
  });
}

if (import.meta.main) {
  await main(process.argv.slice(2), async ({ url, log }) => log.info({ url }, "ready"));
}
