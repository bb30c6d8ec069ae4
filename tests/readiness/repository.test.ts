import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { SERVICES } from "../../services/marketplace.ts";
import { root } from "../../tools/checks/run.ts";

const read = (file: string) => readFileSync(join(root, file), "utf8");

/** The files that are kept here, by git; where there is no repository (an unpacked archive), those that would be. */
function kept(): string[] {
  const { status, stdout } = spawnSync("git", ["ls-files", "-z"], { cwd: root, encoding: "utf8", maxBuffer: 1 << 26 });
  const files =
    status === 0 ? stdout.split("\0") : globSync("{*,{docs,runtime,services,tools,tests,helm,mesh,proto}/**/*.*}", { cwd: root });
  return files.filter((file) => file !== "");
}

/** What begins a private key, or is a credential of a well-known place. The words are in pieces, or this file would be found. */
const CREDENTIALS = [
  new RegExp(`-----BEGIN (?:[A-Z]+ )*${"PRIVATE"} KEY-----\\s+[A-Za-z0-9+/=]{40}`),
  /\bAKIA[0-9A-Z]{16}\b/,
  /\bgh[pousr]_[A-Za-z0-9]{36}\b/,
  /\bsk_live_[A-Za-z0-9]{16}/,
  /\bxox[baprs]-[A-Za-z0-9-]{20}/,
];
const TEXT = /\.(?:ts|mjs|js|json|ya?ml|md|tpl|txt|sh|tf|proto|toml|pem|key|env)$|^[^.]*$|(?:^|\/)\.[^/]+$/;

describe("the repository", () => {
  it("holds no private key and no credential", () => {
    const files = kept().filter((file) => TEXT.test(file));
    assert.ok(files.length > 100);
    const found = files.filter((file) => {
      let text: string;
      try {
        text = read(file);
      } catch {
        return false; // A link to a folder, or a file that is being deleted.
      }
      return CREDENTIALS.some((pattern) => pattern.test(text));
    });
    assert.deepEqual(found, []);
  });

  it("depends on exact versions, each with the hash of what it was when it was tried", () => {
    const { dependencies, devDependencies } = JSON.parse(read("package.json"));
    const loose = Object.entries({ ...dependencies, ...devDependencies }).filter(
      ([, version]) => !/^\d+\.\d+\.\d+$/.test(String(version)),
    );
    assert.deepEqual(loose, []);
    const { packages } = JSON.parse(read("package-lock.json")) as {
      packages: Record<string, { integrity?: string; link?: boolean }>;
    };
    const unhashed = Object.entries(packages).filter(([name, { integrity, link }]) => name !== "" && !link && !integrity);
    assert.deepEqual(
      unhashed.map(([name]) => name),
      [],
    );
  });

  it("says what each service is for, and owns its tables alone", () => {
    const readme = read("README.md");
    for (const service of SERVICES) assert.match(readme, new RegExp(`^\\| \\[${service}\\]\\(proto/`, "m"), service);
  });

  it("has its reference, its design and its operations a click from the first page", () => {
    const readme = read("README.md");
    for (const page of ["docs/api/reference.md", "docs/architecture.md", "docs/operations.md", "CONTRIBUTING.md"]) {
      assert.ok(readme.includes(`(${page})`), page);
    }
  });
});

describe("the image", () => {
  const dockerfile = read("Dockerfile");
  const last = dockerfile.slice(dockerfile.lastIndexOf("\nFROM "));

  it("holds what it is allowed to and nothing else: no tests, no keys, no history", () => {
    const [first, ...rest] = read(".dockerignore").trim().split("\n");
    assert.equal(first, "*");
    assert.ok(rest.every((line) => line.startsWith("!") || line.startsWith("#") || /\.test|\*\*/.test(line)));
    for (const never of ["tests", ".git", ".souk", ".env", "helm", "node_modules"]) assert.ok(!rest.includes(`!${never}`), never);
  });

  it("runs as nobody, and Node itself hears the signal to end", () => {
    assert.match(last, /^USER [1-9]\d*(?::[1-9]\d*)?$/m);
    assert.match(last, /^ENTRYPOINT \["node"/m);
  });

  it("is built from the lock file, and runs no install script of a dependency", () => {
    assert.match(dockerfile, /npm ci [^\n]*--omit=dev[^\n]*--ignore-scripts|npm ci [^\n]*--ignore-scripts[^\n]*--omit=dev/);
    assert.doesNotMatch(dockerfile, /:latest\b/);
  });

  it("compiles ahead for the user and with the flags that its programs run with, or none of it would be used", () => {
    const [, entry = "[]"] = /^ENTRYPOINT (\[.*\])$/m.exec(last) ?? [];
    const [, ahead = ""] = /\b(node(?: --\S+)*) \$program --help/.exec(last) ?? [];
    assert.deepEqual(ahead.split(" "), JSON.parse(entry));
    assert.ok(last.indexOf("\nUSER ") < last.indexOf("$program"), "by the user that runs them");
  });

  it("holds no secret and no setting that is one", () => {
    assert.doesNotMatch(dockerfile, /^(?:ENV|ARG)\b.*(?:PASSWORD|SECRET|TOKEN|_KEY\b)/im);
  });
});
