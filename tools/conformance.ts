// `npm run test:conformance`: the Connect conformance suite against Souk's server and client. The last line is `N passed, N failed`.

import { spawn, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { cacheFolder } from "./bootstrap.mjs";
import { root } from "./checks/run.ts";
import { runCommand, Usage } from "./checks/usage.ts";

const VERSION = "v1.0.5";
const RUNNER = "connectconformance";
const PARTS = ["server", "client"] as const;

const HELP = `npm run test:conformance -- [${PARTS.join(" | ")}] [--run PATTERN ...] [--trace]

Runs the Connect conformance suite (connectrpc.com/conformance ${VERSION}) against the programs in tests/conformance: the server against the suite's
clients, the client against its servers. tests/conformance/*.yaml say what is supported, *-known-flaky.txt which cases of that may fail, and why. The
suite's runner is built once, with Go.

  --run PATTERN   only the cases of this name; * is one part of a name, ** any number of them
  --trace         shows what a failed case sent and received
  --help          this

The last line is "N passed, N failed", and the exit code 1 when anything failed.`;

interface Count {
  passed: number;
  failed: number;
}

/** The runner, built on first use. Throws a sentence where there is no Go. */
async function findRunner(): Promise<string> {
  const folder = path.join(cacheFolder(), "conformance", VERSION);
  const runner = path.join(folder, RUNNER);
  if (existsSync(runner)) return runner;
  if (spawnSync("go", ["version"]).status !== 0)
    throw new Usage(
      "The suite's runner is built with Go, which is not on the PATH: install it from https://go.dev/dl (on Debian: apt install golang) and run this again.",
    );
  console.log(`building the suite's runner into ${folder} (once, a minute or two)`);
  await mkdir(folder, { recursive: true });
  const built = spawnSync("go", ["install", `connectrpc.com/conformance/cmd/${RUNNER}@${VERSION}`], {
    cwd: folder,
    env: { ...process.env, GOBIN: folder },
    stdio: "inherit",
  });
  if (built.status !== 0) throw new Usage("Go could not build the suite's runner; what it says is above.");
  return runner;
}

/** Runs the suite against one program and shows what the runner says. A case that could not be run has failed. */
function runPart(runner: string, part: string, options: readonly string[]): Promise<Count> {
  const args = ["--mode", part, "--conf", `tests/conformance/${part}.yaml`, "--verbose", "--max-servers", "2", ...options];
  const flaky = `tests/conformance/${part}-known-flaky.txt`;
  if (existsSync(path.join(root, flaky))) args.push("--known-flaky", `@${flaky}`);
  const program = [process.execPath, ...process.execArgv, `tests/conformance/${part}.ts`];
  return new Promise((resolve, reject) => {
    const child = spawn(runner, [...args, "--", ...program], { cwd: root, stdio: ["ignore", "pipe", "pipe"] });
    child.stderr.pipe(process.stderr);
    const count: Count = { passed: 0, failed: 0 };
    const lines = createInterface(child.stdout);
    lines.on("line", (line) => {
      console.log(line);
      const [, passed, failed] = /^(\d+) passed, (\d+) failed$/.exec(line) ?? [];
      count.passed += Number(passed ?? 0);
      count.failed += Number(failed ?? /^Another (\d+) could not be run/.exec(line)?.[1] ?? 0);
    });
    child.on("error", reject);
    child.on("close", (code) => {
      // Nothing ran, or the runner itself broke.
      if ((code !== 0 || count.passed === 0) && count.failed === 0) count.failed++;
      resolve(count);
    });
  });
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    options: {
      run: { type: "string", multiple: true, default: [] },
      trace: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
    allowPositionals: true,
  });
  if (values.help) {
    console.log(HELP);
    return;
  }
  const unknown = positionals.find((part) => !PARTS.some((known) => known === part));
  if (unknown !== undefined) throw new Usage(`there is no part ${unknown}; there are ${PARTS.join(", ")}`);
  const runner = await findRunner();
  const options = [...values.run.flatMap((pattern) => ["--run", pattern]), ...(values.trace ? ["--trace"] : [])];
  const total: Count = { passed: 0, failed: 0 };
  for (const part of PARTS.filter((known) => positionals.length === 0 || positionals.includes(known))) {
    const begin = performance.now();
    console.log(`== ${part}`);
    const { passed, failed } = await runPart(runner, part, options);
    total.passed += passed;
    total.failed += failed;
    console.log(`${part}: ${((performance.now() - begin) / 1000).toFixed(0)} s`);
  }
  console.log(`${total.passed} passed, ${total.failed} failed`);
  process.exitCode = total.failed > 0 ? 1 : 0;
}

await runCommand("npm run test:conformance", main);
