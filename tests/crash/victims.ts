import { globSync, rmSync, statSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Redis } from "ioredis";
import { type MariadbOptions, startMariadb } from "../../tools/stores/mariadb.ts";
import type { PrivateServer } from "../../tools/stores/private.ts";
import { type RedisOptions, startRedis } from "../../tools/stores/redis.ts";
import { temporaryFolder } from "../support/database.ts";
import type { Fleet } from "../support/processes.ts";
import type { Chance } from "./chance.ts";

/** A MariaDB and a Redis on folders of their own, for one test to kill; they come back on the same folder, port and password. */
export interface MortalStores {
  readonly mysqlAdminUrl: string;
  readonly redisUrl: string;
  killMariadb(): Promise<void>;
  /** Kills Redis; its data stays as it is, ends at most a second earlier (what `everysec` may lose with the machine), or is gone. */
  killRedis(lost: "nothing" | "its last second" | "everything", chance: Chance): Promise<void>;
  /** Redis lives on, and is empty. */
  emptyRedis(): Promise<void>;
  startMariadb(): Promise<void>;
  startRedis(): Promise<void>;
  stop(): Promise<void>;
}

/** Starts both. */
export async function startMortalStores(): Promise<MortalStores> {
  const folder = temporaryFolder();
  const mariadbOptions: MariadbOptions = { folder: join(folder.path, "mariadb"), password: "mortal" };
  const redisOptions: RedisOptions = { folder: join(folder.path, "redis"), password: "mortal" };
  let mariadb = await startMariadb(mariadbOptions);
  let redis = await startRedis(redisOptions);
  const kill = async (server: PrivateServer) => {
    process.kill(server.pid, "SIGKILL");
    await server.exited;
  };
  const logFile = () =>
    globSync(join(folder.path, "redis", "**", "*.incr.aof"))
      .sort()
      .at(-1);
  return {
    mysqlAdminUrl: mariadb.url,
    redisUrl: redis.url,
    killMariadb: () => kill(mariadb),
    async killRedis(lost, chance) {
      const file = logFile();
      const size = file === undefined ? 0 : statSync(file).size;
      if (lost === "its last second") await sleep(chance.between(1, 1_000));
      await kill(redis);
      if (lost === "its last second" && file !== undefined && file === logFile()) truncateSync(file, size);
      if (lost === "everything") rmSync(join(folder.path, "redis", "appendonlydir"), { recursive: true, force: true });
    },
    async emptyRedis() {
      const client = new Redis(redis.url);
      await client.flushall();
      client.disconnect();
    },
    async startMariadb() {
      mariadb = await startMariadb({ ...mariadbOptions, port: mariadb.port });
    },
    async startRedis() {
      redis = await startRedis({ ...redisOptions, port: redis.port });
    },
    async stop() {
      await Promise.all([mariadb.stop(), redis.stop()]);
      folder.remove();
    },
  };
}

/** What is killed in turn. */
export const VICTIMS = ["process", "mariadb", "redis keeps", "redis loses"] as const;
/** One of them. */
export type Victim = (typeof VICTIMS)[number];

const DOWN_MAX_MS = 1_200;

/** Kills one after the other, each at a random moment for a random while, and now and then a process at the same time. */
export class Reaper {
  /** What was killed, in order. */
  readonly killed: string[] = [];
  readonly #fleet: Fleet;
  readonly #processes: number;
  readonly #stores: MortalStores;
  readonly #chance: Chance;
  #turn: Victim[] = [];

  constructor(deps: { fleet: Fleet; processes: number; stores: MortalStores; chance: Chance }) {
    this.#fleet = deps.fleet;
    this.#processes = deps.processes;
    this.#stores = deps.stores;
    this.#chance = deps.chance;
  }

  /** One kill, and the recovery from it. Every victim has its turn before one comes again. */
  async strike(): Promise<void> {
    const chance = this.#chance;
    if (this.#turn.length === 0) this.#turn = chance.shuffled(VICTIMS);
    const victim = this.#turn.shift();
    const recover = victim === "process" ? undefined : await this.#killStore(victim as Exclude<Victim, "process">);
    const index = victim === "process" || chance.next() < 0.2 ? await this.#killProcess() : undefined;
    await sleep(chance.between(0, DOWN_MAX_MS));
    await recover?.();
    if (index !== undefined) await this.#fleet.restart(index);
  }

  async #killProcess(): Promise<number> {
    const index = this.#chance.between(0, this.#processes - 1);
    this.killed.push(`process ${index}`);
    const code = await this.#fleet.kill(index);
    if (code !== null)
      throw new Error(`the process ${index} had ended by itself, with ${code}:\n${tail(this.#fleet.output(index))}`);
    return index;
  }

  async #killStore(victim: Exclude<Victim, "process">): Promise<() => Promise<void>> {
    const stores = this.#stores;
    const chance = this.#chance;
    if (victim === "mariadb") {
      this.killed.push("MariaDB");
      await stores.killMariadb();
      return () => stores.startMariadb();
    }
    const how =
      victim === "redis keeps" ? chance.of(["nothing", "its last second"] as const) : chance.of(["everything", "flush"] as const);
    this.killed.push(how === "flush" ? "all that Redis held" : `Redis, which lost ${how}`);
    if (how === "flush") {
      await stores.emptyRedis();
      return async () => {};
    }
    await stores.killRedis(how, chance);
    return () => stores.startRedis();
  }
}

/** The end of what a process wrote. */
export function tail(output: string): string {
  return output.slice(-3_000);
}
