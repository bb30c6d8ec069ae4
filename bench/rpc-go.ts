// The outside view of `npm run bench -- rpc`: grpc-go, where there is a Go to build it with.

import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { cacheFolder } from "../tools/bootstrap.mjs";

const SOURCE = path.join(import.meta.dirname, "grpc-go");

/** Builds the server into the cache; Go itself knows what is up to date. Says why there is none. */
function build(): string | undefined {
  if (spawnSync("go", ["version"]).status !== 0) {
    console.log("grpc-go is left out: Go is not on the PATH");
    return undefined;
  }
  const folder = path.join(cacheFolder(), "grpc-go");
  mkdirSync(folder, { recursive: true });
  const program = path.join(folder, "server");
  const { status } = spawnSync("go", ["build", "-o", program, "."], { cwd: SOURCE, stdio: ["ignore", "inherit", "inherit"] });
  if (status === 0) return program;
  console.log("grpc-go is left out: Go could not build it, what it says is above");
  return undefined;
}

/** The server of bench/grpc-go in a process of its own. */
export class GoProcess {
  readonly #child: ChildProcessWithoutNullStreams;
  readonly #lines;
  port = 0;
  private constructor(program: string) {
    this.#child = spawn(program);
    this.#child.stderr.pipe(process.stderr);
    this.#lines = createInterface(this.#child.stdout);
  }

  /** Undefined where it cannot be built; a line has said so. */
  static async open(): Promise<GoProcess | undefined> {
    const program = build();
    if (program === undefined) return undefined;
    const server = new GoProcess(program);
    server.port = await server.#answer();
    return server;
  }

  /** The processor time of its process so far. */
  cpuUs(): Promise<number> {
    const answer = this.#answer();
    this.#child.stdin.write("\n");
    return answer;
  }

  async #answer(): Promise<number> {
    const ended = new AbortController();
    const end = () => ended.abort(new Error("grpc-go ended."));
    this.#child.once("exit", end);
    try {
      const [line] = (await once(this.#lines, "line", { signal: ended.signal })) as [string];
      return Number(line);
    } finally {
      this.#child.off("exit", end);
    }
  }

  stop(): void {
    this.#child.stdin.end();
  }
}
