import { StockChangedSchema } from "#gen/marketplace/inventory/v1/events_pb.ts";
import type { Stock } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import type { Subscription } from "#runtime/events/bus.ts";
import { inboxConsumer, on } from "#runtime/events/inbox.ts";
import { deciding, followUnits } from "./changes.ts";
import type { CatalogDatabase, CatalogTables, CatalogTransaction } from "./entities.ts";
import { loadListing } from "./listings.ts";

/** Events applied in one transaction. */
const BATCH_SIZE = 250;

/** Hears from inventory how many units are left, and lets listings follow. */
export function stockConsumer(database: CatalogDatabase): Subscription {
  return inboxConsumer<CatalogTables>({
    database,
    name: "catalog.stock",
    batchSize: BATCH_SIZE,
    on: [
      on<typeof StockChangedSchema, CatalogTables>(StockChangedSchema, async (tx, { stock }, event) => {
        if (stock !== undefined) {
          await deciding(() => applyStock(tx, stock, Number(event.sequence)));
        }
      }),
    ],
  });
}

/** Takes over what a stock event says, unless a later one has been taken over. */
export async function applyStock(tx: CatalogTransaction, stock: Stock, sequence: number): Promise<void> {
  const row = await loadListing(tx.sql, stock.listingId);
  // Without a row the units are of a listing that this catalog never had.
  if (row === undefined || row.stock_sequence >= sequence) {
    return;
  }
  await followUnits(tx, row, {
    available_units: stock.availableUnits,
    reserved_units: stock.reservedUnits,
    stock_sequence: sequence,
  });
}
