import { ListingPublishedSchema } from "#gen/marketplace/catalog/v1/events_pb.ts";
import { followUnits, Overtaken, tell } from "./changes.ts";
import type { CatalogTransaction, ListingRow } from "./entities.ts";

/**
 * Makes drafts active whose units inventory knows, and tells of each; few statements however many they are. `creationId` is the creation they
 * are part of. Gives the rows as they are then, in no order.
 */
export async function activate(tx: CatalogTransaction, listingIds: readonly string[], creationId: string): Promise<ListingRow[]> {
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
    .where("creation_id", "=", creationId)
    .where("withdraw_key", "is", null)
    .executeTakeFirst();
  if (result.numUpdatedRows !== BigInt(listingIds.length)) {
    throw new Overtaken();
  }
  const published: ListingRow[] = [];
  for (const row of await tx.sql.selectFrom("listing").selectAll().where("listing_id", "in", listingIds).execute()) {
    tx.changed({ kind: "listing", id: row.listing_id, version: row.version });
    tell(tx, ListingPublishedSchema, row);
    published.push(row.available_units > 0 ? row : await followUnits(tx, row, row));
  }
  return published;
}
