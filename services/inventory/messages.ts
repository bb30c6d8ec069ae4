import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { ReservationSchema, StockSchema } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import type { ReservationRow, StockRow } from "./entities.ts";
import { stateToProto } from "./states.ts";
import type { Line } from "./stock.ts";

/** A row of `stock` as the contract has it. */
export function toStock(row: StockRow): MessageInitShape<typeof StockSchema> {
  return {
    listingId: row.listing_id,
    sellerId: row.seller_id,
    availableUnits: row.available_units,
    reservedUnits: row.reserved_units,
    soldUnits: row.sold_units,
  };
}

/** A reservation and its lines as the contract has them. */
export function toReservation(row: ReservationRow, lines: readonly Line[]): MessageInitShape<typeof ReservationSchema> {
  return {
    reservationId: row.reservation_id,
    state: stateToProto(row.state),
    lines: lines.map(({ listingId, units }) => ({ listingId, units })),
    ...(row.expire_time == null ? {} : { expireTime: timestampFromMs(row.expire_time) }),
    createTime: timestampFromMs(row.create_time),
    ...(row.end_time == null ? {} : { endTime: timestampFromMs(row.end_time) }),
  };
}
