import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { CatalogService } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { type ReindexSchema, ReindexState, SearchService } from "#gen/marketplace/search/v1/search_pb.ts";
import { callOf } from "#runtime/call.ts";
import type { Clients } from "#runtime/clients.ts";
import type { PageTokens } from "#runtime/pages.ts";
import type { ServiceModule } from "#runtime/service.ts";
import { categories } from "./categories.ts";
import { listingConsumer } from "./changes.ts";
import type { ReindexRow, ReindexStateName, SearchDatabase } from "./entities.ts";
import type { SearchIndex } from "./index.ts";
import { reindexing } from "./reindex.ts";
import { indexReplica, type Notebook } from "./replica.ts";
import { searching } from "./searching.ts";

/** What search is made of. */
export interface SearchDependencies {
  readonly database: SearchDatabase;
  readonly clients: Clients;
  readonly pages: PageTokens;
  /** What is noted beside the index. */
  readonly notes: Notebook;
  /** The index, not yet open. `onCorrupt` is called by it when its file is broken. */
  index(hooks: { onCorrupt(): void }): SearchIndex;
}

/** Search: finds listings on sale. Holds a derived index that is fed by the catalog's events and can be rebuilt from the catalog at any time. */
export function search({ database, clients, pages, notes, index: makeIndex }: SearchDependencies): ServiceModule {
  const { log } = database;
  const stopped = new AbortController();
  const catalog = clients.of(CatalogService);
  const index = makeIndex({ onCorrupt: () => replica.broken() });
  const onDone = (reindexId: string) => notes.add({ reindexId });
  const reindex = reindexing({ database, index, catalog, log, onDone, stopped: stopped.signal });
  const replica = indexReplica({ reindex, notes, stopped: stopped.signal, log });
  const searches = searching({ index, categories: categories(catalog), pages });

  return {
    name: "search",
    database,
    consumers: [listingConsumer(index, replica, log)],
    jobs: [reindex.job],
    recurring: [],
    async start() {
      await replica.opened(await index.open());
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
