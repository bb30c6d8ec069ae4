import type { MessageInitShape } from "@bufbuild/protobuf";
import type { CallOptions, Client, HandlerContext } from "@connectrpc/connect";
import { type PublishListingRequest, PublishListingResponseSchema } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { ListingPublishedSchema } from "#gen/marketplace/catalog/v1/events_pb.ts";
import type { InventoryService } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import { type Call, callOf } from "#runtime/call.ts";
import { fail } from "#runtime/errors.ts";
import { change, deciding, followUnits, loadOwn, tell } from "./changes.ts";
import type { CatalogDatabase, CatalogTransaction, ListingRow } from "./entities.ts";
import { LISTING_NOT_EDITABLE } from "./errors.ts";
import { toListing } from "./listings.ts";

/** The key under which inventory learns of a listing's units for the first time: once in its life, however many try to publish it. */
export function publishKey(listingId: string): string {
  return `${listingId}/publish`;
}

/** Serves PublishListing: inventory first, then the listing and its event in one transaction. `options` go with the call to inventory. */
export function publishing(database: CatalogDatabase, inventory: Client<typeof InventoryService>) {
  return async (
    request: PublishListingRequest,
    context: HandlerContext,
    options: CallOptions,
  ): Promise<MessageInitShape<typeof PublishListingResponseSchema>> => {
    const stored = await database.answered(request, context, PublishListingResponseSchema);
    if (stored !== undefined) {
      return stored;
    }
    const call = callOf(context);
    const draft = requirePublishable(await loadOwn(database, call, request.listingId));
    if (draft.state === "DRAFT") {
      await inventory.setUnits(
        {
          requestId: publishKey(draft.listing_id),
          listingId: draft.listing_id,
          sellerId: draft.seller_id,
          units: draft.offered_units,
        },
        options,
      );
    }
    return database.command(request, context, async (tx) => {
      const row = await deciding(() => publishIn(tx, call, request.listingId));
      return { listing: toListing(row) };
    });
  };
}

async function publishIn(tx: CatalogTransaction, call: Call, listingId: string): Promise<ListingRow> {
  const row = requirePublishable(await loadOwn(tx, call, listingId));
  if (row.state === "ACTIVE") {
    return row;
  }
  const heard = row.stock_sequence > 0;
  const published = await change(tx, row, {
    state: "ACTIVE",
    publish_time: row.publish_time ?? tx.now,
    available_units: heard ? row.available_units : row.offered_units,
  });
  tell(tx, ListingPublishedSchema, published);
  // Stock events that came before this moment were only written down; what they say holds from now on.
  return heard ? followUnits(tx, published, published) : published;
}

function requirePublishable(row: ListingRow): ListingRow {
  if ((row.state !== "DRAFT" && row.state !== "ACTIVE") || row.withdraw_key != null) {
    fail(LISTING_NOT_EDITABLE, { metadata: { listing_id: row.listing_id, state: row.state } });
  }
  return row;
}
