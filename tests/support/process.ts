import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

/** The repository's folder. */
export const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** A marketplace in a process of its own, as `npm start` runs it. */
export interface StartedMarketplace {
  readonly url: string;
  readonly child: ChildProcess;
  /** All it has written so far, standard output and error together. */
  output(): string;
  /** Sends SIGTERM and gives the exit code. */
  stop(): Promise<number | null>;
  /** Sends SIGKILL, and resolves when the process is gone. */
  kill(): Promise<void>;
}

const START = "tools/start.ts";

/**
 * Starts `tools/start.ts`, or another program that says the same, with these arguments; resolves when it says where it listens. Fails with what it
 * wrote when it ends instead.
 */
export async function startMarketplace(
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
  program = START,
): Promise<StartedMarketplace> {
  const child = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", program, ...args], {
    cwd: ROOT,
    env: { ...process.env, SOUK_LOG_LEVEL: "warn", ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  const exited = once(child, "exit");
  const url = await new Promise<string>((resolve, reject) => {
    const take = (chunk: Buffer) => {
      output += chunk.toString();
      const found = /Souk listens on (\S+),/.exec(output)?.[1];
      if (found !== undefined && (program !== START || /A whole purchase/.test(output))) resolve(found);
    };
    child.stdout?.on("data", take);
    child.stderr?.on("data", take);
    child.once("exit", (code) => reject(new Error(`The marketplace ended with ${code}:\n${output}`)));
  });
  return {
    url,
    child,
    output: () => output,
    async stop() {
      if (child.exitCode === null) child.kill("SIGTERM");
      const [code] = child.exitCode === null ? await exited : [child.exitCode];
      return code;
    },
    async kill() {
      child.kill("SIGKILL");
      await exited;
    },
  };
}

/** Runs lines of shell and gives what they print; fails with all of it when they fail. */
export async function shell(script: string, env: NodeJS.ProcessEnv): Promise<string> {
  const child = spawn("bash", ["-euo", "pipefail", "-c", script], {
    cwd: ROOT,
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let out = "";
  let err = "";
  child.stdout.on("data", (chunk: Buffer) => {
    out += chunk;
  });
  child.stderr.on("data", (chunk: Buffer) => {
    err += chunk;
  });
  const [code] = await once(child, "close");
  if (code !== 0) throw new Error(`The lines ended with ${code}:\n${script}\n${out}\n${err}`);
  return out;
}
