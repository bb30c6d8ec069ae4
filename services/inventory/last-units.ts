import type { Kysely } from "kysely";
import { compiledFor } from "#runtime/database/compiled.ts";
import type { InventoryTables, InventoryTransaction, StockRow } from "./entities.ts";
import { type Line, moved, moves, tell } from "./stock.ts";

/** Whether these lines hold all there is of their stock: then only its seller can change it before they are sold or given back. */
export function holdAll(rows: readonly StockRow[], lines: readonly Line[]): boolean {
  const held = new Map(lines.map((line) => [line.listingId, line.units]));
  return rows.every(
    (row) => row.available_units === 0 && row.reserved_units === held.get(row.listing_id) && row.event_sequence != null,
  );
}

/**
 * Sells units that are set aside of stock that is `known` as some transaction left it, and tells it, without a look at it: whether it still is as known decides each
 * write, and the transaction fails with `otherwise` where it is not.
 */
export async function sellKnown(
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
    await tx.must(sellingKnown(tx.sql, { ...line, sequence }), otherwise);
    const next = {
      ...row,
      reserved_units: row.reserved_units - line.units,
      sold_units: row.sold_units + line.units,
      event_sequence: sequence + 1,
    };
    tell(tx, next, reservationId);
  }
}

const sellingKnown = compiledFor((sql: Kysely<InventoryTables>, at: Line & { readonly sequence: number }) =>
  moved(sql, moves.commit, at).where("event_sequence", "=", at.sequence),
);
