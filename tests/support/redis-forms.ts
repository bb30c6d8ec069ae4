// Private Redis servers in the forms that have more than one: with TLS, a primary and its replica under a Sentinel, a Cluster of three.

import { randomBytes, randomInt } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Redis } from "ioredis";
import { keep } from "../../tools/stores/keeper.ts";
import { type PrivateServer, startOn } from "../../tools/stores/private.ts";
import { findProgram } from "../../tools/stores/programs.ts";
import type { TestCertificate } from "./certificates.ts";

/** What all servers of this run want. */
export const PASSWORD = randomBytes(12).toString("hex");

/** A server of a form. Its URL is left empty. */
export interface Node {
  readonly server: PrivateServer;
  /** Kills it; what it had written stays where it is, unless it is told to lose it. */
  kill(options?: { lose: boolean }): Promise<void>;
  /** Starts it again on the same port, with these settings beside its own. */
  restart(settings?: readonly string[]): Promise<void>;
  /** Sends one command on a connection of its own. */
  ask(command: string, ...args: (string | number)[]): Promise<unknown>;
  stop(): Promise<void>;
}

interface NodeOptions {
  readonly settings?: readonly string[];
  readonly tls?: TestCertificate | undefined;
  readonly sentinel?: boolean;
  readonly port?: number;
}

/** Starts one server. With a certificate it speaks TLS and nothing else. */
export async function startNode({ settings = [], tls, sentinel = false, port }: NodeOptions = {}): Promise<Node> {
  const folder = mkdtempSync(join(tmpdir(), "souk-redis-"));
  const program = findProgram("Redis");
  const own = [`dir "${folder}"`, "bind 127.0.0.1", "daemonize no", 'logfile ""', ...settings];
  if (!sentinel)
    own.push(`requirepass ${PASSWORD}`, `masterauth ${PASSWORD}`, "appendonly yes", 'save ""', "repl-diskless-sync-delay 0");
  if (tls !== undefined) own.push(...tlsSettings(folder, tls));
  const ask = async (at: number, command: string, ...args: (string | number)[]) => {
    const redis = new Redis({
      host: "127.0.0.1",
      port: at,
      lazyConnect: true,
      retryStrategy: null,
      connectTimeout: 5_000,
      ...(sentinel ? { enableReadyCheck: false } : { password: PASSWORD }),
      ...(tls === undefined ? {} : { tls: { rejectUnauthorized: false } }),
    });
    redis.on("error", () => undefined);
    try {
      await redis.connect();
      return await redis.call(command, ...args);
    } finally {
      redis.disconnect();
    }
  };
  const start = (at: number | undefined, more: readonly string[]) =>
    startOn({ name: "Redis", port: at }, async (chosen) => {
      const file = join(folder, "redis.conf");
      const ports = tls === undefined ? [`port ${chosen}`] : ["port 0", `tls-port ${chosen}`];
      writeFileSync(file, [...ports, ...own, ...more, ""].join("\n"), { mode: 0o600 });
      const kept = await keep({
        file: program.file,
        args: sentinel ? [file, "--sentinel"] : [file],
        env: program.env,
        log: join(folder, "redis.log"),
        cwd: folder,
        graceSeconds: 0,
      });
      const answers = () =>
        ask(chosen, "PING").then(
          () => true,
          () => false,
        );
      return { kept, url: "", isReady: answers };
    });
  let server = await start(port, []);
  return {
    get server() {
      return server;
    },
    async kill({ lose } = { lose: false }) {
      process.kill(server.pid, "SIGKILL");
      await server.exited;
      await server.stop();
      if (lose) rmSync(join(folder, "appendonlydir"), { recursive: true, force: true });
    },
    async restart(more = []) {
      server = await start(server.port, more);
    },
    ask: (command, ...args) => ask(server.port, command, ...args),
    async stop() {
      await server.stop();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

function tlsSettings(folder: string, { authority, certificate, key }: TestCertificate): string[] {
  writeFileSync(join(folder, "ca.pem"), authority);
  writeFileSync(join(folder, "cert.pem"), certificate);
  writeFileSync(join(folder, "key.pem"), key, { mode: 0o600 });
  return [
    `tls-ca-cert-file "${folder}/ca.pem"`,
    `tls-cert-file "${folder}/cert.pem"`,
    `tls-key-file "${folder}/key.pem"`,
    "tls-auth-clients no",
    "tls-replication yes",
  ];
}

/** A primary and a replica under one Sentinel, which calls the primary "souk". */
export async function startSentinel(): Promise<{ url: string; sentinel: Node; nodes: [Node, Node]; stop(): Promise<void> }> {
  const primary = await startNode();
  const replica = await startNode({ settings: [`replicaof 127.0.0.1 ${primary.server.port}`] });
  const settings = [
    `sentinel monitor souk 127.0.0.1 ${primary.server.port} 1`,
    `sentinel auth-pass souk ${PASSWORD}`,
    "sentinel down-after-milliseconds souk 500",
    "sentinel failover-timeout souk 1000",
  ];
  await until(async () => String(await replica.ask("INFO", "replication")).includes("master_link_status:up"));
  const sentinel = await startNode({ sentinel: true, settings });
  return {
    url: `redis+sentinel://:${PASSWORD}@127.0.0.1:${sentinel.server.port}/souk`,
    sentinel,
    nodes: [primary, replica],
    async stop() {
      await Promise.all([sentinel, primary, replica].map((node) => node.stop()));
    },
  };
}

/** Resolves when the Sentinel knows a replica that could be made the primary. */
export async function replicaSeen(sentinel: Node): Promise<void> {
  await until(async () => {
    const replicas = (await sentinel.ask("SENTINEL", "REPLICAS", "souk")) as string[][];
    const fields = replicas.map((flat) => Object.fromEntries(flat.map((name, i) => [name, flat[i + 1]])));
    return fields.some((field) => field.flags === "slave" && field["master-link-status"] === "ok");
  });
}

/** The port of the server that the Sentinel calls the primary. */
export async function primaryPort(sentinel: Node): Promise<number> {
  const [, port] = (await sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "souk")) as string[];
  return Number(port);
}

const SLOTS = 16_384;
const MAX_PORTS_TRIED = 10;

/** A Cluster of three primaries, each with a third of the slots. With a certificate its nodes go by the name "localhost". */
export async function startCluster(tls?: TestCertificate): Promise<{ url: string; nodes: Node[]; stop(): Promise<void> }> {
  const named = ["tls-cluster yes", "cluster-announce-hostname localhost", "cluster-preferred-endpoint-type hostname"];
  const settings = ["cluster-enabled yes", "cluster-node-timeout 2000", ...(tls === undefined ? [] : named)];
  const nodes = await Promise.all([0, 1, 2].map(() => startClusterNode({ settings, tls })));
  for (const [index, node] of nodes.entries()) {
    const [from, to] = [index, index + 1].map((each) => Math.floor((each * SLOTS) / nodes.length)) as [number, number];
    await node.ask("CLUSTER", "SET-CONFIG-EPOCH", index + 1);
    await node.ask("CLUSTER", "ADDSLOTS", ...Array.from({ length: to - from }, (_, slot) => from + slot));
  }
  for (const node of nodes.slice(1)) await nodes[0]?.ask("CLUSTER", "MEET", "127.0.0.1", node.server.port);
  for (const node of nodes) await clusterWhole(node);
  const host = tls === undefined ? "127.0.0.1" : "localhost";
  return {
    url: `${tls === undefined ? "redis" : "rediss"}+cluster://:${PASSWORD}@${nodes.map(({ server }) => `${host}:${server.port}`).join(",")}`,
    nodes,
    async stop() {
      await Promise.all(nodes.map((node) => node.stop()));
    },
  };
}

/** Resolves when this node knows who has which slot. */
export async function clusterWhole(node: Node): Promise<void> {
  await until(async () => {
    const slots = (await node.ask("CLUSTER", "SLOTS")) as unknown[];
    return slots.length === 3 && String(await node.ask("CLUSTER", "INFO")).includes("cluster_state:ok");
  });
}

/** A node listens 10,000 ports higher, too, for the other nodes: both have to be free. */
async function startClusterNode(options: NodeOptions): Promise<Node> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await startNode({ ...options, port: randomInt(10_000, 55_000) });
    } catch (error) {
      if (attempt === MAX_PORTS_TRIED || !String(error).includes("Failed listening on port")) throw error;
    }
  }
}

/** Waits for a condition; the test's own time is the bound. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await sleep(20);
}
