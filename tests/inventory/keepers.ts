import { setImmediate as tick } from "node:timers/promises";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Client } from "@connectrpc/connect";
import { type InventoryService, ReservationState } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import { reasonOf } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import type { Fate, Told } from "./audit.ts";
import type { Storehouse } from "./storehouse.ts";

/** How a reservation ended. */
export type End = "COMMITTED" | "RELEASED" | "EXPIRED";

/** Two listings, five reservations; reservation 4 wants both listings, and 3 lives a shorter time. */
export const wants: readonly (readonly [listing: number, units: number][])[] = [
  [[0, 1]],
  [[0, 2]],
  [[1, 1]],
  [[0, 1]],
  [
    [1, 1],
    [0, 1],
  ],
];
/** The reservation with the short time. */
export const SHORT = 3;
const SHORT_MS = 10_000;

/** What the properties drive: the service, or a naive one. Each answers undefined where it refuses. */
export interface Keeper {
  setUnits(listing: number, units: number): Promise<void>;
  reserve(reservation: number): Promise<true | undefined>;
  end(reservation: number, how: "commit" | "release"): Promise<End | undefined>;
  /** Lets the short reservation's time run out. */
  expire(): Promise<void>;
  facts(): Promise<{ told: Map<string, Told[]>; states: (Fate["state"] | undefined)[]; check: string[] }>;
}

/** The real service with listings and reservations of its own, so that one database serves all runs. */
export function realKeeper(
  house: Storehouse,
  { order, catalog, ops }: Record<"order" | "catalog" | "ops", Client<typeof InventoryService>>,
): Keeper {
  const listingIds = [newId(), newId()];
  const ids = wants.map(() => newId());
  const sellerId = newId();
  const shortTime = house.clock.now() + SHORT_MS;
  const refusal = (error: unknown) => {
    if (/^(OUT_OF_STOCK|LISTING_NOT_FOUND|EXPIRE_TIME_INVALID|RESERVATION_\w+)$/.test(reasonOf(error) ?? "")) return undefined;
    throw error;
  };
  const names = Object.entries(ReservationState);
  const stateName = (state: number | undefined) => names.find(([, value]) => value === state)?.[0] as Fate["state"];
  return {
    async setUnits(listing, units) {
      await catalog.setUnits({ requestId: newId(), listingId: listingIds[listing] as string, sellerId, units });
    },
    reserve(index) {
      const lines = (wants[index] ?? []).map(([listing, units]) => ({ listingId: listingIds[listing] as string, units }));
      const expireTime = timestampFromMs(index === SHORT ? shortTime : house.clock.now() + 3_600_000);
      const request = { requestId: newId(), reservationId: ids[index] as string, lines, expireTime };
      return order.reserve(request).then(() => true as const, refusal);
    },
    end(index, how) {
      const request = { requestId: newId(), reservationId: ids[index] as string };
      const answer = how === "commit" ? order.commitReservation(request) : order.releaseReservation(request);
      return answer.then(({ reservation: ended }) => stateName(ended?.state) as End, refusal);
    },
    async expire() {
      house.clock.set(Math.max(house.clock.now(), shortTime));
      await house.expire.run({ key: ids[SHORT] as string, attempt: 1, signal: new AbortController().signal });
    },
    async facts() {
      const all = await house.told();
      const told = new Map(
        listingIds.map((id, listing) => [
          String(listing),
          (all.get(id) ?? []).map(({ stock, reservationId }) => ({
            available: stock?.availableUnits ?? -1,
            reserved: stock?.reservedUnits ?? -1,
            sold: stock?.soldUnits ?? -1,
            reservationId: reservationId === "" ? "" : String(ids.indexOf(reservationId)),
          })),
        ]),
      );
      const states = await Promise.all(
        ids.map((reservationId) =>
          order.getReservation({ reservationId }).then(({ reservation: found }) => stateName(found?.state), refusal),
        ),
      );
      return { told, states, check: (await ops.checkStock({})).findings };
    },
  };
}

/** What is written first and is wrong: it reads, decides, and writes what it decided. */
export function naiveKeeper(): Keeper {
  const rows = [0, 1].map(() => ({ available: 0, reserved: 0, sold: 0 }));
  const states: (Fate["state"] | undefined)[] = wants.map(() => undefined);
  const told = new Map<string, Told[]>([
    ["0", []],
    ["1", []],
  ]);
  const write = async (listing: number, reservationId: string, change: (row: (typeof rows)[number]) => void) => {
    const row = { ...(rows[listing] as (typeof rows)[number]) };
    change(row);
    await tick();
    rows[listing] = row;
    told.get(String(listing))?.push({ ...row, reservationId });
  };
  const end = async (index: number, state: End) => {
    for (const [listing, units] of wants[index] ?? []) {
      await write(listing, String(index), (row) => {
        row.reserved -= units;
        row[state === "COMMITTED" ? "sold" : "available"] += units;
      });
    }
    states[index] = state;
    return state;
  };
  return {
    setUnits: (listing, units) =>
      write(listing, "", (row) => {
        row.available = units;
      }),
    async reserve(index) {
      const lines = wants[index] ?? [];
      if (states[index] !== undefined) return undefined;
      if (lines.some(([listing, units]) => (rows[listing]?.available ?? 0) < units)) return undefined;
      for (const [listing, units] of lines) {
        await write(listing, String(index), (row) => {
          row.available -= units;
          row.reserved += units;
        });
      }
      states[index] = "PENDING";
      return true;
    },
    end: async (index, how) =>
      states[index] === "PENDING" ? await end(index, how === "commit" ? "COMMITTED" : "RELEASED") : undefined,
    async expire() {
      if (states[SHORT] === "PENDING") await end(SHORT, "EXPIRED");
    },
    facts: async () => ({ told, states, check: [] }),
  };
}
