import { closeSync, fsyncSync, openSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Replica } from "#runtime/events/bus.ts";
import type { Log } from "#runtime/log.ts";
import type { Reindexing } from "./reindex.ts";

const FILE = "search-index.json";
const BUILD_PAUSE_MS = 200;
const BUILD_PAUSE_MAX_MS = 5_000;
/** How often a process looks whether another one has done an operator's rebuild. */
const FOLLOW_MS = 2_000;

/** What is known of the index in this folder. Derived as the index is: lost, the index is rebuilt once more than it need be. */
export interface IndexNotes {
  /** The bus' name for what this index has heard. */
  readonly generation?: string;
  /** The bus' name for what the index was last begun anew with, whether it came to its end or not. */
  readonly begun?: string;
  /** The operators' rebuild that it was last made anew for. */
  readonly reindexId?: string;
}

/** The notes beside an index. */
export interface Notebook {
  read(): IndexNotes;
  /** Adds to what is noted; durable when it returns. */
  add(notes: IndexNotes): void;
}

/** Notes in a file of the index' folder. */
export function notesIn(folder: string): Notebook {
  const file = join(folder, FILE);
  const read = (): IndexNotes => {
    try {
      return JSON.parse(readFileSync(file, "utf8")) as IndexNotes;
    } catch {
      return {};
    }
  };
  return {
    read,
    add(notes) {
      const draft = `${file}.new`;
      writeFileSync(draft, `${JSON.stringify({ ...read(), ...notes })}\n`, { flush: true });
      renameSync(draft, file);
      const handle = openSync(folder, "r");
      fsyncSync(handle);
      closeSync(handle);
    },
  };
}

/** What keeps this process' index whole beside those of other processes. */
export interface IndexReplica extends Replica {
  /** The index is open; until then nothing is built. Resolves when there is a usable one. */
  opened(usable: boolean): Promise<void>;
  /** The index is broken. */
  broken(): void;
}

/** Rebuilds this process' index whenever it must be: there is none, it is broken, it may have missed events, or an operator wants it and another process was first. */
export function indexReplica(deps: { reindex: Reindexing; notes: Notebook; stopped: AbortSignal; log: Log }): IndexReplica {
  const { reindex, notes, stopped, log } = deps;
  const open = Promise.withResolvers<void>();
  let isOpen = false;
  /** What the bus asked for before the index was open: the first building serves it, too. */
  let early: string | undefined;
  let following = false;

  /** Tries until it is done: the catalog may start later than this process. */
  const build = async (generation?: string): Promise<void> => {
    for (let pause = BUILD_PAUSE_MS; ; pause = Math.min(BUILD_PAUSE_MAX_MS, pause * 2)) {
      try {
        const reindexId = await reindex.lastDone();
        await reindex.here();
        return notes.add({
          ...(generation === undefined ? {} : { generation }),
          ...(reindexId === undefined ? {} : { reindexId }),
        });
      } catch (error) {
        if (stopped.aborted) throw error;
        log.warn({ err: error, pauseMs: pause }, "the search index could not be built; trying again");
        await sleep(pause, undefined, { signal: stopped });
      }
    }
  };

  const follow = async (): Promise<void> => {
    await open.promise.catch(() => {});
    while (!stopped.aborted) {
      const reindexId = await reindex.lastDone().catch(() => undefined);
      if (reindexId !== undefined && reindexId !== notes.read().reindexId) await build();
      await sleep(FOLLOW_MS, undefined, { signal: stopped, ref: false });
    }
  };

  return {
    async opened(usable) {
      isOpen = true;
      const built = usable && early === undefined ? Promise.resolve() : build(early);
      open.resolve(built);
      if (usable) return;
      log.info("there is no usable search index; building one");
      await built;
    },
    broken() {
      log.error("the search index is broken and will be rebuilt");
      build().catch((error: unknown) => log.debug({ err: error }, "not rebuilt: the process ends"));
    },
    async generation() {
      // Only a bus between processes asks.
      if (!following) follow().catch(() => {});
      following = true;
      return notes.read().generation;
    },
    async unfinished() {
      const { begun, generation } = notes.read();
      return begun === generation ? undefined : begun;
    },
    async rebuild(generation) {
      notes.add({ begun: generation });
      if (!isOpen) early = generation;
      const built = isOpen ? build(generation) : open.promise;
      await built.catch((error: unknown) => {
        if (!stopped.aborted) throw error;
      });
    },
  };
}
