import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import {
  ensureDependencies,
  exclusively,
  FETCHED_VERSION,
  isInstalled,
  NODE_PACKAGES,
  planForNode,
  Refusal,
  unpack,
} from "../../tools/bootstrap.mjs";

const bootstrap = new URL("../../tools/bootstrap.mjs", import.meta.url).href;
const linux = { version: "20.20.2", platform: "linux", arch: "x64", musl: false };

describe("the bootstrap", () => {
  let folder = "";

  beforeEach(() => {
    folder = mkdtempSync(path.join(tmpdir(), "souk-bootstrap-"));
  });

  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  describe("choosing a Node", () => {
    it("uses the running one from 24 on, wherever it runs", () => {
      assert.equal(planForNode({ ...linux, version: "24.0.0" }), "use");
      assert.equal(planForNode({ version: "26.1.0", platform: "freebsd", arch: "riscv64", musl: true }), "use");
    });

    it("fetches one for Node 20 to 23 on each platform that has a package", () => {
      for (const key of NODE_PACKAGES.keys()) {
        const [platform = "", arch = ""] = key.split("-");
        for (const version of ["20.0.0", "23.9.0"]) assert.equal(planForNode({ version, platform, arch, musl: false }), "fetch");
      }
    });

    it("says which versions it needs and has, where it can do nothing", () => {
      for (const machine of [
        { ...linux, version: "18.20.4" },
        { ...linux, musl: true },
        { ...linux, arch: "s390x" },
      ]) {
        const sentence = planForNode(machine);
        assert.match(sentence, /needs Node 24 or newer/);
        assert.ok(sentence.includes(machine.version) && sentence.includes("install"));
      }
    });

    it("refuses an archive that is not the expected one, and unpacks nothing", () => {
      mkdirSync(path.join(folder, "package", "bin"), { recursive: true });
      writeFileSync(path.join(folder, "package", "bin", "node"), `#!/bin/sh\necho v${FETCHED_VERSION}\n`, { mode: 0o755 });
      assert.equal(spawnSync("tar", ["-czf", "node.tgz", "package"], { cwd: folder }).status, 0);
      rmSync(path.join(folder, "package"), { recursive: true });
      assert.throws(() => unpack(folder, NODE_PACKAGES.get("linux-x64")?.integrity ?? ""), Refusal);
      assert.ok(!existsSync(path.join(folder, "package")));
    });
  });

  describe("the dependencies", () => {
    const lockOf = (version: string, name = "a") => JSON.stringify({ packages: { "": {}, [`node_modules/${name}`]: { version } } });
    const installer = (version: string) => {
      const install = () => {
        install.calls += 1;
        mkdirSync(path.join(folder, "node_modules"), { recursive: true });
        writeFileSync(path.join(folder, "node_modules", ".package-lock.json"), lockOf(version));
      };
      install.calls = 0;
      return install;
    };
    const ensure = (install: () => void) => ensureDependencies({ root: folder, cache: path.join(folder, "cache"), install });

    it("are installed once for each package-lock.json", () => {
      const install = installer("1.0.0");
      writeFileSync(path.join(folder, "package-lock.json"), lockOf("1.0.0"));
      ensure(install);
      ensure(install);
      assert.equal(install.calls, 1);

      const next = installer("2.0.0");
      writeFileSync(path.join(folder, "package-lock.json"), lockOf("2.0.0"));
      ensure(next);
      ensure(next);
      assert.equal(next.calls, 1);
    });

    it("need nothing but a look at the stamp once they are right", () => {
      writeFileSync(path.join(folder, "package-lock.json"), lockOf("1.0.0"));
      ensure(installer("1.0.0"));
      rmSync(path.join(folder, "cache"), { recursive: true });
      ensure(installer("1.0.0"));
      assert.ok(!existsSync(path.join(folder, "cache")), "took the lock to look further");
    });

    it("are not installed again after npm did it by hand", () => {
      const install = installer("1.0.0");
      install();
      writeFileSync(path.join(folder, "package-lock.json"), lockOf("1.0.0"));
      ensure(install);
      assert.equal(install.calls, 1);
    });

    it("are installed again after a run that did not finish", () => {
      writeFileSync(path.join(folder, "package-lock.json"), lockOf("1.0.0"));
      assert.throws(() =>
        ensure(() => {
          throw new Refusal("no network");
        }),
      );
      const install = installer("1.0.0");
      ensure(install);
      assert.equal(install.calls, 1);
    });

    it("may lack an optional package of another platform, and only that", () => {
      const machine = { platform: "linux", arch: "x64", libc: "glibc" };
      const optional = (entry: object) =>
        JSON.stringify({ packages: { "node_modules/b": { version: "1.0.0", optional: true, ...entry } } });
      const empty = JSON.stringify({ packages: {} });
      assert.ok(isInstalled(optional({ os: ["darwin"] }), empty, machine));
      assert.ok(isInstalled(optional({ os: ["!linux"] }), empty, machine));
      assert.ok(isInstalled(optional({ os: ["linux"], libc: ["musl"] }), empty, machine));
      assert.ok(!isInstalled(optional({ os: ["linux"], cpu: ["x64"] }), empty, machine));
      assert.ok(!isInstalled(lockOf("1.0.0"), empty, machine));
      assert.ok(!isInstalled(lockOf("1.0.0"), lockOf("1.0.1"), machine));
      assert.ok(!isInstalled(empty, lockOf("1.0.0"), machine));
    });
  });

  it("takes over the lock of a process that has died, and gives its own back", () => {
    const lock = path.join(folder, "x.lock");
    writeFileSync(lock, "999999999");
    assert.equal(
      exclusively(lock, () => readFileSync(lock, "utf8")),
      String(process.pid),
    );
    assert.ok(!existsSync(lock));
  });

  describe("a script run as a child", () => {
    // Starts a process that runs the script as its child, the way an older Node has to.
    const start = (script: string) => {
      const parent = `import(${JSON.stringify(bootstrap)}).then((b) => b.runAsChild(process.execPath, ["-e", ${JSON.stringify(script)}], process.env))`;
      return spawn(process.execPath, ["-e", parent], { stdio: ["ignore", "pipe", "inherit"] });
    };

    it("gets the signal sent to the parent, and its exit code becomes the parent's", async () => {
      const parent = start(
        `process.on("SIGTERM", () => process.exit(7)); setTimeout(() => process.exit(9), 5000); console.log("ready")`,
      );
      await once(parent.stdout, "data");
      parent.kill("SIGTERM");
      assert.deepEqual(await once(parent, "exit"), [7, null]);
    });

    it("that dies by a signal makes the parent die by the same", async () => {
      const parent = start(`process.kill(process.pid, "SIGKILL")`);
      assert.deepEqual(await once(parent, "exit"), [null, "SIGKILL"]);
    });
  });
});
