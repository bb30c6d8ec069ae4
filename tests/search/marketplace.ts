import assert from "node:assert/strict";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { anyPack, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type Client, ConnectError } from "@connectrpc/connect";
import { CatalogService, Condition, type Listing, ListingSchema, ListingState } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { ListingPublishedSchema, ListingSoldSchema, ListingUpdatedSchema } from "#gen/marketplace/catalog/v1/events_pb.ts";
import { type Event, EventSchema } from "#gen/marketplace/event/v1/event_pb.ts";
import { SearchService } from "#gen/marketplace/search/v1/search_pb.ts";
import { createDirectory } from "#runtime/clients.ts";
import type { ManualClock } from "#runtime/clock.ts";
import { fail, reasonOf, UNAVAILABLE } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { startJobs } from "#runtime/jobs/jobs.ts";
import { pageTokens } from "#runtime/pages.ts";
import type { ServiceModule } from "#runtime/service.ts";
import { embeddedVerifiers, serviceTokens, temporaryKeys } from "#runtime/tokens.ts";
import { entities, type SearchDatabase } from "../../services/search/entities.ts";
import { migrations } from "../../services/search/migrations/index.ts";
import { notesIn } from "../../services/search/replica.ts";
import { search } from "../../services/search/service.ts";
import { sqliteIndex } from "../../services/search/sqlite/sqlite-index.ts";
import { memoryDatabase, quietLog, temporaryFolder } from "../support/database.ts";
import { behind, type Carrier, type Identity } from "../support/server.ts";

/** A catalog as search sees it. */
export interface FakeCatalog {
  /** What a scan finds, by id. */
  readonly listings: Map<string, { listing: Listing; sequence: number }>;
  /** How many scans fail from now on. */
  failing: number;
  /** Runs before each page of a scan. */
  meanwhile: (() => Promise<void>) | undefined;
}

const TREE = [
  ["sport", ""],
  ["golf", "sport"],
  ["golf-clubs", "golf"],
  ["golf-balls", "golf"],
  ["tennis", "sport"],
  ["home", ""],
] as const;

function fakeCatalog(): { catalog: FakeCatalog; module: ServiceModule } {
  const catalog: FakeCatalog = { listings: new Map(), failing: 0, meanwhile: undefined };
  const parents = new Set<string>(TREE.map(([, parentId]) => parentId));
  const depthOf = (categoryId: string): number =>
    categoryId === "" ? 0 : 1 + depthOf(TREE.find(([id]) => id === categoryId)?.[1] ?? "");
  const module: ServiceModule = {
    name: "catalog",
    consumers: [],
    jobs: [],
    recurring: [],
    routes: (router) => {
      router.service(CatalogService, {
        listCategories: () => ({
          categories: TREE.map(([categoryId, parentId]) => ({
            categoryId,
            parentId,
            name: categoryId,
            leaf: !parents.has(categoryId),
            depth: depthOf(categoryId),
          })),
        }),
        async scanListings({ pageToken }) {
          await catalog.meanwhile?.();
          if (catalog.failing > 0) {
            catalog.failing--;
            fail(UNAVAILABLE);
          }
          const ids = [...catalog.listings.keys()].filter((id) => id > pageToken).sort();
          const page = ids.slice(0, 3);
          const listings = page.map((id) => {
            const { listing, sequence } = catalog.listings.get(id) as { listing: Listing; sequence: number };
            return { listing, sequence: BigInt(sequence) };
          });
          return { listings, nextPageToken: ids.length > 3 ? (page.at(-1) as string) : "" };
        },
      });
    },
  };
  return { catalog, module };
}

/** Search with a fake catalog beside it. */
export interface Marketplace {
  readonly catalog: FakeCatalog;
  readonly database: SearchDatabase;
  readonly clock: ManualClock;
  readonly module: ServiceModule;
  readonly folder: string;
  client(identity?: Identity): Client<typeof SearchService>;
  /** Delivers events as the bus does. */
  deliver(...events: Event[]): Promise<void>;
  /** Runs the jobs that are due. */
  runJobs(): Promise<void>;
  close(): Promise<void>;
}

/** Starts search; `catalog` may be filled before that by `prepare`. */
export async function openMarketplace(
  carrier: Carrier,
  prepare: (catalog: FakeCatalog) => void = () => {},
  folder = temporaryFolder(),
): Promise<Marketplace> {
  const { database, clock } = await memoryDatabase(entities, migrations, { service: "search" });
  const keys = await temporaryKeys();
  const { catalog, module: catalogModule } = fakeCatalog();
  prepare(catalog);
  const directory = createDirectory({ verifiers: embeddedVerifiers(keys), log: quietLog });
  directory.host([catalogModule]);
  const module = search({
    database,
    clients: directory.clientsFor(serviceTokens(keys, "search")),
    pages: pageTokens({ secret: keys.pageTokens, clock }),
    notes: notesIn(folder.path),
    index: (hooks) => sqliteIndex({ folder: folder.path, log: quietLog, ...hooks }),
  });
  await module.start?.();
  const subject = await behind(carrier, [module]);
  return {
    catalog,
    database,
    clock,
    module,
    folder: folder.path,
    client: (identity) => subject.client(SearchService, identity),
    deliver: async (...events) => module.consumers[0]?.handle(events),
    async runJobs() {
      const jobs = startJobs({ database, handlers: module.jobs });
      await jobs.runDue();
      await jobs.stop();
    },
    async close() {
      await subject.stop();
      await module.stop?.();
      await database.close();
      folder.remove();
    },
  };
}

/** A listing on sale of which a test cares about some fields. */
export function listing(over: MessageInitShape<typeof ListingSchema> = {}): Listing {
  return create(ListingSchema, {
    listingId: newId(),
    sellerId: newId(),
    state: ListingState.ACTIVE,
    title: "Seven iron",
    categoryId: "golf-clubs",
    condition: Condition.GOOD,
    price: { currencyCode: "USD", amountMinor: 1250n },
    availableUnits: 1,
    handlingDays: 2,
    shipsFrom: "US",
    createTime: timestampFromMs(1_700_000_000_000),
    updateTime: timestampFromMs(1_700_000_000_000),
    publishTime: timestampFromMs(1_700_000_000_000),
    etag: "1",
    ...over,
  } as MessageInitShape<typeof ListingSchema>);
}

const SCHEMAS = { published: ListingPublishedSchema, updated: ListingUpdatedSchema, sold: ListingSoldSchema };

/** An event of the catalog. */
export function event(kind: keyof typeof SCHEMAS, about: Listing, sequence: number, eventTime = 1_700_000_000_000): Event {
  const schema = SCHEMAS[kind];
  return create(EventSchema, {
    eventId: newId(),
    source: "catalog",
    aggregateType: "listing",
    aggregateId: about.listingId,
    sequence: BigInt(sequence),
    eventTime: timestampFromMs(eventTime),
    payload: anyPack(schema, create(schema, { listing: about })),
  });
}

/** Expects a call to fail with a reason; gives the error. */
export async function refused(call: Promise<unknown>, reason: string): Promise<ConnectError> {
  const error = await call.then(
    () => assert.fail(`expected ${reason}`),
    (thrown: unknown) => thrown,
  );
  assert.ok(error instanceof ConnectError, String(error));
  assert.equal(reasonOf(error), reason);
  return error;
}
