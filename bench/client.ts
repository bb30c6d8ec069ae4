// What a unary call costs its caller.

import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { cpus } from "node:os";
import type { CallsMade, CallsWanted } from "./calling-process.ts";
import { median } from "./figures.ts";

/** The clients that are compared, and the one that each is compared with. */
const SUBJECTS: readonly (readonly [name: string, peer: string])[] = [
  ["grpc-js", "grpc-js"],
  ["client", "grpc-js"],
  ["grpc-js, deadline and headers", "grpc-js, deadline and headers"],
  ["client, policy, deadline and headers", "grpc-js, deadline and headers"],
  ["connect-node gRPC", "grpc-js"],
  ["connect-node Connect", "grpc-js"],
];
const SHAPES = [
  { name: "64 calls at once over one connection", clients: 1 },
  { name: "64 calls at once over 64 connections", clients: 64 },
];
const CONCURRENCY = 64;
const CALLS = 3_000;
const WARM_UP_CALLS = 6_000;

/**
 * Measures the processor time that one call costs the process that makes it, for a small request and a small answer, with a bare HTTP/2 server in another
 * process. Each client is in a process of its own; they take turns, round by round. Each figure is the median of the rounds, the ratio is to the peer
 * of the same round.
 */
export async function client({ rounds }: { rounds: number }): Promise<void> {
  const children: ChildProcess[] = [];
  const start = async (file: string, ...args: string[]) => {
    const child = fork(new URL(file, import.meta.url), args, { stdio: "inherit" });
    children.push(child);
    const [said] = await once(child, "message");
    return { child, said: String(said) };
  };
  try {
    const { said: url } = await start("answering-server.ts");
    const callers = new Map<string, ChildProcess>();
    for (const [name] of SUBJECTS) callers.set(name, (await start("calling-process.ts", name, url)).child);
    const make = async (name: string, wanted: CallsWanted) => {
      const caller = callers.get(name) as ChildProcess;
      const made = once(caller, "message");
      caller.send(wanted);
      return (await made)[0] as CallsMade;
    };
    console.log(`Node ${process.version}, ${cpus().length} × ${cpus()[0]?.model}, median of ${rounds} interleaved rounds`);
    for (const { name: shape, clients } of SHAPES) {
      const samples = new Map<string, CallsMade[]>(SUBJECTS.map(([name]) => [name, []]));
      for (const [name] of SUBJECTS) await make(name, { calls: WARM_UP_CALLS, clients, concurrency: CONCURRENCY });
      for (let round = 0; round < rounds; round++) {
        for (const [name] of SUBJECTS) {
          samples.get(name)?.push(await make(name, { calls: CALLS, clients, concurrency: CONCURRENCY }));
        }
      }
      report(shape, samples);
    }
  } finally {
    for (const child of children) child.disconnect();
  }
}

function report(shape: string, samples: ReadonlyMap<string, readonly CallsMade[]>): void {
  console.log(`\n${shape.padEnd(42)}${"caller CPU".padStart(12)}${"of its peer".padStart(14)}${"wall".padStart(10)}`);
  for (const [name, peer] of SUBJECTS) {
    const own = samples.get(name) ?? [];
    const ratio = median(own.map((made, round) => made.cpuUs / (samples.get(peer)?.[round]?.cpuUs ?? 1)));
    const cells = [
      `${median(own.map((made) => made.cpuUs)).toFixed(0)} µs`.padStart(12),
      `${ratio.toFixed(2)} ×`.padStart(14),
      `${median(own.map((made) => made.wallUs)).toFixed(0)} µs`.padStart(10),
    ];
    console.log(`  ${name.padEnd(40)}${cells.join("")}`);
  }
}
