// Private stores for a benchmark, and the marketplace on them: what several benchmarks share.

import { fork } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startMariadb } from "../tools/stores/mariadb.ts";
import { startRedis } from "../tools/stores/redis.ts";
import { ensureDatabase } from "../tools/stores/stores.ts";
import type { Answer, ProductionServerOptions, Question } from "./production-server.ts";

/** The services that have a database. */
export const SERVICES = ["account", "catalog", "inventory", "order", "payment", "search"] as const;

/** Processor time spent so far, in microseconds. */
export interface Usage {
  readonly processUs: number;
  /** Undefined where the system does not tell it. */
  readonly databaseUs: number | undefined;
  readonly redisUs: number | undefined;
}

/** The marketplace on private stores. */
export interface Production {
  readonly mysqlAdminUrl: string;
  readonly redisUrl: string;
  readonly url: string;
  readonly floorUrl: string;
  readonly tokens: Readonly<Record<string, string>>;
  usage(): Promise<Usage>;
  /** Waits until nothing works any more, so that what calls caused is counted to them. */
  idle(): Promise<void>;
  stop(): Promise<void>;
}

/** Starts a MariaDB (`innodb_flush_log_at_trx_commit = 1`), a Redis and a marketplace on them. */
export async function startProduction(options: { started: boolean; execArgv?: string[] } = { started: true }): Promise<Production> {
  const [mariadb, redis] = await Promise.all([startMariadb(), startRedis()]);
  const dataDir = mkdtempSync(join(tmpdir(), "souk-bench-"));
  const names = [...SERVICES, "floor"];
  const urls = await Promise.all(
    names.map((service) => ensureDatabase(mariadb.url, { name: `souk_${service}`, password: "bench" })),
  );
  const databaseUrls = Object.fromEntries(names.map((name, index) => [name, urls[index] ?? ""]));
  const given: ProductionServerOptions = {
    dataDir,
    databaseUrls,
    redisUrl: redis.url,
    floorUrl: databaseUrls.floor ?? "",
    started: options.started,
  };
  const child = fork(new URL("production-server.ts", import.meta.url), [JSON.stringify(given)], {
    stdio: "inherit",
    ...(options.execArgv === undefined ? {} : { execArgv: options.execArgv }),
  });
  const ended = once(child, "exit").then(() => Promise.reject(new Error("the benchmark's server ended.")));
  ended.catch(() => {});
  child.setMaxListeners(0);
  const answer = async () => {
    const [message] = await Promise.race([once(child, "message"), ended]);
    return message as Answer;
  };
  const start = (await answer()) as Extract<Answer, { url: string }>;
  const usage = async (): Promise<Usage> => {
    const asked = answer();
    child.send("usage" satisfies Question);
    const { cpuUs } = (await asked) as Extract<Answer, { cpuUs: number }>;
    return { processUs: cpuUs, databaseUs: cpuUsOf(mariadb.pid), redisUs: cpuUsOf(redis.pid) };
  };
  return {
    mysqlAdminUrl: mariadb.url,
    redisUrl: redis.url,
    url: start.url,
    floorUrl: start.floorUrl,
    tokens: start.tokens,
    usage,
    async idle() {
      const end = Date.now() + IDLE_MAX_MS;
      for (let last = (await usage()).processUs; Date.now() < end; ) {
        await new Promise((resolve) => setTimeout(resolve, 250));
        const { processUs } = await usage();
        if (processUs - last < 15_000) return;
        last = processUs;
      }
    },
    async stop() {
      const exit = once(child, "exit");
      child.send("stop" satisfies Question);
      await exit;
      await Promise.all([mariadb.stop(), redis.stop()]);
      rmSync(dataDir, { recursive: true, force: true });
    },
  };
}

/** However busy the machine is, nothing that calls caused takes longer. */
const IDLE_MAX_MS = 5_000;

/** Clock ticks of /proc, in microseconds. */
const TICK_US = 10_000;

/** User and system time of a process; undefined where there is no /proc. */
export function cpuUsOf(pid: number): number | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  } catch {
    return undefined;
  }
  // The second field is the program's name and may hold anything.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * TICK_US;
}
