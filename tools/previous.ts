// `node tools/previous.ts FOLDER`: what an upgrade comes from. Puts the commit that landed last into an empty folder, whence its image and chart are made.

import { existsSync, mkdirSync, readdirSync } from "node:fs";
import path from "node:path";
import { findLanded, unpackCommit } from "./checks/landed.ts";
import { run } from "./checks/run.ts";
import { runCommand, Usage } from "./checks/usage.ts";

/** The commit that landed last, where it has a chart; else this one: an upgrade then changes nothing but every pod. */
async function previous(): Promise<{ commit: string; why: string }> {
  const landed = await findLanded();
  if ("none" in landed) {
    if (!landed.isFine) throw new Usage(landed.none);
    return { commit: "HEAD", why: `${landed.none}, so it is this one` };
  }
  const { output } = await run("git", ["ls-tree", "--name-only", landed.commit, "--", "helm/souk/Chart.yaml", "Dockerfile"]);
  if (output.trim().split("\n").length === 2) return { commit: landed.commit, why: "it landed last" };
  return { commit: "HEAD", why: "what landed last has no chart, so it is this one" };
}

await runCommand("tools/previous.ts", async () => {
  const [folder] = process.argv.slice(2);
  if (folder === undefined) throw new Usage("name the folder that the commit is put into");
  if (existsSync(folder) && readdirSync(folder).length > 0) throw new Usage(`${folder} is not empty`);
  mkdirSync(folder, { recursive: true });
  const { commit, why } = await previous();
  await unpackCommit(commit, path.resolve(folder));
  console.error(`An upgrade comes from ${commit.slice(0, 12)}: ${why}.`);
});
