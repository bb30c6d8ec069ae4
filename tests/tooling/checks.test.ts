import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { judge, type Report, sumOf } from "../../tools/checks/mocha.ts";
import { root } from "../../tools/checks/run.ts";
import { reasonToKeep } from "../../tools/reset.ts";

function npmTest(args: readonly string[], env: Record<string, string> = {}) {
  const options = { cwd: root, env: { ...process.env, ...env }, encoding: "utf8" } as const;
  const { status, stdout, stderr } = spawnSync(process.execPath, [...process.execArgv, "tools/test.ts", ...args], options);
  return { status, lastLine: stdout.trimEnd().split("\n").at(-1), stdout, stderr };
}

describe("npm test", () => {
  it("ends with the counts and code 0 when all passes", () => {
    const { status, lastLine } = npmTest(["--only", "buf-format"]);
    assert.deepEqual({ status, lastLine }, { status: 0, lastLine: "1 passed, 0 failed" });
  });

  it("runs the other checks when one fails, shows why, and ends with the counts and code 1", () => {
    const { status, lastLine, stdout } = npmTest(["--only", "buf-breaking", "--only", "buf-format"], {
      SOUK_LANDED_REF: "no-such-commit",
    });
    assert.deepEqual({ status, lastLine }, { status: 1, lastLine: "1 passed, 1 failed" });
    assert.match(stdout, /no-such-commit/);
  });

  it("refuses a check that does not exist", () => {
    const { status, stderr } = npmTest(["--only", "everything"]);
    assert.equal(status, 2);
    assert.match(stderr, /everything/);
  });
});

describe("a run of mocha", () => {
  const report = (stats: Partial<Report["stats"]>, tests: Report["tests"] = []): Report => ({
    stats: { tests: 1, passes: 1, pending: 0, failures: 0, ...stats },
    failures: [],
    tests,
  });

  it("is fine when its tests passed and it ended by itself", () => {
    assert.deepEqual(judge(0, "noise", report({})), { passed: 1, failed: 0, problems: [], failures: [] });
  });

  it("is a failure when it ran no test, in whichever of its processes", () => {
    const none = { passed: 0, failed: 0, problems: [], failures: [] };
    assert.notDeepEqual(sumOf([none, none]).problems, []);
    assert.deepEqual(sumOf([none, { ...none, passed: 1 }]).problems, []);
  });

  for (const [problem, code, written] of [
    ["wrote no report", 0, undefined],
    ["did not end by itself", undefined, report({})],
    ["ended badly though its tests passed", 7, report({})],
    ["passed a test only when tried again", 0, report({}, [{ fullTitle: "a", currentRetry: 1 }])],
  ] as const) {
    it(`is a failure when it ${problem}`, () => assert.notDeepEqual(judge(code, "", written).problems, []));
  }
});

describe("npm run reset", () => {
  let folder = "";

  beforeEach(() => {
    folder = mkdtempSync(path.join(tmpdir(), "souk-reset-"));
  });

  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  it("removes a marketplace's data, also when its process has died", () => {
    writeFileSync(path.join(folder, "souk.pid"), "999999999\n");
    assert.equal(reasonToKeep(folder), undefined);
  });

  it("keeps the data of a marketplace that runs", () => {
    writeFileSync(path.join(folder, "souk.pid"), `${process.pid}\n`);
    assert.match(reasonToKeep(folder) ?? "", new RegExp(`process ${process.pid}`));
  });

  it("keeps a folder that holds the repository, somebody's home, or something else", () => {
    mkdirSync(path.join(folder, "photos"));
    for (const kept of [root, path.dirname(root), "/", folder]) assert.ok(reasonToKeep(kept), kept);
    const home = process.env.HOME;
    process.env.HOME = folder;
    writeFileSync(path.join(folder, "souk.pid"), "999999999\n");
    const reason = reasonToKeep(folder);
    process.env.HOME = home;
    assert.ok(reason, "would have removed a home");
  });
});
