import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

/** The root of the repository, without a slash at its end. */
export const root = fileURLToPath(new URL("../..", import.meta.url)).replace(/\/$/, "");

/** What a command did: its exit code (undefined when a signal or the time limit ended it) and all it printed, both streams in order. */
export interface Finished {
  code: number | undefined;
  output: string;
}

const MAX_OUTPUT_CHARS = 4_000_000;
const running = new Set<ChildProcess>();

/** Ends every command that still runs, for a check that is interrupted. */
export function stopAll(): void {
  for (const child of running) child.kill("SIGTERM");
}

/** How a program is run. `signal` ends it at once; its environment is this process's unless given. */
export interface RunOptions {
  signal?: AbortSignal;
  env?: NodeJS.ProcessEnv;
}

/**
 * Runs a program in the root and collects what it prints. Never throws: a program that is not there is an output and no code.
 */
export function run(program: string, args: readonly string[], options: RunOptions = {}): Promise<Finished> {
  return new Promise((resolve) => {
    const child = spawn(program, args, { ...options, cwd: root, stdio: ["ignore", "pipe", "pipe"], killSignal: "SIGKILL" });
    running.add(child);
    let output = "";
    const collect = (chunk: string) => {
      if (output.length < MAX_OUTPUT_CHARS) output += chunk;
    };
    child.stdout.setEncoding("utf8").on("data", collect);
    child.stderr.setEncoding("utf8").on("data", collect);
    const finish = (code: number | undefined) => {
      running.delete(child);
      resolve({ code, output });
    };
    child.on("error", (error) => {
      if (error.name !== "AbortError") output += `${error.message}\n`;
      finish(undefined);
    });
    child.on("close", (code) => finish(code ?? undefined));
  });
}

/** Runs a JavaScript or TypeScript program of the repository under this very Node, with this process's flags. */
export function runNode(script: string, args: readonly string[], options: RunOptions = {}): Promise<Finished> {
  return run(process.execPath, [...process.execArgv, script, ...args], options);
}
