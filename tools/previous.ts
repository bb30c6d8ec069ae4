// `node tools/previous.ts FOLDER`: what an upgrade comes from. Puts it into an empty folder, whence its image and chart are made.

import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { findLanded, unpackCommit } from "./checks/landed.ts";
import { run } from "./checks/run.ts";
import { runCommand, Usage } from "./checks/usage.ts";

/** What stands in the Dockerfile since a start is so cheap that one machine of two processors goes on while all pods are replaced, there and back. */
const TESTABLE = "NODE_COMPILE_CACHE";
/** A migration without which programs run as well, an index, and the list that it is taken from. */
const LIST = "services/order/migrations/index.ts";
const TAKEN = "indexStateFirst, ";

/** The commit that landed last; where there is none, or it cannot be upgraded in a test, this one with a migration less. */
async function unpackPrevious(folder: string): Promise<string> {
  const landed = await findLanded();
  if ("none" in landed && !landed.isFine) throw new Usage(landed.none);
  if ("commit" in landed) {
    const { code } = await run("git", ["grep", "--quiet", TESTABLE, landed.commit, "--", "Dockerfile"]);
    if (code === 0) {
      await unpackCommit(landed.commit, folder);
      return `${landed.commit.slice(0, 12)}, which landed last`;
    }
  }
  await unpackCommit("HEAD", folder);
  const list = path.join(folder, LIST);
  const text = readFileSync(list, "utf8");
  if (!text.includes(`[orders, ${TAKEN}`)) throw new Error(`${LIST} does not have the migration that is to be taken from it`);
  writeFileSync(list, text.replace(`[orders, ${TAKEN}`, "[orders, "));
  return "this commit without the migration 0002-index-state-first: what landed last cannot be upgraded on one machine under load";
}

await runCommand("tools/previous.ts", async () => {
  const [folder] = process.argv.slice(2);
  if (folder === undefined) throw new Usage("name the folder that the commit is put into");
  if (existsSync(folder) && readdirSync(folder).length > 0) throw new Usage(`${folder} is not empty`);
  mkdirSync(folder, { recursive: true });
  console.error(`An upgrade comes from ${await unpackPrevious(path.resolve(folder))}.`);
});
