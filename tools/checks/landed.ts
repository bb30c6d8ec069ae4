import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { run } from "./run.ts";

/** The commit to compare the contract with, or the sentence that says why there is none; it is fine unless a commit was asked for. */
export type Landed = { commit: string } | { none: string; isFine: boolean };

const NOTHING = { none: "no landed contract to compare with", isFine: true };

async function git(...args: string[]): Promise<string | undefined> {
  const { code, output } = await run("git", args);
  return code === 0 ? output.trim() : undefined;
}

/** SOUK_LANDED_REF, else origin/main where HEAD is ahead of it, else the commit before HEAD (or HEAD itself while its contract is being edited). */
async function landedRef(): Promise<string> {
  const chosen = process.env.SOUK_LANDED_REF;
  if (chosen) return chosen;
  const head = await git("rev-parse", "HEAD");
  const main = await git("rev-parse", "--verify", "--quiet", "origin/main");
  const isBehind = main !== undefined && (await git("merge-base", "--is-ancestor", main, "HEAD")) !== undefined;
  if (main && main !== head && isBehind) return main;
  const isEdited = (await git("status", "--porcelain", "--", "proto")) !== "";
  return main && main === head && isEdited ? main : "HEAD~1";
}

/** Finds the commit whose contract callers have already. */
export async function findLanded(): Promise<Landed> {
  const ref = await landedRef();
  const commit = await git("rev-parse", "--verify", "--quiet", `${ref}^{commit}`);
  if (commit === undefined && process.env.SOUK_LANDED_REF)
    return { none: `SOUK_LANDED_REF names no commit: ${ref}`, isFine: false };
  if (commit === undefined) return NOTHING;
  const files = (await git("ls-tree", "-r", "--name-only", commit, "--", "proto", "buf.yaml")) ?? "";
  return files.includes(".proto") && files.includes("buf.yaml") ? { commit } : NOTHING;
}

/** Puts the contract of a commit into a temporary folder for the time of the work. */
export async function withContractOf<T>(commit: string, work: (folder: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(path.join(tmpdir(), "souk-landed-"));
  try {
    await unpackCommit(commit, folder, ["buf.yaml", "proto", "third_party/proto"]);
    return await work(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Puts a commit, or some paths of it, into a folder. Reads objects, never the working tree or the index. */
export async function unpackCommit(commit: string, folder: string, paths: readonly string[] = []): Promise<void> {
  const archive = path.join(folder, "landed.tar");
  const made = await run("git", ["archive", "--format=tar", "-o", archive, commit, ...paths]);
  if (made.code !== 0) throw new Error(`git archive of ${commit}: ${made.output}`);
  const unpacked = await run("tar", ["-xf", archive, "-C", folder]);
  if (unpacked.code !== 0) throw new Error(`tar of ${commit}: ${unpacked.output}`);
  await rm(archive);
}
