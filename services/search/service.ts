import { setTimeout as sleep } from "node:timers/promises";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { CatalogService } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { type ReindexSchema, ReindexState, SearchService } from "#gen/marketplace/search/v1/search_pb.ts";
import { callOf } from "#runtime/call.ts";
import type { Clients } from "#runtime/clients.ts";
import type { Log } from "#runtime/log.ts";
import type { PageTokens } from "#runtime/pages.ts";
import type { ServiceModule } from "#runtime/service.ts";
import { categories } from "./categories.ts";
import { listingConsumer } from "./changes.ts";
import type { ReindexRow, ReindexStateName, SearchDatabase } from "./entities.ts";
import type { SearchIndex } from "./index.ts";
import { reindexing } from "./reindex.ts";
import { searching } from "./searching.ts";

const BUILD_PAUSE_MS = 200;
const BUILD_PAUSE_MAX_MS = 5_000;

/** What search is made of. */
export interface SearchDependencies {
  readonly database: SearchDatabase;
  readonly clients: Clients;
  readonly pages: PageTokens;
  /** The index, not yet open. `onCorrupt` is called by it when its file is broken. */
  index(hooks: { onCorrupt(): void }): SearchIndex;
}

/** Search: finds listings on sale. Holds a derived index that is fed by the catalog's events and can be rebuilt from the catalog at any time. */
export function search({ database, clients, pages, index: makeIndex }: SearchDependencies): ServiceModule {
  const { log } = database;
  const stopped = new AbortController();
  const catalog = clients.of(CatalogService);
  const index = makeIndex({
    onCorrupt: () => {
      log.error("the search index is broken and will be rebuilt");
      database
        .transaction((tx) => reindex.begin(tx))
        .catch((error: unknown) => log.error({ err: error }, "no rebuild could begin"));
    },
  });
  const reindex = reindexing({ database, index, catalog, log });
  const searches = searching({ index, categories: categories(catalog), pages });

  return {
    name: "search",
    database,
    consumers: [listingConsumer(index, log)],
    jobs: [reindex.job],
    recurring: [],
    async start() {
      if (!(await index.open())) {
        log.info("there is no usable search index; building one");
        await untilBuilt(() => reindex.now(), stopped.signal, log);
      }
    },
    async stop() {
      stopped.abort();
      await index.close();
    },
    routes(router) {
      router.service(SearchService, {
        searchListings: (request, context) => searches.searchListings(request, context),

        startReindex: (request, context) =>
          database.command(request, context, async (tx) => ({ reindex: reindexOf(await reindex.begin(tx)) })),

        async getIndexStatus(_request, context) {
          callOf(context).signal.throwIfAborted();
          const [status, latest] = await Promise.all([index.status(), reindex.latest()]);
          return {
            listingCount: status.listingCount,
            ...(status.lastEventTime === undefined ? {} : { lastEventTime: timestampFromMs(status.lastEventTime) }),
            ...(latest === undefined ? {} : { reindex: reindexOf(latest) }),
          };
        },
      });
    },
  };
}

/** Not ready before there is an index: the catalog may start later than this process. */
async function untilBuilt(build: () => Promise<void>, stopped: AbortSignal, log: Log): Promise<void> {
  for (let pause = BUILD_PAUSE_MS; ; pause = Math.min(BUILD_PAUSE_MAX_MS, pause * 2)) {
    try {
      return await build();
    } catch (error) {
      if (stopped.aborted) {
        throw error;
      }
      log.warn({ err: error, pauseMs: pause }, "the search index could not be built; trying again");
      await sleep(pause, undefined, { signal: stopped });
    }
  }
}

const states: Readonly<Record<ReindexStateName, ReindexState>> = {
  RUNNING: ReindexState.RUNNING,
  DONE: ReindexState.DONE,
  FAILED: ReindexState.FAILED,
};

function reindexOf(row: ReindexRow): MessageInitShape<typeof ReindexSchema> {
  return {
    reindexId: row.reindex_id,
    state: states[row.state],
    listingsRead: row.listings_read,
    startTime: timestampFromMs(row.start_time),
    ...(row.end_time == null ? {} : { endTime: timestampFromMs(row.end_time) }),
    failure: row.failure,
  };
}
