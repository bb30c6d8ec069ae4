import type { Client } from "@connectrpc/connect";
import type { CatalogService } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { isUniqueViolation } from "#runtime/database/errors.ts";
import type { Transaction } from "#runtime/database/transaction.ts";
import { newId } from "#runtime/ids.ts";
import type { JobHandler } from "#runtime/jobs/jobs.ts";
import type { Log } from "#runtime/log.ts";
import { changeOf } from "./changes.ts";
import type { ReindexRow, ReindexStateName, SearchDatabase, SearchTables } from "./entities.ts";
import type { SearchIndex } from "./index.ts";

/** The kind of the job that rebuilds. Its key is the rebuild's id. */
export const REINDEX = "search.reindex";

const SCAN_PAGE = 500;
const SCAN_TIMEOUT_MS = 10_000;
/** How long one try of a rebuild may take: 50 million listings need hours where 19,406 need a second. */
const REINDEX_TIMEOUT_MS = 12 * 3600 * 1000;
/** Tries of one rebuild before it is given up. */
const MAX_ATTEMPTS = 5;
const FAILURE_MAX = 500;

/** From which state a rebuild may go to which. */
const transitions: Readonly<Record<ReindexStateName, readonly ReindexStateName[]>> = {
  RUNNING: ["DONE", "FAILED"],
  DONE: [],
  FAILED: [],
};

/** Rebuilds of the index. One runs at a time; it survives this process, because it is a job. */
export interface Reindexing {
  /** Begins a rebuild, or gives the one that runs. */
  begin(tx: Transaction<SearchTables>): Promise<ReindexRow>;
  /** Runs the rebuild that runs, or a new one, here and now. Rejects when it fails; its job tries again. */
  now(): Promise<void>;
  /** The rebuild that runs or ran last. */
  latest(): Promise<ReindexRow | undefined>;
  readonly job: JobHandler;
}

/** Rebuilds by reading the whole catalog into a new index, while events go into both. */
export function reindexing(deps: {
  database: SearchDatabase;
  index: SearchIndex;
  catalog: Pick<Client<typeof CatalogService>, "scanListings">;
  log: Log;
}): Reindexing {
  const { database, index, catalog, log } = deps;
  /** The rebuild in this process: started at boot, it must not be run by its job at the same time. */
  let running: { reindexId: string; done: Promise<void> } | undefined;

  const scan = async (reindexId: string, signal: AbortSignal | undefined): Promise<void> => {
    let read = 0;
    let pageToken = "";
    do {
      signal?.throwIfAborted();
      const options = { timeoutMs: SCAN_TIMEOUT_MS, ...(signal === undefined ? {} : { signal }) };
      const page = await catalog.scanListings({ pageSize: SCAN_PAGE, pageToken }, options);
      await index.addToRebuild(page.listings.flatMap(({ listing, sequence }) => (listing ? [changeOf(listing, sequence)] : [])));
      read += page.listings.length;
      pageToken = page.nextPageToken;
      await noteProgress(database, reindexId, read);
    } while (pageToken !== "");
  };

  const rebuild = async (reindexId: string, signal: AbortSignal | undefined): Promise<void> => {
    const start = Date.now();
    await index.beginRebuild();
    try {
      await scan(reindexId, signal);
      await index.finishRebuild();
    } catch (error) {
      await index.abortRebuild().catch(() => {});
      throw error;
    }
    await end(database, reindexId, "DONE", "");
    log.info({ reindexId, ms: Date.now() - start }, "the search index is rebuilt");
  };

  const run = (reindexId: string, signal?: AbortSignal): Promise<void> => {
    if (running !== undefined) {
      const before = running;
      return before.reindexId === reindexId ? before.done : before.done.catch(() => {}).then(() => run(reindexId, signal));
    }
    const done = rebuild(reindexId, signal).finally(() => {
      running = undefined;
    });
    running = { reindexId, done };
    return done;
  };

  return {
    begin,
    async now() {
      const row = await database.transaction((tx) => begin(tx));
      await run(row.reindex_id);
    },
    latest: () => database.sql.selectFrom("reindex").selectAll().orderBy("reindex_id", "desc").limit(1).executeTakeFirst(),
    job: {
      kind: REINDEX,
      maxAttempts: MAX_ATTEMPTS,
      timeoutMs: REINDEX_TIMEOUT_MS,
      async run({ key, attempt, signal }) {
        const row = await database.sql.selectFrom("reindex").select("state").where("reindex_id", "=", key).executeTakeFirst();
        if (row?.state !== "RUNNING") {
          return;
        }
        try {
          await run(key, signal);
        } catch (error) {
          if (attempt < MAX_ATTEMPTS || signal.aborted) {
            throw error;
          }
          log.error({ reindexId: key, err: error }, "a rebuild of the search index is given up");
          await end(database, key, "FAILED", error instanceof Error ? error.message : String(error));
        }
      },
    },
  };
}

async function begin(tx: Transaction<SearchTables>): Promise<ReindexRow> {
  const reindexId = newId();
  try {
    await tx.sql
      .insertInto("reindex")
      .values({
        reindex_id: reindexId,
        state: "RUNNING",
        running: 1,
        listings_read: 0,
        start_time: tx.now,
        end_time: null,
        failure: "",
      })
      .execute();
  } catch (error) {
    // The unique key decides which of several comes first; the others get that one.
    if (!isUniqueViolation(error)) {
      throw error;
    }
  }
  const row = await tx.sql.selectFrom("reindex").selectAll().where("running", "=", 1).executeTakeFirstOrThrow();
  if (row.reindex_id === reindexId) {
    tx.schedule({ kind: REINDEX, key: reindexId, dueTime: tx.now });
  }
  return row;
}

async function noteProgress(database: SearchDatabase, reindexId: string, listingsRead: number): Promise<void> {
  await database.sql
    .updateTable("reindex")
    .set({ listings_read: listingsRead })
    .where("reindex_id", "=", reindexId)
    .where("running", "=", 1)
    .execute();
}

async function end(database: SearchDatabase, reindexId: string, state: ReindexStateName, failure: string): Promise<void> {
  const from = (Object.keys(transitions) as ReindexStateName[]).filter((before) => transitions[before].includes(state));
  await database.transaction(async (tx) => {
    const { numUpdatedRows } = await tx.sql
      .updateTable("reindex")
      .set({ state, running: null, end_time: tx.now, failure: failure.slice(0, FAILURE_MAX) })
      .where("reindex_id", "=", reindexId)
      .where("state", "in", from)
      .executeTakeFirst();
    if (numUpdatedRows !== 1n) {
      throw new Error(`the rebuild ${reindexId} does not run any more.`);
    }
  });
}
