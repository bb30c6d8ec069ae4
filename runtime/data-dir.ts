import { existsSync, linkSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const PID_FILE = "souk.pid";

/** The process that runs a marketplace on this folder, by its souk.pid; undefined when there is none, or it has died. */
export function runningOn(folder: string): number | undefined {
  const file = join(folder, PID_FILE);
  if (!existsSync(file)) return undefined;
  const pid = Number.parseInt(readFileSync(file, "utf8"), 10);
  if (!Number.isInteger(pid) || pid <= 0) return undefined;
  try {
    process.kill(pid, 0);
    return pid;
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM" ? pid : undefined;
  }
}

/**
 * Makes the folder of the embedded parts if need be and claims it for this process: two on one folder would share a search index that has one
 * writer. Gives the function that leaves it; a process that dies leaves it by dying.
 *
 * @throws Error a sentence that names the process which has it.
 */
export function claimDataDir(folder: string): () => void {
  mkdirSync(folder, { recursive: true });
  const file = join(folder, PID_FILE);
  const draft = `${file}.${process.pid}`;
  writeFileSync(draft, `${process.pid}\n`);
  try {
    for (let attempt = 1; ; attempt++) {
      const pid = runningOn(folder);
      // A container's process is number 1 again after a restart: our own number in the file is a dead predecessor's.
      if (pid !== undefined && pid !== process.pid) {
        throw new Error(
          `A marketplace runs on ${folder} already (process ${pid}). End it first, or give this one a folder and a port of its own: --data-dir FOLDER --port NUMBER.`,
        );
      }
      rmSync(file, { force: true });
      try {
        // Of two that start at once one makes the link; the other finds a living process.
        linkSync(draft, file);
        return () => rmSync(file, { force: true });
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "EEXIST" || attempt === 3) throw error;
      }
    }
  } finally {
    rmSync(draft, { force: true });
  }
}
