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
import { pack, unpack } from "./packed.ts";
import { publicStates, stateToProto } from "./states.ts";

/** How long a listing may be kept: the longest that a change can stay unseen when every word of it was lost. */
const TTL_MS = 60_000;
/** The same for what the public does not see, or what is not there. */
const NOTHING_TTL_MS = 5_000;
/** The age of an event that no entry can be older than. */
const FORGET_AFTER_MS = 2 * TTL_MS;
/** To be raised when stored bytes would be misunderstood: a field changed its meaning, or what is hidden is hidden in another way. */
const FORMAT = 2;

/** The first byte of a packed listing: no tag of protobuf's, because there is no wire type 7. */
const PACKED = "\x1f";

const SHOWN: ReadonlySet<ListingState> = new Set(publicStates.map(stateToProto));

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
  codec: { encode, decode },
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

/** Remembers what the public sees. `read` reads what the table has, in any order. */
export function publicView(
  database: CatalogDatabase,
  openStore: OpenCacheStore,
  read: (listingIds: readonly string[]) => Promise<readonly Listing[]>,
): PublicView {
  const cache = new Cache<Listing>({
    name: "listing",
    format: FORMAT,
    store: openStore(kept),
    observer: database.observer,
    load: async (listingIds) => {
      const loaded = new Map(listingIds.map((listingId) => [listingId, nothing]));
      for (const listing of await read(listingIds)) loaded.set(listing.listingId, seen(listing));
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

function seen(listing: Listing): Loaded<Listing> {
  const version = Number(listing.etag);
  return SHOWN.has(listing.state)
    ? { value: listing, version, ttlMs: TTL_MS }
    : { value: create(ListingSchema, { sellerId: listing.sellerId }), version, ttlMs: NOTHING_TTL_MS };
}

/** Packed, since that is decoded four times as fast; else as protobuf, which never begins with this byte. */
function encode(listing: Listing): Uint8Array {
  const packed = isShown(listing) ? pack(listing) : undefined;
  return packed === undefined ? toBinary(ListingSchema, listing) : Buffer.from(PACKED + packed);
}

function decode(bytes: Uint8Array): Listing {
  if (bytes[0] !== PACKED.charCodeAt(0)) return fromBinary(ListingSchema, bytes);
  const listing = unpack(bytes, 1);
  if (listing === undefined) throw new Error("the packed listing has other fields than this program's.");
  return listing;
}

function changeOf(event: Event): { id: string; version: number } {
  const schema = SCHEMAS.get(typeOf(event));
  const listing = event.payload && schema && anyUnpack(event.payload, schema)?.listing;
  return { id: event.aggregateId, version: Number(listing?.etag ?? 0) };
}

function timeOf({ eventTime }: Event): number {
  return eventTime === undefined ? 0 : timestampMs(eventTime);
}
