import { existsSync, globSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { root, runNode } from "./run.ts";

const ALL_TESTS = ["tests/**/*.test.ts"];
/** The tests that open a service's database, each with the same body on every store. */
export const TESTS_ON_TABLES = [
  "tests/{account,catalog,inventory,ops,order,payment}/*.test.ts",
  "tests/search/{catalog,service}.test.ts",
  "tests/runtime/{batch,database,events,jobs,pages,replay,watches}.test.ts",
  // Whole marketplaces, with a Redis each.
  "tests/policy/access.test.ts",
  "tests/purchase/{bad-*,burst,faults}.test.ts",
];
const MAX_RUN_MS = 30 * 60_000;
const MAX_END_MS = 10_000;

/** How the tests went: counts of tests, the run's own problems (nothing ran, it did not end, …), and the text of every failure. */
export interface TestRun {
  passed: number;
  failed: number;
  problems: string[];
  failures: string[];
}

/** The part of mocha's JSON report that is read here. */
export interface Report {
  stats: { tests: number; passes: number; pending: number; failures: number };
  failures: { fullTitle: string; file?: string; err: { message?: string; stack?: string; actual?: string; expected?: string } }[];
  tests: { fullTitle: string; currentRetry?: number }[];
}

/** Which tests are run, and how. */
export interface TestSelection {
  /** Only those whose name matches. */
  grep: string | undefined;
  /** Mocha processes that share the files. */
  jobs: number;
  /** Patterns of files; all tests unless given. */
  files?: readonly string[];
  /** The tests' environment; this process's unless given. */
  env?: NodeJS.ProcessEnv;
}

/** Runs tests in processes of our own, because mocha's parallel mode ends its workers by force and so never sees what a test left open. */
export async function runTests({ grep, jobs, files: patterns = ALL_TESTS, env }: TestSelection): Promise<TestRun> {
  const files = globSync([...patterns], { cwd: root }).sort();
  const shares = Array.from({ length: jobs }, (_, job) => files.filter((_file, index) => index % jobs === job));
  const runs = await Promise.all(shares.filter((share) => share.length > 0).map((share) => runShare(share, grep, env)));
  return sumOf(runs);
}

/** What the runs amount to together. That no test ran is a problem of all of them, not of each: `grep` may leave one without any. */
export function sumOf(runs: readonly TestRun[]): TestRun {
  const passed = runs.reduce((sum, run) => sum + run.passed, 0);
  const failed = runs.reduce((sum, run) => sum + run.failed, 0);
  const problems = runs.flatMap((run) => run.problems);
  if (passed + failed === 0 && problems.length === 0) problems.push("no test ran");
  return { passed, failed, problems, failures: runs.flatMap((run) => run.failures) };
}

async function runShare(files: readonly string[], grep: string | undefined, env = process.env): Promise<TestRun> {
  const folder = await mkdtemp(path.join(tmpdir(), "souk-mocha-"));
  const file = path.join(folder, "report.json");
  try {
    const args = ["--reporter", "json", "--reporter-option", `output=${file}`, "--forbid-only", "--forbid-pending"];
    if (grep !== undefined) args.push("--grep", grep);
    const { code, output } = await runBounded([...args, ...files], file, env);
    const report: Report | undefined = await readFile(file, "utf8").then(JSON.parse, () => undefined);
    return judge(code, output, report);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

// The tests are over when the report is there; a process that lives on holds something that a test forgot to close.
async function runBounded(args: readonly string[], report: string, env: NodeJS.ProcessEnv) {
  const stop = new AbortController();
  const timers = [setTimeout(() => stop.abort(), MAX_RUN_MS)];
  const watch = setInterval(() => {
    if (!existsSync(report)) return;
    clearInterval(watch);
    timers.push(setTimeout(() => stop.abort(), MAX_END_MS));
  }, 250);
  try {
    return await runNode("node_modules/mocha/bin/mocha.js", args, { signal: stop.signal, env });
  } finally {
    clearInterval(watch);
    for (const timer of timers) clearTimeout(timer);
  }
}

/** What a finished run amounts to, from mocha's exit code, what was printed, and its report (undefined when it wrote none). */
export function judge(code: number | undefined, output: string, report: Report | undefined): TestRun {
  const problems: string[] = [];
  if (!report) return { passed: 0, failed: 0, problems: [`mocha ended with code ${code} and no report`, output], failures: [] };
  const { passes, failures } = report.stats;
  for (const test of report.tests) if (test.currentRetry) problems.push(`passed only when tried again: ${test.fullTitle}`);
  if (code === undefined)
    problems.push("mocha did not end: a test left something open; npm run mocha -- <file> hangs for the file that did");
  else if (code !== 0 && failures === 0) problems.push(`mocha ended with code ${code}`);
  if (output.trim() !== "" && (problems.length > 0 || failures > 0)) problems.push("printed by the tests:", output.trim());
  return { passed: passes, failed: failures, problems, failures: report.failures.map(describeFailure) };
}

function describeFailure({ fullTitle, file, err }: Report["failures"][number]): string {
  const where = file ? path.relative(process.cwd(), file) : "";
  return `${fullTitle}  (${where})\n${err.stack ?? err.message ?? "no message"}`;
}
