// `npm test`: every check of the repository. The last line is `N passed, N failed`: each check counts one, each test one.

import { availableParallelism } from "node:os";
import { parseArgs } from "node:util";
import { type Check, type Choice, checks, type Outcome } from "./checks/list.ts";
import { stopStores } from "./checks/stores.ts";
import { runCommand, Usage } from "./checks/usage.ts";

const CHECKS_AT_ONCE = 2;

interface Result {
  check: Check;
  outcome: Outcome;
  seconds: number;
}

function help(): string {
  const list = checks.map(({ name, about }) => `  ${name.padEnd(14)}${about}`).join("\n");
  return `npm test -- [options]

  --only NAME   run only this check (repeat it for more)
  --grep TEXT   run only tests whose name matches
  --jobs N      processes that share the tests' files (default: the processors, at most 4)
  --help        this

Checks:
${list}

All run even if one fails. The last line is "N passed, N failed", and the exit code 1 when anything failed.
One test file: npm run mocha -- tests/<context>/<topic>.test.ts`;
}

function choose(args: string[]): { chosen: readonly Check[]; choice: Choice } | undefined {
  const jobsByDefault = String(Math.min(4, availableParallelism()));
  const { values } = parseArgs({
    args,
    options: {
      only: { type: "string", multiple: true },
      grep: { type: "string" },
      jobs: { type: "string", default: jobsByDefault },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) return undefined;
  for (const name of values.only ?? []) {
    if (!checks.some((check) => check.name === name))
      throw new Usage(`no check is called ${name}; there are ${checks.map((c) => c.name).join(", ")}`);
  }
  const jobs = Number(values.jobs);
  if (!Number.isInteger(jobs) || jobs < 1) throw new Usage(`--jobs is a whole number from 1, not ${values.jobs}`);
  const chosen = checks.filter(({ name }) => !values.only || values.only.includes(name));
  return { chosen, choice: { grep: values.grep, jobs } };
}

async function runOne(check: Check, choice: Choice): Promise<Result> {
  const begin = performance.now();
  const outcome = await check
    .run(choice)
    .catch((error: unknown) => ({ ok: false, output: String(error instanceof Error ? error.stack : error) }));
  return { check, outcome, seconds: (performance.now() - begin) / 1000 };
}

function report({ check, outcome, seconds }: Result): void {
  const ok = outcome.ok && !outcome.failed;
  const note = ok && outcome.note ? `  ${outcome.note}` : "";
  console.log(`${ok ? "ok  " : "FAIL"}  ${check.name.padEnd(14)}${seconds.toFixed(1).padStart(6)} s${note}`);
  if (!ok) console.log(`\n${outcome.output.trim()}\n`);
}

/** Runs the quick checks two at a time, then the tests alone, and reports each as soon as those before it are reported. */
async function runAll(chosen: readonly Check[], choice: Choice): Promise<Result[]> {
  const quick = chosen.filter(({ name }) => !name.startsWith("mocha"));
  const started: Promise<Result>[] = [];
  const lanes: Promise<unknown>[] = Array.from({ length: CHECKS_AT_ONCE }, () => Promise.resolve());
  for (const [index, check] of quick.entries()) {
    const lane = index % CHECKS_AT_ONCE;
    const result = (lanes[lane] ?? Promise.resolve()).then(() => runOne(check, choice));
    lanes[lane] = result;
    started.push(result);
  }
  const results: Result[] = [];
  for (const result of started) {
    results.push(await result);
    report(await result);
  }
  for (const check of chosen.filter(({ name }) => name.startsWith("mocha"))) {
    const result = await runOne(check, choice);
    results.push(result);
    report(result);
  }
  return results;
}

async function main(): Promise<void> {
  const selection = choose(process.argv.slice(2));
  if (!selection) {
    console.log(help());
    return;
  }
  const results = await runAll(selection.chosen, selection.choice).finally(stopStores);
  let passed = 0;
  let failed = 0;
  for (const { outcome } of results) {
    passed += (outcome.passed ?? 0) + (outcome.ok ? 1 : 0);
    failed += (outcome.failed ?? 0) + (outcome.ok ? 0 : 1);
  }
  console.log(`${passed} passed, ${failed} failed`);
  process.exitCode = failed > 0 ? 1 : 0;
}

await runCommand("npm test", main);
