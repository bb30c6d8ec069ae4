import { SERVER_VARIABLES } from "#runtime/config.ts";
import { createHealth } from "#runtime/health.ts";
import { createLog, LOG_FORMATS, LOG_LEVELS, type Log } from "#runtime/log.ts";
import { type Server, startServer } from "#runtime/server.ts";
import type { Door } from "#runtime/service.ts";
import { address, integer, oneOf, optional, webOrigin } from "#runtime/setting-readers.ts";
import { ConfigError, ENVIRONMENTS, readSettings, type Setting, type SettingSources, type ValuesOf } from "#runtime/settings.ts";
import { embeddedVerifiers, temporaryKeys } from "#runtime/tokens.ts";

/** The settings that every program beside the marketplace has: they are the marketplace's, under the same names. */
export const SIDE_SETTINGS = {
  env: {
    variable: "SOUK_ENV",
    shown: "NAME",
    initial: "development",
    meaning: "development; this program is for trying things out, and refuses production",
    read: oneOf(ENVIRONMENTS),
  },
  host: {
    variable: "SOUK_HOST",
    shown: "ADDRESS",
    initial: "127.0.0.1",
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
    initial: "line",
    meaning: "json for machines, line for people",
    read: oneOf(LOG_FORMATS),
  },
  drainDelayMs: {
    variable: "SOUK_DRAIN_DELAY_MS",
    shown: "MS",
    initial: "0",
    meaning: "how long it takes calls after it has said that it is not ready",
    read: integer(0, 300_000),
  },
  drainMs: {
    variable: "SOUK_DRAIN_MS",
    shown: "MS",
    initial: "10000",
    meaning: "how long calls in flight may take to finish when it is ended",
    read: integer(0, 300_000),
  },
} as const satisfies Readonly<Record<string, Setting<unknown>>>;

/** The setting that says where a program listens, with a port of its own, so that all of them run beside each other. */
export function portSetting(initial: number): Setting<number> {
  return {
    variable: "SOUK_PORT",
    shown: "NUMBER",
    initial: String(initial),
    meaning: "where it listens; 0 takes any free port",
    read: integer(0, 65_535),
  };
}

type SideSettings = typeof SIDE_SETTINGS & { readonly port: Setting<number> } & Readonly<Record<string, Setting<unknown>>>;

/** Reads the settings of a program beside the marketplace. Throws ConfigError with everything that is wrong at once. */
export function readSideSettings<S extends SideSettings>(
  settings: S,
  usage: string,
  sources: SettingSources,
): ValuesOf<S> | { readonly help: string } {
  const written = readSettings({ settings, usage, others: SERVER_VARIABLES }, sources);
  if ("help" in written) return written as { readonly help: string };
  const { problems, values } = written;
  if (values.env === "production")
    problems.push("SOUK_ENV is production, and this program is for trying things out. Set development.");
  if (problems.length > 0) throw new ConfigError(problems.join("\n"));
  return values;
}

/** What a program beside the marketplace serves. */
export interface Side {
  readonly doors: readonly Door[];
  close(): void;
}

/** A running one. */
export interface SideRunning {
  readonly url: string;
  readonly log: Log;
  stop(): Promise<void>;
}

/** Listens, with `/healthz`, `/readyz` and `grpc.health.v1`, until it is stopped. `open` is given where people reach it, once that is known. */
export async function startSide(
  settings: Readonly<ValuesOf<SideSettings>>,
  name: string,
  open: (baseUrl: () => string, log: Log) => Side | Promise<Side>,
): Promise<SideRunning> {
  const { port, host, publicUrl, logLevel, logFormat, drainMs, drainDelayMs } = settings as ValuesOf<
    typeof SIDE_SETTINGS & { port: Setting<number> }
  >;
  const log = createLog({ level: logLevel, format: logFormat });
  let server: Server | undefined;
  const side = await open(() => publicUrl ?? server?.url ?? "", log);
  try {
    server = await startServer({
      modules: [{ name, routes: () => {}, doors: side.doors }],
      port,
      host,
      // It has no methods, so nobody's token is looked at.
      verifiers: embeddedVerifiers(await temporaryKeys()),
      log,
      health: createHealth(),
    });
  } catch (error) {
    side.close();
    throw error;
  }
  const { url } = server;
  return {
    url,
    log,
    async stop() {
      await server.stop(drainMs, drainDelayMs);
      side.close();
    },
  };
}
