import { spawnSync } from "node:child_process";
import { chmodSync, copyFileSync, mkdirSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { ROOT } from "./process.ts";

/** The search path with this Node first, and last a stand-in for curl on a machine that has none. */
export function pathWithCurl(folder: string): string {
  const path = [dirname(process.execPath), process.env.PATH].join(delimiter);
  if (spawnSync("curl", ["--version"]).status === 0) return path;
  const bin = join(folder, "bin");
  mkdirSync(bin, { recursive: true });
  copyFileSync(join(ROOT, "tests/support/bin/curl.mjs"), join(bin, "curl"));
  chmodSync(join(bin, "curl"), 0o755);
  return [path, bin].join(delimiter);
}
