// What a unary call costs a server, each in a process of its own.

import { fork } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { median } from "./figures.ts";
import { GoProcess } from "./rpc-go.ts";
import { LoadConnection, type Shot } from "./rpc-load.ts";
import { type Answer, METHOD_PATH, type Question, requestBytes, requestJson, type SubjectName } from "./rpc-subject.ts";

const CALLS = 3000;
const COLD_CALLS = 600;
const MAX_ATTEMPTS = 5;

/** A server in a process of its own. */
class BenchProcess {
  readonly #child;
  readonly #ended = new AbortController();
  port = 0;
  token = "";
  constructor(name: SubjectName, keysDir: string) {
    this.#child = fork(new URL("rpc-server.ts", import.meta.url), [name, keysDir], {
      stdio: ["ignore", "inherit", "ignore", "ipc"],
    });
  }
  async start(): Promise<void> {
    const { port, token } = (await this.#answer()) as Extract<Answer, { port: number }>;
    Object.assign(this, { port, token });
  }
  async ask<A extends Answer>(question: Question): Promise<A> {
    const answer = this.#answer();
    this.#child.send(question);
    return (await answer) as A;
  }
  async cpuUs(): Promise<number> {
    return (await this.ask<{ cpuUs: number }>("cpu")).cpuUs;
  }
  async #answer(): Promise<Answer> {
    const [answer] = await once(this.#child, "message", { signal: this.#ended.signal });
    return answer as Answer;
  }
  stop(): void {
    this.#child.send("stop" satisfies Question);
  }
}

interface Sample {
  readonly cpuUs: number;
  readonly wallUs: number;
}

/** One thing that is measured, round by round, beside all others. */
interface Measured {
  readonly group: string;
  readonly name: string;
  measure(): Promise<Sample>;
}

type Kind = "gRPC" | "Connect proto" | "Connect JSON";

function shotOf(kind: Kind, token: string): Shot {
  const common = { ":method": "POST", ":scheme": "http", ":path": METHOD_PATH, ":authority": "127.0.0.1" };
  const own: Record<Kind, Record<string, string>> = {
    gRPC: { "content-type": "application/grpc", te: "trailers", "grpc-timeout": "1900m", "user-agent": "grpc-bench/1" },
    "Connect proto": { "content-type": "application/proto", "connect-protocol-version": "1", "connect-timeout-ms": "1900" },
    "Connect JSON": { "content-type": "application/json", "connect-protocol-version": "1", "connect-timeout-ms": "1900" },
  };
  const head = Buffer.alloc(5);
  head.writeUInt32BE(requestBytes.length, 1);
  const body = {
    gRPC: Buffer.concat([head, requestBytes]),
    "Connect proto": Buffer.from(requestBytes),
    "Connect JSON": Buffer.from(requestJson),
  };
  return { headers: { ...common, ...own[kind], authorization: `Bearer ${token}` }, body: body[kind] };
}

/** A server under the load of so many connections with so many calls at once each. */
async function loaded(
  server: BenchProcess | GoProcess,
  shot: Shot,
  shape: { connections: number; atOnce: number; calls: number },
): Promise<() => Promise<Sample>> {
  const { connections, atOnce, calls } = shape;
  const each = Math.ceil(calls / connections);
  const lines = await Promise.all(Array.from({ length: connections }, () => LoadConnection.open(server.port, shot)));
  return async () => {
    // On a machine that is busy with something else a call can meet its deadline; that round is run again.
    for (let attempt = 1; attempt <= MAX_ATTEMPTS; attempt++) {
      const before = await server.cpuUs();
      const startTime = performance.now();
      await Promise.all(lines.map((line) => line.run(each, atOnce)));
      const wallUs = ((performance.now() - startTime) * 1000) / (each * connections);
      const cpuUs = ((await server.cpuUs()) - before) / (each * connections);
      if (lines.map((line) => line.allAnswered(each)).every(Boolean)) return { cpuUs, wallUs };
    }
    throw new Error("A server refuses what it is sent.");
  };
}

const ONE = { connections: 1, atOnce: 64, calls: CALLS };
const MANY = { connections: 64, atOnce: 1, calls: CALLS };
const SHAPES = [
  ["1 connection × 64 streams", ONE],
  ["64 connections", MANY],
] as const;

/** @param aside another process of ours, for what leaves it with a larger heap: thousands of tokens to remember */
async function plan(
  servers: ReadonlyMap<SubjectName, BenchProcess>,
  aside: BenchProcess,
  go: GoProcess | undefined,
): Promise<Measured[]> {
  const at = (name: SubjectName) => servers.get(name) as BenchProcess;
  const measured: Measured[] = [];
  const add = async (group: string, name: SubjectName, kind: Kind, shape: typeof ONE) => {
    measured.push({ group, name, measure: await loaded(at(name), shotOf(kind, at(name).token), shape) });
  };
  const grpc: readonly SubjectName[] = ["grpc-js", "floor", "connect-node", "ours bare", "ours", "ours telemetry"];
  for (const [place, shape] of SHAPES) {
    const group = `gRPC, ${place}`;
    for (const name of grpc) await add(group, name, "gRPC", shape);
    const shot = shotOf("gRPC", at("grpc-js").token);
    if (go !== undefined) measured.push({ group, name: "grpc-go", measure: await loaded(go, shot, shape) });
  }
  for (const kind of ["Connect proto", "Connect JSON"] as const) {
    for (const [place, shape] of SHAPES) {
      for (const name of ["connect-node", "ours", "ours telemetry"] as const) await add(`${kind}, ${place}`, name, kind, shape);
    }
  }
  const cold = await aside.ask<{ tokens: string[] }>({ tokens: COLD_CALLS });
  let next = 0;
  const { authorization: _, ...headers } = shotOf("gRPC", "").headers;
  const fresh = { name: "authorization", next: () => `Bearer ${cold.tokens[next++ % COLD_CALLS]}` };
  const shot = { ...shotOf("gRPC", ""), headers, fresh };
  await add("gRPC, by token", "ours", "gRPC", { ...ONE, calls: COLD_CALLS });
  const coldly = await loaded(aside, shot, { ...ONE, calls: COLD_CALLS });
  measured.push({
    group: "gRPC, by token",
    name: "ours, token not seen before",
    async measure() {
      const { tokens } = await at("floor").ask<{ tokens: string[] }>({ tokens: COLD_CALLS });
      cold.tokens = tokens;
      return coldly();
    },
  });
  measured.push(...inner(at("floor"), aside));
  return measured;
}

/** Calls between services: the caller's process and, over the network, the callee's. */
function inner(caller: BenchProcess, callee: BenchProcess): Measured[] {
  const group = "between services, caller and callee together";
  const sample = async (port?: number): Promise<Sample> => {
    const processes = port === undefined ? [caller] : [caller, callee];
    const sum = async () => (await Promise.all(processes.map((each) => each.cpuUs()))).reduce((a, b) => a + b, 0);
    const before = await sum();
    const startTime = performance.now();
    await caller.ask({ memoryCalls: CALLS, ...(port === undefined ? {} : { port }) });
    const wallUs = ((performance.now() - startTime) * 1000) / CALLS;
    return { cpuUs: ((await sum()) - before) / CALLS, wallUs };
  };
  return [
    { group, name: "network", measure: () => sample(callee.port) },
    { group, name: "in memory", measure: () => sample() },
  ];
}

/**
 * Measures the processor time of a unary call in the server's process. All subjects take turns in each round; figures are medians of the rounds, ratios
 * those to the first of the group in the same round.
 */
export async function rpc({ rounds }: { rounds: number }): Promise<void> {
  const names: readonly SubjectName[] = ["floor", "grpc-js", "connect-node", "ours", "ours bare", "ours telemetry"];
  const servers = new Map<SubjectName, BenchProcess>();
  const go = await GoProcess.open();
  const keysDir = mkdtempSync(join(tmpdir(), "souk-bench-"));
  const aside = new BenchProcess("ours", keysDir);
  try {
    await aside.start();
    for (const name of names) {
      const server = new BenchProcess(name, keysDir);
      servers.set(name, server);
      await server.start();
    }
    const measured = await plan(servers, aside, go);
    for (let warming = 0; warming < 3; warming++) for (const each of measured) await each.measure();
    const samples = new Map<Measured, Sample[]>(measured.map((each) => [each, []]));
    for (let round = 0; round < rounds; round++) {
      const turn = [...measured.slice(round % measured.length), ...measured.slice(0, round % measured.length)];
      for (const each of turn) samples.get(each)?.push(await each.measure());
    }
    report(samples, rounds);
  } finally {
    for (const server of [...servers.values(), aside]) server.stop();
    go?.stop();
    rmSync(keysDir, { recursive: true, force: true });
  }
}

function report(samples: ReadonlyMap<Measured, Sample[]>, rounds: number): void {
  const [cpu] = cpus();
  console.log(`Node ${process.version}, ${cpus().length} × ${cpu?.model}, median of ${rounds} interleaved rounds`);
  let group = "";
  let first: Sample[] = [];
  for (const [measured, each] of samples) {
    if (measured.group !== group) {
      group = measured.group;
      first = each;
      console.log(`\n${group.padEnd(46)}${"CPU".padStart(10)}${"ratio".padStart(10)}${"wall".padStart(10)}`);
    }
    const ratio = median(each.map((sample, round) => sample.cpuUs / (first[round]?.cpuUs ?? 1)));
    const cells = [
      `${median(each.map((s) => s.cpuUs)).toFixed(1)} µs`,
      `${ratio.toFixed(2)} ×`,
      `${median(each.map((s) => s.wallUs)).toFixed(1)} µs`,
    ];
    console.log(`  ${measured.name.padEnd(44)}${cells.map((cell) => cell.padStart(10)).join("")}`);
  }
}
