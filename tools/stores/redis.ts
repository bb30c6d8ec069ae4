// A private Redis: own data folder, loopback only, a free port, ended with the process that started it.

import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { Redis } from "ioredis";
import { keep } from "./keeper.ts";
import { type PrivateServer, type ServerOptions, startOn } from "./private.ts";
import { findProgram, type Search } from "./programs.ts";

/** How to start a Redis. */
export interface RedisOptions extends ServerOptions {
  /** Made up unless given. */
  readonly password?: string;
}

/**
 * Starts a private Redis that appends every write to a file, syncs it once a second and evicts nothing. Its `url` is
 * `redis://:password@127.0.0.1:port`.
 */
export async function startRedis(options: RedisOptions = {}, search: Search = {}): Promise<PrivateServer> {
  const program = findProgram("Redis", search);
  const home = options.folder ?? mkdtempSync(path.join(tmpdir(), "souk-redis-"));
  mkdirSync(home, { recursive: true, mode: 0o700 });
  const password = options.password ?? randomBytes(12).toString("hex");
  const log = path.join(home, "redis.log");
  return startOn({ name: "Redis", port: options.port }, async (port) => {
    // In a file and not in the arguments, which everybody on the machine can read.
    const settings = path.join(home, "redis.conf");
    writeFileSync(settings, settingsOf({ home, port, password }), { mode: 0o600 });
    const kept = await keep({
      file: program.file,
      args: [settings],
      env: program.env,
      log,
      cwd: home,
      remove: options.folder === undefined ? home : undefined,
      graceSeconds: options.folder === undefined ? 0 : 30,
    });
    return { kept, url: `redis://:${password}@127.0.0.1:${port}`, isReady: () => isReady(port, password) };
  });
}

function settingsOf({ home, port, password }: { home: string; port: number; password: string }): string {
  return [
    `port ${port}`,
    "bind 127.0.0.1",
    `dir "${home}"`,
    `requirepass ${password}`,
    "daemonize no",
    'logfile ""',
    "appendonly yes",
    "appendfsync everysec",
    'save ""',
    "maxmemory-policy noeviction",
    "",
  ].join("\n");
}

async function isReady(port: number, password: string): Promise<boolean> {
  const redis = new Redis({ host: "127.0.0.1", port, password, lazyConnect: true, retryStrategy: null, connectTimeout: 5_000 });
  redis.on("error", () => undefined);
  try {
    await redis.connect();
    await redis.ping();
    return true;
  } catch {
    return false;
  } finally {
    redis.disconnect();
  }
}
