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

/**
 * Rebuilds of the index. Each process has an index of its own and rebuilds it for itself, one rebuild at a time. One that an operator asks for survives
 * the process, because it is a job; when the process that has taken it is done, the others follow.
 */
export interface Reindexing {
  /** Begins a rebuild that an operator asked for, or gives the one that runs. */
  begin(tx: Transaction<SearchTables>): Promise<ReindexRow>;
  /** Rebuilds this process' index. Who asks before it has begun shares it. Rejects when it fails. */
  here(): Promise<void>;
  /** The operators' rebuild that runs or ran last. */
  latest(): Promise<ReindexRow | undefined>;
  /** The id of the operators' last rebuild that succeeded. */
  lastDone(): Promise<string | undefined>;
  readonly job: JobHandler;
}

/** Rebuilds by reading the whole catalog into a new index, while events go into both. */
export function reindexing(deps: {
  database: SearchDatabase;
  index: SearchIndex;
  catalog: Pick<Client<typeof CatalogService>, "scanListings">;
  log: Log;
  /** Hears that this process' index is as this rebuild wants it, before that is done for others to see. */
  onDone(reindexId: string): void;
  /** Ends what is asked of this process. */
  stopped: AbortSignal;
}): Reindexing {
  const { database, index, catalog, log, onDone, stopped } = deps;
  let last: Promise<unknown> = Promise.resolve();
  let asked: Promise<void> | undefined;

  const scan = async (reindexId: string | undefined, signal: AbortSignal): Promise<void> => {
    let read = 0;
    let pageToken = "";
    do {
      signal.throwIfAborted();
      const page = await catalog.scanListings({ pageSize: SCAN_PAGE, pageToken }, { timeoutMs: SCAN_TIMEOUT_MS, signal });
      await index.addToRebuild(page.listings.flatMap(({ listing, sequence }) => (listing ? [changeOf(listing, sequence)] : [])));
      read += page.listings.length;
      pageToken = page.nextPageToken;
      if (reindexId !== undefined) await noteProgress(database, reindexId, read);
    } while (pageToken !== "");
  };

  const rebuild = async (reindexId: string | undefined, signal: AbortSignal): Promise<void> => {
    const start = Date.now();
    await index.beginRebuild();
    try {
      await scan(reindexId, signal);
      await index.finishRebuild();
    } catch (error) {
      await index.abortRebuild().catch(() => {});
      throw error;
    }
    log.info({ ...(reindexId === undefined ? {} : { reindexId }), ms: Date.now() - start }, "the search index is rebuilt");
  };

  const inTurn = (work: () => Promise<void>): Promise<void> => {
    const done = last.then(work);
    last = done.catch(() => {});
    return done;
  };

  return {
    begin,
    here() {
      asked ??= inTurn(() => {
        asked = undefined;
        return rebuild(undefined, stopped);
      });
      return asked;
    },
    latest: () => database.sql.selectFrom("reindex").selectAll().orderBy("reindex_id", "desc").limit(1).executeTakeFirst(),
    async lastDone() {
      const query = database.sql.selectFrom("reindex").select("reindex_id").where("state", "=", "DONE");
      return (await query.orderBy("reindex_id", "desc").limit(1).executeTakeFirst())?.reindex_id;
    },
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
          await inTurn(() => rebuild(key, signal));
          onDone(key);
          await end(database, key, "DONE", "");
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
