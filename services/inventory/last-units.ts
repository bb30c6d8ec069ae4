import type { Kysely } from "kysely";
import { compiledFor } from "#runtime/database/compiled.ts";
import type { InventoryTables, InventoryTransaction, StockRow } from "./entities.ts";
import { type Line, moveUpdate, tell } from "./stock.ts";

/** Whether these lines are all that is left of their stock: then only its seller can change it until they are committed or given back. */
export function areLast(rows: readonly StockRow[], lines: readonly Line[]): boolean {
  const reserved = new Map(lines.map((line) => [line.listingId, line.units]));
  return rows.every(
    (row) => row.available_units === 0 && row.reserved_units === reserved.get(row.listing_id) && row.event_sequence != null,
  );
}

/**
 * Commits units that are set aside of stock that is `known` as some transaction left it, and tells it, without a look at it: whether it still is as known decides each
 * write, and the transaction fails with `otherwise` where it is not.
 */
export async function commitLast(
  tx: InventoryTransaction,
  known: readonly StockRow[],
  lines: readonly Line[],
  reservationId: string,
  otherwise: () => Error,
): Promise<void> {
  const rows = new Map(known.map((row) => [row.listing_id, row]));
  for (const line of lines) {
    const row = rows.get(line.listingId) as StockRow;
    const sequence = row.event_sequence as number;
    await tx.must(commitKnownStock(tx.sql, { ...line, sequence }), otherwise);
    const next = {
      ...row,
      reserved_units: row.reserved_units - line.units,
      sold_units: row.sold_units + line.units,
      event_sequence: sequence + 1,
    };
    tell(tx, next, reservationId);
  }
}

const commitKnownStock = compiledFor((sql: Kysely<InventoryTables>, at: Line & { readonly sequence: number }) =>
  moveUpdate(sql, "commit", at).where("event_sequence", "=", at.sequence),
);
