import { mkdtempSync, rmSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

/** Where a database stands. */
export interface Place {
  readonly file: string;
  /** Removes what was temporary. */
  remove(): void;
}

const leftovers = new Set<string>();

function removeLeftovers(): void {
  for (const folder of leftovers) {
    rmSync(folder, { recursive: true, force: true });
  }
}

/**
 * The place that a URL names: `sqlite:<path>` or `sqlite::memory:`; its folder is there.
 *
 * @throws Error when the URL is another.
 */
export async function placeOf(url: string): Promise<Place> {
  if (!url.startsWith("sqlite:") || url.length === "sqlite:".length) {
    throw new Error(`the database URL "${url}" is not understood: sqlite:<path>, or sqlite::memory:.`);
  }
  const path = url.slice("sqlite:".length);
  if (path === ":memory:") {
    // A real file: only then can the reader and the writer be two connections as they are in production.
    const folder = mkdtempSync(join(tmpdir(), "souk-"));
    // One listener for all of them: a test run opens hundreds.
    if (leftovers.size === 0) {
      process.removeListener("exit", removeLeftovers);
      process.once("exit", removeLeftovers);
    }
    leftovers.add(folder);
    return {
      file: join(folder, "memory.db"),
      remove: () => {
        leftovers.delete(folder);
        rmSync(folder, { recursive: true, force: true });
      },
    };
  }
  await mkdir(dirname(path), { recursive: true });
  return { file: path, remove: () => {} };
}
