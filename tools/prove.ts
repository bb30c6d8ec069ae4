// `npm run prove`: the long proofs, with as many rounds as the project promises. `npm test` runs the same files with few.

import { globSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { judge, type Report, type TestRun } from "./checks/mocha.ts";
import { root, runNode } from "./checks/run.ts";
import { startForTests, stopStores } from "./checks/stores.ts";
import { runCommand, Usage } from "./checks/usage.ts";

const PROOFS = "tests/**/*.proof.test.ts";
/** How often each proof is repeated, read by the proofs themselves. */
const ROUNDS_VARIABLE = "SOUK_PROOF_ROUNDS";
const ROUNDS = 100;
const ROUNDS_MAX = 10_000;
/** What one file may take. */
const FILE_MAX_MINUTES = 30;
const PROGRESS_MS = 60_000;

const HELP = `npm run prove -- [TEXT ...] [--rounds N] [--minutes N]

Runs the files ${PROOFS} one after the other on a private MariaDB and Redis; with TEXT those whose path has it.

  --rounds N    how often each proof is repeated (${ROUNDS})
  --minutes N   what one file may take at most (${FILE_MAX_MINUTES})
  --help        this

The last line is "N passed, N failed", and the exit code 1 when anything failed.`;

interface Choice {
  readonly files: readonly string[];
  readonly rounds: number;
  readonly minutes: number;
}

function choose(args: string[]): Choice | undefined {
  const { values, positionals } = parseArgs({
    args,
    options: {
      rounds: { type: "string", default: String(ROUNDS) },
      minutes: { type: "string", default: String(FILE_MAX_MINUTES) },
      help: { type: "boolean", default: false },
    },
    allowPositionals: true,
  });
  if (values.help) return undefined;
  const [rounds, minutes] = [Number(values.rounds), Number(values.minutes)];
  if (!Number.isInteger(rounds) || rounds < 1 || rounds > ROUNDS_MAX)
    throw new Usage(`--rounds is a whole number from 1 to ${ROUNDS_MAX}, not ${values.rounds}`);
  if (!Number.isInteger(minutes) || minutes < 1) throw new Usage(`--minutes is a whole number from 1, not ${values.minutes}`);
  const all = globSync(PROOFS, { cwd: root }).sort();
  const files = all.filter((file) => positionals.length === 0 || positionals.some((text) => file.includes(text)));
  if (files.length === 0) throw new Usage(`no proof is called so; there are ${all.join(", ")}`);
  return { files, rounds, minutes };
}

/** Runs one file, and says every minute that it is still under way. */
async function prove(file: string, { rounds, minutes }: Choice): Promise<TestRun> {
  const begin = performance.now();
  const seconds = () => ((performance.now() - begin) / 1000).toFixed(0);
  console.log(`      ${file}, ${rounds} rounds`);
  const progress = setInterval(() => console.log(`      ${file} is under way for ${seconds()} s`), PROGRESS_MS);
  const folder = await mkdtemp(path.join(tmpdir(), "souk-prove-"));
  const report = path.join(folder, "report.json");
  try {
    const args = ["--reporter", "json", "--reporter-option", `output=${report}`, "--forbid-only", "--forbid-pending", file];
    const { code, output } = await runNode("node_modules/mocha/bin/mocha.js", args, {
      signal: AbortSignal.timeout(minutes * 60_000),
      env: { ...process.env, [ROUNDS_VARIABLE]: String(rounds) },
    });
    const read: Report | undefined = await readFile(report, "utf8").then(JSON.parse, () => undefined);
    const run = judge(code, output, read);
    if (read !== undefined && run.passed + run.failed === 0) run.problems.push("no test ran");
    const ok = run.failed === 0 && run.problems.length === 0;
    console.log(`${ok ? "ok  " : "FAIL"}  ${file}  ${run.passed} tests, ${seconds()} s`);
    if (!ok) console.log(`\n${[...run.failures, ...run.problems].join("\n\n")}\n`);
    return run;
  } finally {
    clearInterval(progress);
    await rm(folder, { recursive: true, force: true });
  }
}

async function main(): Promise<void> {
  const choice = choose(process.argv.slice(2));
  if (choice === undefined) {
    console.log(HELP);
    return;
  }
  let passed = 0;
  let failed = 0;
  try {
    const stores = await startForTests();
    if (!stores.ok) {
      failed++;
      console.log(stores.output);
    }
    for (const file of stores.ok ? choice.files : []) {
      const run = await prove(file, choice);
      passed += run.passed;
      // A file that passed its tests and did not end, or never began, is a failure, too.
      failed += run.failed + (run.failed === 0 && run.problems.length > 0 ? 1 : 0);
    }
  } finally {
    await stopStores();
  }
  console.log(`${passed} passed, ${failed} failed`);
  process.exitCode = failed > 0 ? 1 : 0;
}

await runCommand("npm run prove", main);
