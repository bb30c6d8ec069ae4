import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { ROOT } from "../support/process.ts";

/** Runs `npm run prove` with these arguments. */
function prove(...args: string[]) {
  const options = { cwd: ROOT, encoding: "utf8" } as const;
  return spawnSync(process.execPath, [...process.execArgv, "tools/prove.ts", ...args], options);
}

describe("npm run prove", () => {
  it("says what it can do", () => {
    const { status, stdout } = prove("--help");
    assert.equal(status, 0);
    assert.match(stdout, /--rounds N/);
  });

  it("refuses what it cannot prove, in a sentence", () => {
    const unknown = prove("no-such-proof");
    assert.equal(unknown.status, 2);
    assert.match(unknown.stderr, /no proof is called so; there are tests\/\S+\.proof\.test\.ts/);
    assert.equal(prove("--rounds", "0").status, 2);
    assert.equal(prove("--minutes", "soon").status, 2);
    assert.equal(prove("--loudly").status, 2);
  });
});
