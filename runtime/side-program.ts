import { SERVER_VARIABLES, SETTINGS } from "#runtime/config.ts";
import { createHealth } from "#runtime/health.ts";
import { createLog, type Log } from "#runtime/log.ts";
import { type Server, startServer } from "#runtime/server.ts";
import type { Door } from "#runtime/service.ts";
import { ConfigError, readSettings, type Setting, type SettingSources, type ValuesOf } from "#runtime/settings.ts";
import { embeddedVerifiers, temporaryKeys } from "#runtime/tokens.ts";

/** One of the marketplace's settings, for a program that runs in development only. */
function inDevelopment<T>(setting: Setting<T>, own: Partial<Pick<Setting<T>, "initial" | "meaning">> = {}): Setting<T> {
  const { initial } = setting;
  return { ...setting, initial: typeof initial === "string" ? initial : initial.development, ...own };
}

/** The settings that every program beside the marketplace has: they are the marketplace's, under the same names. */
export const SIDE_SETTINGS = {
  env: inDevelopment(SETTINGS.env, { meaning: "development; this program is for trying things out, and refuses production" }),
  host: inDevelopment(SETTINGS.host),
  publicUrl: inDevelopment(SETTINGS.publicUrl),
  logLevel: inDevelopment(SETTINGS.logLevel),
  logFormat: inDevelopment(SETTINGS.logFormat),
  drainDelayMs: inDevelopment(SETTINGS.drainDelayMs),
  drainMs: inDevelopment(SETTINGS.drainMs),
} as const;

/** The setting that says where a program listens, with a port of its own, so that all of them run beside each other. */
export function portSetting(initial: number): Setting<number> {
  return inDevelopment(SETTINGS.port, { initial: String(initial) });
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
