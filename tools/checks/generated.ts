import { mkdtemp, readdir, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { generated, generateInto } from "../generate.ts";
import { root } from "./run.ts";

/** The files in a folder, or the one file itself, by their paths from there. */
async function filesOf(folder: string): Promise<Map<string, Buffer>> {
  if ((await stat(folder).catch(() => undefined))?.isFile()) return new Map([["", await readFile(folder)]]);
  const files = new Map<string, Buffer>();
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
  for (const entry of entries) {
    if (!entry.isFile()) continue;
    const file = path.join(entry.parentPath, entry.name);
    files.set(path.relative(folder, file), await readFile(file));
  }
  return files;
}

/** One line for each generated file that is missing, left over or different from what the generators make now; empty when all is right. */
export async function staleFiles(): Promise<string[]> {
  const temporary = await mkdtemp(path.join(tmpdir(), "souk-generated-"));
  try {
    await generateInto(temporary);
    const stale: string[] = [];
    for (const folder of generated) {
      const wanted = await filesOf(path.join(temporary, folder));
      const have = await filesOf(path.join(root, folder));
      for (const [name, contents] of wanted) {
        const committed = have.get(name);
        if (!committed) stale.push(`missing:   ${path.join(folder, name)}`);
        else if (!committed.equals(contents)) stale.push(`different: ${path.join(folder, name)}`);
      }
      for (const name of have.keys()) if (!wanted.has(name)) stale.push(`left over: ${path.join(folder, name)}`);
    }
    return stale.sort();
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}
