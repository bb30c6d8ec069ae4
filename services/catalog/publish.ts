import type { MessageInitShape } from "@bufbuild/protobuf";
import type { CallOptions, Client, HandlerContext } from "@connectrpc/connect";
import { type PublishListingRequest, PublishListingResponseSchema } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { ListingPublishedSchema } from "#gen/marketplace/catalog/v1/events_pb.ts";
import type { InventoryService } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import { type Call, callOf } from "#runtime/call.ts";
import { deciding, followUnits, loadOwn, Overtaken, requireEditable, tell } from "./changes.ts";
import type { CatalogDatabase, CatalogTransaction, ListingRow } from "./entities.ts";
import { toListing } from "./listings.ts";

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
    const draft = await loadOwn(database, call, request.listingId);
    requireEditable(draft);
    if (draft.state === "DRAFT") {
      await inventory.setUnits(
        {
          // One key for the draft, however many try to publish it: its units are offered once.
          requestId: `${draft.listing_id}/publish`,
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
  const row = await loadOwn(tx, call, listingId);
  requireEditable(row);
  if (row.state === "ACTIVE") {
    return row;
  }
  const [published] = await activate(tx, [listingId], null);
  return published as ListingRow;
}

/**
 * Makes drafts active whose units inventory knows, and tells of each; few statements however many they are. `creationId` is the creation they
 * are part of, null for those that were drafts before. Gives the rows as they are then, in no order.
 */
export async function activate(
  tx: CatalogTransaction,
  listingIds: readonly string[],
  creationId: string | null,
): Promise<ListingRow[]> {
  const result = await tx.sql
    .updateTable("listing")
    .set((eb) => ({
      state: "ACTIVE",
      // Stock events that came before this moment were only written down; what they say holds from now on.
      available_units: eb.case().when("stock_sequence", ">", 0).then(eb.ref("available_units")).else(eb.ref("offered_units")).end(),
      publish_time: tx.now,
      creation_id: null,
      update_time: tx.now,
      version: eb("version", "+", 1),
    }))
    .where("listing_id", "in", listingIds)
    .where("state", "=", "DRAFT")
    .where("creation_id", creationId === null ? "is" : "=", creationId)
    .where("withdraw_key", "is", null)
    .executeTakeFirst();
  if (result.numUpdatedRows !== BigInt(listingIds.length)) {
    throw new Overtaken();
  }
  const published: ListingRow[] = [];
  for (const row of await tx.sql.selectFrom("listing").selectAll().where("listing_id", "in", listingIds).execute()) {
    tell(tx, ListingPublishedSchema, row);
    published.push(row.available_units > 0 ? row : await followUnits(tx, row, row));
  }
  return published;
}
