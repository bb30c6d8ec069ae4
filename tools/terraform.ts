// `npm run test:terraform`: the format of terraform/, by the library that `terraform fmt` is made of. The last line is `N passed, N failed`.

import { spawnSync } from "node:child_process";
import { globSync, mkdirSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { cacheFolder } from "./bootstrap.mjs";
import { root } from "./checks/run.ts";
import { runCommand, Usage } from "./checks/usage.ts";

const SOURCE = path.join(root, "tests/terraform/fmt");

const HELP = `npm run test:terraform -- [--write]

Says which files of terraform/ are not formatted. What else can be known of them without a cloud, npm test knows. Needs Go, with which the check is
built once.

  --write   formats them
  --help    this

The last line is "N passed, N failed", and the exit code 1 when anything failed.`;

/** The program, built into the cache; Go itself knows what is up to date. */
function build(): string {
  if (spawnSync("go", ["version"]).status !== 0)
    throw new Usage(
      "The check is built with Go, which is not on the PATH: install it from https://go.dev/dl (on Debian: apt install golang) and run this again.",
    );
  const folder = path.join(cacheFolder(), "terraform-fmt");
  mkdirSync(folder, { recursive: true });
  const program = path.join(folder, "fmt");
  const { status } = spawnSync("go", ["build", "-o", program, "."], { cwd: SOURCE, stdio: ["ignore", "inherit", "inherit"] });
  if (status !== 0) throw new Usage("Go could not build the check; what it says is above.");
  return program;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { write: { type: "boolean", default: false }, help: { type: "boolean", default: false } },
  });
  if (values.help) {
    console.log(HELP);
    return;
  }
  const files = globSync("terraform/**/*.tf", { cwd: root }).sort();
  const args = values.write ? ["-write", ...files] : files;
  const { status } = spawnSync(build(), args, { cwd: root, stdio: ["ignore", "inherit", "inherit"] });
  process.exitCode = status ?? 1;
}

await runCommand("npm run test:terraform", main);
