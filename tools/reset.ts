// `npm run reset`: forgets the data of the embedded marketplace.

import { existsSync, readdirSync, realpathSync, rmSync } from "node:fs";
import { homedir } from "node:os";
import path from "node:path";
import { runningOn } from "#runtime/data-dir.ts";
import { root } from "./checks/run.ts";
import { KEPT_FOLDER } from "./stores/kept.ts";

const HELP = `npm run reset: removes the data of the embedded marketplace, for good.

It is in .souk/, or what SOUK_DATA_DIR names. A marketplace that runs on it must be ended first.`;

// souk.pid, one database a service, and the data of private production stores.
function ownFiles(): string[] {
  const services = readdirSync(path.join(root, "services"), { withFileTypes: true });
  return ["souk.pid", KEPT_FOLDER, ...services.filter((entry) => entry.isDirectory()).map(({ name }) => `${name}.db`)];
}

/** Why this folder is not to be deleted, as a sentence; undefined when it is a marketplace's data and nothing else's home. */
export function reasonToKeep(folder: string): string | undefined {
  const real = realpathSync(folder);
  const holds = (inner: string) => inner === real || inner.startsWith(real.endsWith(path.sep) ? real : real + path.sep);
  if (holds(root) || holds(homedir()))
    return `${folder} holds more than a marketplace's data; SOUK_DATA_DIR must name a folder of its own.`;
  const names = readdirSync(real);
  const isOurs = path.basename(real) === ".souk" || names.length === 0 || names.some((name) => ownFiles().includes(name));
  if (!isOurs) return `${folder} does not look like a marketplace's data: no database of its services is in it.`;
  const pid = runningOn(real);
  if (pid)
    return `A marketplace runs on ${folder} (process ${pid}): end it first. If that is another program, remove ${path.join(folder, "souk.pid")}.`;
  return undefined;
}

/** Removes what is in the folder (itself it may be a mount or a link); returns the process's exit code. */
function reset(folder: string): number {
  if (!existsSync(folder)) {
    console.log(`Nothing to forget: there is no ${folder}.`);
    return 0;
  }
  const reason = reasonToKeep(folder);
  if (reason) {
    console.error(reason);
    return 1;
  }
  const names = readdirSync(folder).sort();
  for (const name of names) rmSync(path.join(folder, name), { recursive: true });
  console.log(names.length === 0 ? `Nothing to forget: ${folder} is empty.` : `Removed from ${folder}: ${names.join(", ")}.`);
  return 0;
}

if (import.meta.main) {
  const args = process.argv.slice(2);
  if (args.includes("--help")) console.log(HELP);
  else if (args.length > 0) {
    console.error(`npm run reset takes no arguments, not ${args.join(" ")}; npm run reset -- --help says what it does.`);
    process.exitCode = 2;
  } else process.exitCode = reset(path.resolve(process.env.SOUK_DATA_DIR || path.join(root, ".souk")));
}
