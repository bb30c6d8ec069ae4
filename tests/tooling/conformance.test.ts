import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { temporaryFolder } from "../support/database.ts";
import { ROOT } from "../support/process.ts";

describe("npm run test:conformance", () => {
  const folder = temporaryFolder();
  after(() => folder.remove());
  const run = (...args: string[]) =>
    spawnSync(process.execPath, ["tools/conformance.ts", ...args], {
      cwd: ROOT,
      env: { PATH: folder.path, HOME: folder.path },
      encoding: "utf8",
    });

  it("says in a sentence what to install where its runner cannot be built", () => {
    const { status, stderr } = run();
    assert.equal(status, 2);
    assert.match(stderr, /^The suite's runner is built with Go, .*https:\/\/go\.dev\/dl/);
  });
  it("says which parts there are", () => {
    const { status, stderr } = run("mesh");
    assert.equal(status, 2);
    assert.match(stderr, /^there is no part mesh; there are server, client/);
  });
});
