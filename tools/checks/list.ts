import { staleFiles } from "./generated.ts";
import { findLanded, withContractOf } from "./landed.ts";
import { runTests, TESTS_ON_TABLES, type TestRun } from "./mocha.ts";
import { type Finished, runNode } from "./run.ts";
import { findBrowser, startForTests, TEST_STORE_VARIABLE } from "./stores.ts";

/** What a check found. It counts as one; `passed` and `failed` count the tests inside it, where it has any. */
export interface Outcome {
  ok: boolean;
  /** Shown whole when the check failed. */
  output: string;
  /** A few words beside its name when it passed. */
  note?: string;
  passed?: number;
  failed?: number;
}

/** What the caller of `npm test` chose. */
export interface Choice {
  grep: string | undefined;
  jobs: number;
}

export interface Check {
  name: string;
  about: string;
  run(choice: Choice): Promise<Outcome>;
}

const buf = (...args: string[]) => runNode("node_modules/@bufbuild/buf/bin/buf", args);
const ofExit = ({ code, output }: Finished): Outcome => ({ ok: code === 0, output });

async function breaking(): Promise<Outcome> {
  const landed = await findLanded();
  if ("none" in landed) return { ok: landed.isFine, output: landed.none, note: landed.none };
  return withContractOf(landed.commit, async (folder) => {
    const outcome = ofExit(await buf("breaking", "proto", "--against", `${folder}/proto`));
    return { ...outcome, note: `compared with ${landed.commit.slice(0, 8)}` };
  });
}

async function generated(): Promise<Outcome> {
  const stale = await staleFiles();
  return { ok: stale.length === 0, output: [...stale, "make them with: npm run generate"].join("\n") };
}

const mocha = (choice: Choice) => tested(runTests(choice));

/** The same tests, on the other tables. */
async function mochaOnMariadb(choice: Choice): Promise<Outcome> {
  const started = await startForTests();
  const env = { ...process.env, [TEST_STORE_VARIABLE]: "mariadb" };
  return started.ok ? tested(runTests({ ...choice, files: TESTS_ON_TABLES, env })) : started;
}

async function tested(run: Promise<TestRun>): Promise<Outcome> {
  const { passed, failed, problems, failures } = await run;
  const output = [...failures, ...problems].join("\n\n");
  return { ok: problems.length === 0, output, note: `${passed} tests`, passed, failed };
}

/** The checks of `npm test`, in the order in which they are reported. The tests come last: they need the processors for themselves. */
export const checks: readonly Check[] = [
  {
    name: "lint",
    about: "formatter, linter and import boundaries (biome ci); npm run format repairs most",
    run: async () =>
      ofExit(
        await runNode("node_modules/@biomejs/biome/bin/biome", [
          "ci",
          "--error-on-warnings",
          "--colors=off",
          "--max-diagnostics=100",
          ".",
        ]),
      ),
  },
  {
    name: "types",
    about: "the compiler's types (tsc)",
    run: async () => ofExit(await runNode("node_modules/typescript/bin/tsc", ["-p", "."])),
  },
  {
    name: "stores",
    about: "a MariaDB and a Redis for the tests; fetched once where there are none",
    run: startForTests,
  },
  {
    name: "browser",
    about: "a Chromium for the test in a real browser; fetched once where there is none",
    run: findBrowser,
  },
  { name: "buf-lint", about: "the contract's style", run: async () => ofExit(await buf("lint")) },
  {
    name: "buf-format",
    about: "the contract's format; node_modules/.bin/buf format -w proto repairs it",
    run: async () => ofExit(await buf("format", "--diff", "--exit-code", "proto")),
  },
  {
    name: "buf-breaking",
    about: "nothing the last landed contract promised is gone (SOUK_LANDED_REF names another commit)",
    run: breaking,
  },
  { name: "generated", about: "gen/ is what the generators make of proto/", run: generated },
  { name: "mocha", about: "the tests", run: mocha },
  {
    name: "mocha-mariadb",
    about: "the tests that open a service's database, on MariaDB",
    run: mochaOnMariadb,
  },
];
