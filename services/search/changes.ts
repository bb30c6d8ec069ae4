import type { GenMessage } from "@bufbuild/protobuf/codegenv2";
import { anyUnpack, timestampMs } from "@bufbuild/protobuf/wkt";
import { type Listing, ListingState } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
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
import { type Replica, type Subscription, typeOf } from "#runtime/events/bus.ts";
import type { Log } from "#runtime/log.ts";
import type { Change, SearchIndex } from "./index.ts";

/** Events applied at once. Larger batches cost less each; one stands in the way of the next by some 15 ms. */
const BATCH_SIZE = 250;

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

/** What a listing at a moment means for the index: on sale like this, or not on sale. */
export function changeOf(listing: Listing, sequence: bigint): Change {
  const change = { listingId: listing.listingId, sequence: Number(sequence) };
  if (listing.state !== ListingState.ACTIVE || listing.price === undefined) {
    return change;
  }
  return {
    ...change,
    document: {
      sellerId: listing.sellerId,
      title: listing.title,
      brand: listing.brand,
      description: listing.description,
      categoryId: listing.categoryId,
      condition: listing.condition,
      currencyCode: listing.price.currencyCode,
      priceMinor: Number(listing.price.amountMinor),
      photoUrl: listing.photos[0]?.url ?? "",
      publishTime: timeOf(listing.publishTime ?? listing.createTime),
    },
  };
}

/**
 * Feeds the index with the catalog's events. There are no inbox rows: the index is not in this service's database, so row and effect could not be one transaction.
 * It keeps the sequence of the last event of each listing instead, and skips what is not newer, which drops doubles just as well. While the index
 * cannot take events they are not confirmed, so they come again.
 */
export function listingConsumer(index: SearchIndex, replica: Replica, log: Log): Subscription {
  return {
    replica,
    consumer: "search.index",
    service: "search",
    types: [...SCHEMAS.keys()],
    batchSize: BATCH_SIZE,
    async handle(events) {
      const changes = events.flatMap((event) => {
        const listing = listingIn(event);
        if (listing === undefined) {
          // Trying again would not help, and holding it back would hold back the others. A rebuild repairs it.
          log.error(
            { eventId: event.eventId, type: typeOf(event) },
            "an event holds no listing; the index misses it until a reindex",
          );
          return [];
        }
        return [changeOf(listing, event.sequence)];
      });
      await index.apply(changes, Math.max(0, ...events.map((event) => timeOf(event.eventTime))));
    },
  };
}

function listingIn(event: Event): Listing | undefined {
  const schema = SCHEMAS.get(typeOf(event));
  try {
    return event.payload && schema && anyUnpack(event.payload, schema)?.listing;
  } catch {
    return undefined;
  }
}

function timeOf(time: Event["eventTime"]): number {
  return time === undefined ? 0 : timestampMs(time);
}
