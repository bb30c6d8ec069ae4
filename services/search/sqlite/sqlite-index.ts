import { failure } from "#runtime/errors.ts";
import type { Log } from "#runtime/log.ts";
import { INDEX_UNAVAILABLE } from "../errors.ts";
import type { Change, IndexAnswer, IndexQuery, IndexStatus, SearchIndex } from "../index.ts";
import type { IndexFile } from "./index-file.ts";
import type { ReaderCalls } from "./reader.ts";
import { ThreadCalls } from "./thread-calls.ts";
import type { WriterCalls } from "./writer.ts";

const SEARCHES_WAITING_MAX = 256;
const SEARCHES_IN_FLIGHT_MAX = 4;
const SEARCH_MAX_MS = 10_000;
const WRITES_WAITING_MAX = 64;
/** Bounds one message to the thread, and how long a write stands in the way of the next. */
const CHANGES_AT_ONCE = 250;

/** What the index is opened with. */
export interface SqliteIndexOptions {
  /** The folder of its files. */
  readonly folder: string;
  readonly log: Log;
  /** The live file turned out to be broken: it must be rebuilt. */
  onCorrupt?(): void;
  /** Other modules for the threads, for tests of their failing. */
  readonly modules?: { readonly reader?: URL; readonly writer?: URL };
}

/**
 * The index as an FTS5 file under a folder, good for up to 200,000 listings. One thread writes and another reads (WAL), so that a search waits
 * neither for a batch of events nor for a rebuild, and none of it stops this thread.
 */
export function sqliteIndex(options: SqliteIndexOptions): SearchIndex {
  return new SqliteIndex(options);
}

class SqliteIndex implements SearchIndex {
  readonly #writer: ThreadCalls;
  readonly #reader: ThreadCalls;
  #live: IndexFile | undefined;

  constructor({ folder, log, onCorrupt, modules }: SqliteIndexOptions) {
    const corrupt = onCorrupt === undefined ? {} : { onCorrupt };
    this.#writer = new ThreadCalls({
      module: modules?.writer ?? new URL("./writer.ts", import.meta.url),
      name: "search-writer",
      queueMax: WRITES_WAITING_MAX,
      inFlightMax: 1,
      // A thread that comes back has lost the index it was building: the rebuild fails and is begun again.
      prepare: async (call) => {
        const before = this.#live;
        this.#live = (await call("open", folder)) as IndexFile | undefined;
        if (before !== undefined && before.number !== this.#live?.number) {
          this.#reader.restart();
          if (this.#live === undefined) {
            onCorrupt?.();
          }
        }
      },
      ...corrupt,
      log,
    });
    this.#reader = new ThreadCalls({
      module: modules?.reader ?? new URL("./reader.ts", import.meta.url),
      name: "search-reader",
      queueMax: SEARCHES_WAITING_MAX,
      inFlightMax: SEARCHES_IN_FLIGHT_MAX,
      callMaxMs: SEARCH_MAX_MS,
      prepare: async (call) => {
        if (this.#live !== undefined) {
          await call("open", this.#live);
        }
      },
      ...corrupt,
      log,
    });
  }

  async open(): Promise<boolean> {
    await this.#writer.start();
    try {
      await this.#reader.start();
    } catch (error) {
      await this.#writer.close("close");
      throw error;
    }
    return this.#live !== undefined;
  }

  async apply(changes: readonly Change[], lastEventTime: number): Promise<void> {
    await this.#write("apply", changes, lastEventTime);
  }

  async search(query: IndexQuery, signal?: AbortSignal): Promise<IndexAnswer> {
    return (await this.#read("search", [query], signal)) as IndexAnswer;
  }

  async status(): Promise<IndexStatus> {
    return this.#live === undefined ? { listingCount: 0 } : ((await this.#read("status", [])) as IndexStatus);
  }

  async beginRebuild(): Promise<void> {
    await this.#write("beginRebuild");
  }

  async addToRebuild(changes: readonly Change[]): Promise<void> {
    for (let start = 0; start < changes.length; start += CHANGES_AT_ONCE) {
      await this.#write("addToRebuild", changes.slice(start, start + CHANGES_AT_ONCE));
    }
  }

  async finishRebuild(): Promise<void> {
    this.#live = (await this.#write("finishRebuild")) as IndexFile;
    // Searches that were asked before go to the old file, which is therefore removed only now.
    await this.#read("open", [this.#live]).catch(() => this.#reader.restart());
    await this.#write("removeOld");
  }

  async abortRebuild(): Promise<void> {
    await this.#write("abortRebuild");
  }

  async close(): Promise<void> {
    await this.#reader.close();
    await this.#writer.close("close");
  }

  #write(method: keyof WriterCalls, ...args: unknown[]): Promise<unknown> {
    return this.#writer.call(method, args);
  }

  #read(method: keyof ReaderCalls, args: unknown[], signal?: AbortSignal): Promise<unknown> {
    return this.#live === undefined ? Promise.reject(failure(INDEX_UNAVAILABLE)) : this.#reader.call(method, args, signal);
  }
}
