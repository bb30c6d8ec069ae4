import type { ServiceImpl } from "@connectrpc/connect";
import { InventoryService } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import type { ServiceModule } from "#runtime/service.ts";
import { failLacking } from "../../../services/inventory/counter.ts";
import type { InventoryDatabase, InventoryTransaction, ReservationRow } from "../../../services/inventory/entities.ts";
import { toReservation } from "../../../services/inventory/messages.ts";
import { type Reserved, reserve, type Wanted, wantedOf } from "../../../services/inventory/reservations.ts";
import { inventory } from "../../../services/inventory/service.ts";
import { loadStock, tellStock } from "../../../services/inventory/stock.ts";

/** `naive` reads, decides and writes what it decided; `unordered` is ours, but takes its rows in the order of the request, and lets everybody begin. */
export type Variant = "ours" | "naive" | "unordered";

/** Inventory as it is, or with another `Reserve`. */
export function variant(name: Variant, database: InventoryDatabase): ServiceModule {
  const ours = inventory({ database });
  if (name === "ours") return ours;
  const take = name === "naive" ? readThenWrite : reserve;
  return {
    ...ours,
    routes(router) {
      ours.routes({
        service(_contract: unknown, implementation: ServiceImpl<typeof InventoryService>) {
          router.service(InventoryService, {
            ...implementation,
            reserve: (request, context) =>
              database.command(request, context, async (tx) => {
                const { row, lines } = await take(tx, { ...wantedOf(request), lines: request.lines });
                return { reservation: toReservation(row, lines) };
              }),
          });
        },
      } as never);
    },
  };
}

/** What is written first and is wrong: right when nobody else is there, and every constraint of the tables holds for what it writes. */
async function readThenWrite(tx: InventoryTransaction, { reservationId, lines, expireTime }: Wanted): Promise<Reserved> {
  const listingIds = lines.map((line) => line.listingId);
  const stock = new Map((await loadStock(tx.sql, listingIds)).map((row) => [row.listing_id, row]));
  for (const line of lines) {
    const availableUnits = stock.get(line.listingId)?.available_units;
    if ((availableUnits ?? 0) < line.units) failLacking({ line, availableUnits });
  }
  const row: ReservationRow = {
    reservation_id: reservationId,
    state: "PENDING",
    expire_time: expireTime,
    create_time: tx.now,
    end_time: null,
    watch_time: expireTime,
  };
  await tx.sql.insertInto("reservation").values(row).execute();
  for (const { listingId, units } of lines) {
    const read = stock.get(listingId);
    if (read === undefined) continue;
    await tx.sql
      .updateTable("stock")
      .set((eb) => ({
        available_units: read.available_units - units,
        reserved_units: read.reserved_units + units,
        event_sequence: eb("event_sequence", "+", 1),
      }))
      .where("listing_id", "=", listingId)
      .execute();
  }
  const rows = lines.map((line) => ({ reservation_id: reservationId, listing_id: line.listingId, units: line.units }));
  await tx.sql.insertInto("reservation_line").values(rows).execute();
  await tellStock(tx, listingIds, reservationId);
  return { row, lines };
}
