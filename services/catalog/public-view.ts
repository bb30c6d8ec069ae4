import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import type { GenMessage } from "@bufbuild/protobuf/codegenv2";
import { anyUnpack, timestampMs } from "@bufbuild/protobuf/wkt";
import { type Listing, ListingSchema, ListingState } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import {
  type ListingPublished,
  ListingPublishedSchema,
  ListingReactivatedSchema,
  ListingReservedSchema,
  ListingSoldSchema,
  ListingUpdatedSchema,
  ListingWithdrawnSchema,
} from "#gen/marketplace/catalog/v1/events_pb.ts";
import type { Event } from "#gen/marketplace/event/v1/event_pb.ts";
import { Cache, type Loaded } from "#runtime/cache/cache.ts";
import type { Kept, OpenCacheStore } from "#runtime/cache/stores.ts";
import { type Subscription, typeOf } from "#runtime/events/bus.ts";
import type { CatalogDatabase } from "./entities.ts";
import { type ReadRow, toListing } from "./listings.ts";
import { publicStates } from "./states.ts";

/** How long a listing may be kept: the longest that a change can stay unseen when every word of it was lost. */
const TTL_MS = 60_000;
/** The same for what the public does not see, or what is not there. */
const NOTHING_TTL_MS = 5_000;
/** The age of an event that no entry can be older than. */
const FORGET_AFTER_MS = 2 * TTL_MS;
/** To be raised when stored bytes would be misunderstood: a field changed its meaning, or what is hidden is hidden in another way. */
const FORMAT = 1;

/** The catalog's events, all of which carry the listing as it is after them. */
const EVENTS = [
  ListingPublishedSchema,
  ListingUpdatedSchema,
  ListingReservedSchema,
  ListingReactivatedSchema,
  ListingSoldSchema,
  ListingWithdrawnSchema,
] as readonly GenMessage<Pick<ListingPublished, "listing"> & ListingPublished>[];
const SCHEMAS = new Map(EVENTS.map((schema) => [schema.typeName as string, schema]));

/** Listings in the store: never what the public may not see. */
export const kept: Kept<Listing> = {
  codec: { encode: (listing) => toBinary(ListingSchema, listing), decode: (bytes) => fromBinary(ListingSchema, bytes) },
  sizeOf: (listing) => 2_000 + 2 * (listing.title.length + listing.description.length),
  maxBytes: 64 * 1024 * 1024,
};

/** The listings as everybody sees them, remembered. */
export interface PublicView {
  /** What the public sees of the listings, in their order. What it does not see has no state; who sells it is said all the same. */
  get(listingIds: readonly string[]): Promise<Listing[]>;
  /** Hears the catalog's own events: whoever changed a listing may have died before the cache was told. */
  readonly consumer: Subscription;
  close(): void;
}

/** Whether there is something that the public sees. */
export function isShown(listing: Listing): boolean {
  return listing.state !== ListingState.UNSPECIFIED;
}

/** Remembers what the public sees. `read` reads rows from the table, in any order. */
export function publicView(
  database: CatalogDatabase,
  openStore: OpenCacheStore,
  read: (listingIds: readonly string[]) => Promise<readonly ReadRow[]>,
): PublicView {
  const cache = new Cache<Listing>({
    name: "listing",
    format: FORMAT,
    store: openStore(kept),
    observer: database.observer,
    load: async (listingIds) => {
      const loaded = new Map(listingIds.map((listingId) => [listingId, nothing]));
      for (const row of await read(listingIds)) loaded.set(row.listing_id, seen(row));
      return loaded;
    },
  });
  const end = database.onCommit(({ changes }) => {
    const listings = changes.filter(({ kind }) => kind === "listing");
    // What cannot be told now is told by the event.
    if (listings.length > 0) void cache.changed(listings);
  });
  return {
    get: (listingIds) => cache.get(listingIds),
    consumer: {
      consumer: "catalog.cache",
      service: database.service,
      types: [...SCHEMAS.keys()],
      async handle(events) {
        const recent = events.filter((event) => database.clock.now() - timeOf(event) < FORGET_AFTER_MS);
        // They come again until the cache has taken them, or until nothing older can be in it any more.
        if (!(await cache.changed(recent.map(changeOf)))) throw new Error("the cache cannot be told of changes now.");
      },
    },
    close() {
      end();
      cache.close();
    },
  };
}

const nothing: Loaded<Listing> = { value: create(ListingSchema), version: 0, ttlMs: NOTHING_TTL_MS };

function seen(row: ReadRow): Loaded<Listing> {
  return publicStates.includes(row.state)
    ? { value: toListing(row), version: row.version, ttlMs: TTL_MS }
    : { value: create(ListingSchema, { sellerId: row.seller_id }), version: row.version, ttlMs: NOTHING_TTL_MS };
}

function changeOf(event: Event): { id: string; version: number } {
  const schema = SCHEMAS.get(typeOf(event));
  const listing = event.payload && schema && anyUnpack(event.payload, schema)?.listing;
  return { id: event.aggregateId, version: Number(listing?.etag ?? 0) };
}

function timeOf({ eventTime }: Event): number {
  return eventTime === undefined ? 0 : timestampMs(eventTime);
}
