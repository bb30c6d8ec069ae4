import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { DescService } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { Redis } from "ioredis";
import { type Connection, createConnection } from "mysql2/promise";
import { newId } from "#runtime/ids.ts";
import { type Keys, loadOrCreateKeys } from "#runtime/tokens.ts";
import { startMariadb } from "../../tools/stores/mariadb.ts";
import { startRedis } from "../../tools/stores/redis.ts";
import { temporaryFolder } from "../support/database.ts";
import { ROOT, shell } from "../support/process.ts";
import { type Identity, signedIn } from "../support/server.ts";
import { homeFor, pathWithClient, shellOf } from "./page.ts";

const PASSWORD = "drill1";

/** A marketplace that was started from a backup. */
export interface Restored {
  readonly url: string;
  as<S extends DescService>(identity: Identity, service: S): ReturnType<typeof createClient<S>>;
  /** Runs the page's last lines, which ask whether all is right; gives what they print, line by line. */
  check(): Promise<string[]>;
  stop(): Promise<void>;
}

/** Two machines: one to trade on, with databases as the page makes them, and an empty one to restore on. */
export interface Drill {
  readonly keys: Keys;
  /** The data folder of the first. */
  readonly dataDir: string;
  /** The administrator's, of the first. */
  readonly adminUrl: string;
  databaseUrl(service: string): string;
  readonly redisUrl: string;
  /** Ends the Redis of the first: its events wait from now on. */
  loseRedis(): Promise<void>;
  /** Backs the first up by the page's lines; gives the folder. */
  backUp(name: string): Promise<string>;
  /** Runs the page's lines about tables on the first; gives what they print. */
  upgrade(): Promise<string>;
  /** Restores a backup on the second by the page's lines, and starts it. */
  restore(backup: string): Promise<Restored>;
  close(): Promise<void>;
}

/** Starts the stores of both. */
export async function openDrill(): Promise<Drill> {
  const folder = temporaryFolder();
  const dataDir = join(folder.path, "data");
  const servers = await Promise.all([startMariadb(), startMariadb(), startRedis(), startRedis()]);
  const [first, second, redis, otherRedis] = servers;
  const cache = process.env.XDG_CACHE_HOME || join(process.env.HOME ?? "", ".cache");
  const person = { PATH: pathWithClient(folder.path), XDG_CACHE_HOME: cache, PASSWORD };
  const firstPerson = { ...person, HOME: homeFor(folder.path, "first", first.url), SOUK_DATA_DIR: dataDir };
  const secondHome = homeFor(folder.path, "second", second.url);
  const [users = ""] = shellOf("## Databases and users");
  const [save = ""] = shellOf("## Backup and restore");
  const [restoring = "", starting = "", checking = ""] = shellOf("### The drill");
  const children: ChildProcess[] = [];
  const [upgrading = ""] = shellOf("## Upgrades");
  const keys = await loadOrCreateKeys(join(dataDir, "keys"));
  await shell(users, firstPerson);
  const urlOn = (port: number) => `mariadb://souk_{service}:${PASSWORD}@127.0.0.1:${port}/souk_{service}`;
  return {
    keys,
    dataDir,
    adminUrl: first.url,
    databaseUrl: (service) => urlOn(first.port).replaceAll("{service}", service),
    redisUrl: redis.url,
    loseRedis: () => redis.stop(),
    async backUp(name) {
      const backup = join(folder.path, name);
      mkdirSync(backup);
      await shell(save, { ...firstPerson, BACKUP: backup });
      return backup;
    },
    upgrade: () => shell(upgrading, { ...firstPerson, SOUK_DATABASE_URL: urlOn(first.port) }),
    async restore(backup) {
      await emptied(otherRedis.url);
      const settings = {
        SOUK_DATA_DIR: `${backup}-restored`,
        SOUK_DATABASE_URL: urlOn(second.port),
        SOUK_REDIS_URL: otherRedis.url,
      };
      const env = { ...person, ...settings, HOME: secondHome, BACKUP: backup };
      await shell(`${restoring}${users}`, env);
      return started({ starting, checking, env, keys, children });
    },
    async close() {
      for (const child of children) if (child.pid !== undefined && child.exitCode === null) process.kill(-child.pid, "SIGKILL");
      await Promise.all(servers.map((server) => server.stop()));
      folder.remove();
    },
  };
}

interface Starting {
  readonly starting: string;
  readonly checking: string;
  readonly env: NodeJS.ProcessEnv;
  readonly keys: Keys;
  /** Ended at the latest when the drill is closed. */
  readonly children: ChildProcess[];
}

async function started({ starting, checking, env, keys, children }: Starting): Promise<Restored> {
  const child = spawn("bash", ["-euc", `exec ${starting}`], {
    cwd: ROOT,
    env: { ...process.env, ...env, SOUK_PORT: "0", SOUK_LOG_LEVEL: "warn" },
    stdio: ["ignore", "pipe", "pipe"],
    detached: true,
  });
  children.push(child);
  const exited = once(child, "exit");
  const url = await listening(child);
  const pid = Number(readFileSync(join(env.SOUK_DATA_DIR ?? "", "souk.pid"), "utf8"));
  return {
    url,
    as: (identity, service) =>
      createClient(service, createConnectTransport({ baseUrl: url, httpVersion: "1.1", interceptors: [signedIn(keys, identity)] })),
    check: async () => (await shell(checking, { ...env, SOUK_URL: url })).trim().split("\n"),
    async stop() {
      process.kill(pid, "SIGTERM");
      await exited;
    },
  };
}

/** Puts a dead letter into the order service of the first machine. */
export async function leaveDeadLetter(drill: Drill): Promise<void> {
  const columns = {
    dead_letter_id: newId(),
    kind: "job",
    state: "open",
    handler: "order.saga",
    subject: newId(),
    sequence: 0,
    event_type: "",
    event_id: "",
    attempts: 10,
    create_time: Date.now(),
    first_attempt_time: Date.now(),
    last_attempt_time: Date.now(),
    reason: "UNAVAILABLE",
    message: "Nobody was there.",
    traceparent: "",
  };
  await asAdmin(drill, async (admin) => {
    await admin.query("insert into souk_order.dead_letter set ?", [columns]);
  });
}

/** How many events of the order service on the first machine wait for Redis. */
export function unpublishedEvents(drill: Drill): Promise<number> {
  return asAdmin(drill, async (admin) => {
    const [rows] = await admin.query("select * from souk_order.outbox where publish_time is null");
    return (rows as unknown[]).length;
  });
}

async function asAdmin<T>({ adminUrl }: Drill, work: (admin: Connection) => Promise<T>): Promise<T> {
  const admin = await createConnection(adminUrl.replace(/^mariadb:/, "mysql:"));
  try {
    return await work(admin);
  } finally {
    await admin.end();
  }
}

/** Waits until it says where it listens; fails with all it wrote when it ends instead. */
function listening(child: ChildProcess): Promise<string> {
  let output = "";
  return new Promise((resolve, reject) => {
    const take = (chunk: Buffer) => {
      output += chunk.toString();
      const url = /Souk listens on (\S+),/.exec(output)?.[1];
      if (url !== undefined && output.includes("A whole purchase")) resolve(url);
    };
    child.stdout?.on("data", take);
    child.stderr?.on("data", take);
    child.once("exit", (code) => reject(new Error(`The restored marketplace ended with ${code}:\n${output}`)));
  });
}

async function emptied(redisUrl: string): Promise<void> {
  const redis = new Redis(redisUrl);
  await redis.flushall();
  redis.disconnect();
}
