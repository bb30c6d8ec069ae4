import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { DescService } from "@bufbuild/protobuf";
import { type Client, createClient, type Transport } from "@connectrpc/connect";
import { openPeers } from "#runtime/peers.ts";
import { type Keys, loadOrCreateKeys } from "#runtime/tokens.ts";
import { SERVICES } from "../../services/main.ts";
import { freePort } from "../../tools/stores/private.ts";
import { startRedis } from "../../tools/stores/redis.ts";
import { ensureDatabase } from "../../tools/stores/stores.ts";
import { temporaryFolder } from "./database.ts";
import { ROOT } from "./process.ts";
import { type Identity, signedIn } from "./server.ts";
import { testStores } from "./stores.ts";

const MAX_START_MS = 60_000;

/** How a fleet is started. */
export interface FleetOptions {
  /** The services of each process. Every service is to be somewhere. */
  readonly processes: readonly (readonly string[])[];
  /** The administrator's URL of the MariaDB that gets the fleet's databases; that of the test run unless given. */
  readonly mysqlAdminUrl?: string;
  /** A Redis that nobody else uses; one of the fleet's own unless given. */
  readonly redisUrl?: string;
  /** More of the processes' environment. */
  readonly env?: NodeJS.ProcessEnv;
  /** The program, with arguments that go before the services' names; `services/main.ts` unless given. Called at each start. */
  readonly program?: (index: number) => readonly string[];
}

/** A marketplace in several processes, with a port for each service behind which any living process that runs it answers. */
export interface Fleet {
  /** Where each process listens, the same after a restart. */
  readonly urls: readonly string[];
  readonly keys: Keys;
  /** Each process has a folder below, named after its index; the simulator's books are shared, in `processor.db`. */
  readonly folder: string;
  readonly redisUrl: string;
  databaseUrl(service: string): string;
  /** Where a service answers as long as one of its processes lives. */
  at(service: string): string;
  /** A client of a contract at a service's port, or at one process by its index. */
  client<S extends DescService>(contract: S, identity: Identity, where: string | number): Client<S>;
  /** Sends a signal, SIGKILL unless given, and gives the exit code when the process is gone; null when a signal ended it. */
  kill(index: number, signal?: NodeJS.Signals): Promise<number | null>;
  /** Starts a process that is gone; resolves when it is ready. */
  restart(index: number): Promise<void>;
  /** All a process has written so far, over all its starts. */
  output(index: number): string;
  /** Ends everything. Gives the exit codes of the processes that lived. */
  stop(): Promise<(number | null)[]>;
}

/** Starts processes on private MariaDB and Redis; resolves when all are ready. Nothing is left when it fails. */
export async function startFleet(options: FleetOptions): Promise<Fleet> {
  const undo: (() => unknown)[] = [];
  try {
    return await startAll(options, undo);
  } catch (error) {
    for (const step of undo.reverse()) await step();
    throw error;
  }
}

async function startAll(options: FleetOptions, undo: (() => unknown)[]): Promise<Fleet> {
  const folder = temporaryFolder();
  undo.push(() => folder.remove());
  const { databaseUrl, redisUrl } = await storesOf(options, undo);
  const members = options.processes.map(() => new Member(options));
  const ports = new Map(
    await Promise.all(
      SERVICES.map(async (service) => {
        const hosts = members.filter((_, index) => options.processes[index]?.includes(service));
        const door = await openDoor(() => hosts.flatMap((host) => (host.lives ? [host.port] : [])));
        undo.push(() => door.close());
        return [service as string, door.port] as const;
      }),
    ),
  );
  const at = (service: string) => `http://127.0.0.1:${ports.get(service)}`;
  const keysDir = join(folder.path, "keys");
  const keys = await loadOrCreateKeys(keysDir);
  const env = {
    SOUK_DATABASE_URL: databaseUrl("{service}"),
    SOUK_REDIS_URL: redisUrl,
    SOUK_PEERS_URL: SERVICES.map((service) => `${service}=${at(service)}`).join(","),
    SOUK_KEYS_DIR: keysDir,
    SOUK_SIMULATOR_FILE: join(folder.path, "processor.db"),
    SOUK_LOG_LEVEL: "warn",
    ...options.env,
  };
  undo.push(() => Promise.all(members.map((member) => member.kill("SIGKILL"))));
  const start = (index: number) => {
    const [program = "services/main.ts", ...first] = options.program?.(index) ?? [];
    const rest = [...(options.processes[index] ?? []), "--data-dir", join(folder.path, String(index))];
    return (members[index] as Member).start([program, ...first, ...rest], env);
  };
  await Promise.all(members.map((_, index) => start(index)));
  const transports = new Map<string, Transport>();
  // The way that processes take to each other: a call that an ending process did not begin goes to another.
  const peers = openPeers({ urlOf: (url) => url });
  undo.push(() => peers.close());
  return {
    get urls() {
      return members.map(({ url }) => url);
    },
    keys,
    folder: folder.path,
    redisUrl,
    databaseUrl,
    at,
    client(contract, identity, where) {
      const baseUrl = typeof where === "number" ? (members[where] as Member).url : at(where);
      const key = `${baseUrl} ${JSON.stringify(identity)}`;
      const interceptors = [signedIn(keys, identity)];
      const transport = transports.get(key) ?? peers.open(baseUrl, interceptors);
      transports.set(key, transport);
      return createClient(contract, transport);
    },
    kill: (index, signal = "SIGKILL") => (members[index] as Member).kill(signal),
    restart: start,
    output: (index) => (members[index] as Member).output,
    async stop() {
      const living = members.filter(({ lives }) => lives);
      const codes = await Promise.all(living.map((member) => member.kill("SIGTERM")));
      for (const step of undo.reverse()) await step();
      return codes;
    },
  };
}

/** Databases of the fleet's own, all with one password, and a Redis. */
async function storesOf({ mysqlAdminUrl, redisUrl }: FleetOptions, undo: (() => unknown)[]) {
  const adminUrl = mysqlAdminUrl ?? (await testStores()).mysqlAdminUrl;
  const id = randomBytes(4).toString("hex");
  const password = randomBytes(12).toString("hex");
  const nameOf = (service: string) => `souk_${service}_${id}`;
  for (const service of SERVICES) await ensureDatabase(adminUrl, { name: nameOf(service), password });
  const { protocol, host } = new URL(adminUrl);
  const databaseUrl = (service: string) => `${protocol}//${nameOf(service)}:${password}@${host}/${nameOf(service)}`;
  if (redisUrl !== undefined) return { databaseUrl, redisUrl };
  const redis = await startRedis();
  undo.push(() => redis.stop());
  return { databaseUrl, redisUrl: redis.url };
}

/** One process, over all its starts. */
class Member {
  readonly #options: FleetOptions;
  #child: ChildProcess | undefined;
  port = 0;
  output = "";

  constructor(options: FleetOptions) {
    this.#options = options;
  }

  get lives(): boolean {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  async start(args: readonly string[], env: NodeJS.ProcessEnv): Promise<void> {
    if (this.lives) throw new Error("This process lives.");
    this.port ||= await freePort();
    const inherited = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("SOUK_")));
    const child = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", ...args, "--port", String(this.port)], {
      cwd: ROOT,
      env: { ...inherited, ...env, ...this.#options.env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#child = child;
    const end = () => child.kill("SIGKILL");
    process.once("exit", end);
    child.once("exit", () => process.off("exit", end));
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (chunk: Buffer) => {
        this.output += chunk.toString();
      });
    }
    for (const endTime = Date.now() + MAX_START_MS; !(await this.#isReady()); await sleep(25)) {
      if (!this.lives) throw new Error(`A process ended with ${child.exitCode ?? child.signalCode}:\n${this.output}`);
      if (Date.now() > endTime) throw new Error(`A process is not ready:\n${this.output}`);
    }
  }

  async kill(signal: NodeJS.Signals): Promise<number | null> {
    const child = this.#child;
    if (child === undefined) return null;
    if (this.lives) {
      const exited = once(child, "exit");
      child.kill(signal);
      await exited;
    }
    return child.exitCode;
  }

  async #isReady(): Promise<boolean> {
    return fetch(`${this.url}/readyz`, { signal: AbortSignal.timeout(2_000) }).then(
      ({ ok }) => ok,
      () => false,
    );
  }
}

/** A port that hands each connection to one of several others in turn, as a cluster's services do; to the next one where nobody listens. */
export async function openDoor(targets: () => readonly number[]): Promise<{ port: number; close(): Promise<void> }> {
  let turn = 0;
  const sockets = new Set<Socket>();
  const keep = (socket: Socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
    socket.on("error", () => {});
  };
  const server: Server = createServer({ noDelay: true, allowHalfOpen: true }, async (near) => {
    keep(near);
    const ports = targets();
    turn++;
    for (let tried = 0; tried < ports.length; tried++) {
      const far = connect({
        port: ports[(turn + tried) % ports.length] as number,
        host: "127.0.0.1",
        noDelay: true,
        allowHalfOpen: true,
      });
      keep(far);
      const connected = await new Promise<boolean>((resolve) => {
        far.once("connect", () => resolve(true));
        far.once("close", () => resolve(false));
      });
      if (!connected) continue;
      near.pipe(far).pipe(near);
      far.on("close", () => near.destroy());
      near.on("close", () => far.destroy());
      return;
    }
    near.destroy();
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    async close() {
      const closed = once(server, "close");
      server.close();
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}
