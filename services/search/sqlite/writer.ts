import { mkdirSync } from "node:fs";
import type { DatabaseSync } from "node:sqlite";
import type { Change } from "../index.ts";
import {
  completeIndex,
  createIndex,
  type IndexFile,
  indexFile,
  indexFiles,
  isUsable,
  openForWriting,
  removeIndexFile,
} from "./index-file.ts";
import { serve } from "./thread.ts";
import { Updates } from "./updates.ts";

/** An index that is being written. */
interface Open {
  readonly file: IndexFile;
  readonly db: DatabaseSync;
  readonly updates: Updates;
}

/** The calls that the writing thread answers. One at a time: it alone writes. */
export interface WriterCalls {
  /** Opens the newest whole index of the folder and removes the others; undefined when there is none. */
  open(folder: string): IndexFile | undefined;
  apply(changes: readonly Change[], lastEventTime: number): void;
  beginRebuild(): void;
  addToRebuild(changes: readonly Change[]): void;
  /** Completes the new index and writes only to it from now on. The old file stays until `removeOld`. */
  finishRebuild(): IndexFile;
  abortRebuild(): void;
  /** Removes all files but the live one. */
  removeOld(): void;
  close(): void;
}

let folder = "";
let live: Open | undefined;
let building: Open | undefined;

function close(index: Open | undefined): void {
  index?.db.close();
}

function requireBuilding(): Open {
  if (building === undefined) {
    throw new Error("no index is being built: the thread that built it has failed.");
  }
  return building;
}

/** Removes the files that are neither live nor being built. */
function removeOthers(): void {
  for (const file of indexFiles(folder)) {
    if (file.number !== live?.file.number && file.number !== building?.file.number) {
      removeIndexFile(file);
    }
  }
}

serve<WriterCalls>({
  open(where) {
    folder = where;
    mkdirSync(folder, { recursive: true });
    const file = indexFiles(folder).find(isUsable);
    if (file !== undefined) {
      const db = openForWriting(file);
      live = { file, db, updates: new Updates(db) };
    }
    removeOthers();
    return file;
  },
  apply(changes, lastEventTime) {
    if (live === undefined && building === undefined) {
      throw new Error("there is no index to write.");
    }
    // The live one last: once it has them nobody sends them again, and by then the new one has them too.
    building?.updates.apply(changes, lastEventTime);
    live?.updates.apply(changes, lastEventTime);
  },
  beginRebuild() {
    close(building);
    building = undefined;
    removeOthers();
    const file = indexFile(folder, (live?.file.number ?? 0) + 1);
    const db = createIndex(file);
    building = { file, db, updates: new Updates(db) };
  },
  addToRebuild(changes) {
    requireBuilding().updates.apply(changes, 0);
  },
  finishRebuild() {
    const next = requireBuilding();
    next.updates.apply([], live?.updates.lastEventTime ?? 0);
    completeIndex(next.db);
    close(live);
    live = next;
    building = undefined;
    return live.file;
  },
  abortRebuild() {
    close(building);
    building = undefined;
    removeOthers();
  },
  removeOld: removeOthers,
  close() {
    close(building);
    close(live);
  },
});
