import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { ROOT } from "./process.ts";

/** A program of the repository in a process of its own, which is ready. */
export interface Program {
  readonly child: ChildProcess;
  readonly url: string;
}

/** No setting comes from whoever runs the tests. */
function spawned(args: readonly string[], env: NodeJS.ProcessEnv) {
  const inherited = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("SOUK_")));
  return spawn(process.execPath, ["--disable-warning=ExperimentalWarning", ...args], {
    cwd: ROOT,
    env: { ...inherited, SOUK_LOG_FORMAT: "json", ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
}

/** Starts a program; resolves when its log says where it is ready, and fails with what it wrote when it ends instead. */
export async function startProgram(args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Program> {
  const child = spawned(args, env);
  let output = "";
  const url = await new Promise<string>((resolve, reject) => {
    const take = (chunk: Buffer) => {
      output += chunk.toString();
      const found = /"url":"(http:[^"]+)"/.exec(output)?.[1];
      if (found !== undefined) resolve(found);
    };
    child.stdout.on("data", take);
    child.stderr.on("data", take);
    child.once("exit", (code) => reject(new Error(`${args[0]} ended with ${code}:\n${output}`)));
  });
  return { child, url };
}

/** Sends SIGTERM and gives the exit code, also of a program that has ended. */
export async function stopProgram({ child }: Program): Promise<number | null> {
  if (child.exitCode === null && child.signalCode === null && child.kill("SIGTERM")) await once(child, "exit");
  return child.exitCode;
}

/** Runs a program to its end: its exit code, and all it wrote. */
export async function runToEnd(args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<{ code: number; output: string }> {
  const child = spawned(args, env);
  let output = "";
  for (const stream of [child.stdout, child.stderr])
    stream.on("data", (chunk: Buffer) => {
      output += chunk.toString();
    });
  const [code] = await once(child, "close");
  return { code, output };
}
