import type { MessageInitShape } from "@bufbuild/protobuf";
import type { HandlerContext } from "@connectrpc/connect";
import {
  InventoryService,
  type ReserveRequest,
  ReserveResponseSchema,
  type SetUnitsRequest,
} from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import { accountIfAny, accountOf, type Call, callOf, isService } from "#runtime/call.ts";
import { commandKey } from "#runtime/database/replay.ts";
import { fail, INVALID_REQUEST, reasonOf } from "#runtime/errors.ts";
import { Recent } from "#runtime/recent.ts";
import type { ServiceModule } from "#runtime/service.ts";
import { checkStock } from "./check.ts";
import { failLacking, openCounter } from "./counter.ts";
import type { InventoryDatabase, StockRow } from "./entities.ts";
import { LISTING_NOT_FOUND, OUT_OF_STOCK, RESERVATION_NOT_FOUND } from "./errors.ts";
import { toReservation, toStock } from "./messages.ts";
import {
  commit,
  commitKnown,
  expiry,
  loadReservation,
  type Made,
  NotAsKnown,
  type Reserved,
  release,
  requireLifetime,
  reserve,
  seenBefore,
  wantedOf,
} from "./reservations.ts";
import { loadStock, setUnits } from "./stock.ts";

/** How many reservations a process remembers between making them and their end. */
const RECENT_MAX = 1_000;

/** What inventory is made of. */
export interface InventoryDependencies {
  readonly database: InventoryDatabase;
}

/** Inventory: units behind listings, and their reservations. */
export function inventory({ database }: InventoryDependencies): ServiceModule {
  const recent = new Recent<Made>(RECENT_MAX);
  const reserveAtCounter = reserving(database, recent);
  return {
    name: "inventory",
    database,
    consumers: [],
    jobs: [expiry(database)],
    recurring: [],
    routes(router) {
      router.service(InventoryService, {
        setUnits(request, context) {
          const call = callOf(context);
          return database.command(request, context, async (tx) => {
            const [row] = await setUnits(tx, [request], {
              sellerId: sellerOf(call, request),
              mayCreate: isService(call),
              expectedUnits: request.expectedUnits,
              refuseIfReserved: request.refuseIfReserved,
            });
            return { stock: toStock(row as StockRow) };
          });
        },

        batchSetUnits(request, context) {
          const { sellerId, listings } = request;
          if (new Set(listings.map((listing) => listing.listingId)).size < listings.length) {
            fail(INVALID_REQUEST, { violations: [{ field: "listings", description: "names a listing twice" }] });
          }
          return database.command(request, context, async (tx) => {
            await setUnits(tx, listings, { sellerId, mayCreate: true, keepExisting: true });
            return {};
          });
        },

        async getAvailability({ listingId }) {
          const [row] = await loadStock(database.sql, [listingId]);
          return row === undefined ? fail(LISTING_NOT_FOUND, { metadata: { listing_id: listingId } }) : { stock: toStock(row) };
        },

        async batchGetAvailability({ listingIds }) {
          const rows = new Map((await loadStock(database.sql, listingIds)).map((row) => [row.listing_id, row]));
          const stocks = listingIds.map((id) => rows.get(id)).filter((row) => row !== undefined);
          return { stocks: stocks.map(toStock) };
        },

        reserve: reserveAtCounter,

        async commitReservation(request, context) {
          const known = recent.take(request.reservationId);
          if (known !== undefined) {
            try {
              return await database.command(request, context, async (tx) => answer(await commitKnown(tx, known)));
            } catch (error) {
              if (!(error instanceof NotAsKnown)) {
                throw error;
              }
            }
          }
          return database.command(request, context, async (tx) => answer(await commit(tx, request.reservationId)));
        },

        releaseReservation(request, context) {
          return database.command(request, context, async (tx) => answer(await release(tx, request.reservationId)));
        },

        async getReservation({ reservationId }) {
          const reserved = await loadReservation(database.sql, reservationId);
          return reserved === undefined
            ? fail(RESERVATION_NOT_FOUND, { metadata: { reservation_id: reservationId } })
            : answer(reserved);
        },

        async checkStock(_request, context) {
          const { listings, findings } = await checkStock(database.sql, callOf(context).signal);
          return { listingsChecked: BigInt(listings), findings: [...findings] };
        },
      });
    },
  };
}

/** Reserves for those whom the counter lets in. The others are told by reads alone, unless they are repeats, whose answer is known. */
function reserving(database: InventoryDatabase, recent: Recent<Made>) {
  const counter = openCounter(database);
  const seen = seenBefore(database);
  return async (request: ReserveRequest, context: HandlerContext): Promise<MessageInitShape<typeof ReserveResponseSchema>> => {
    const wanted = wantedOf(request);
    const take = () =>
      database.command(request, context, async (tx) => {
        const reserved = await reserve(tx, wanted);
        tx.afterCommit(() => recent.set(wanted.reservationId, reserved));
        return answer(reserved);
      });
    const place = await counter.enter(wanted.lines, callOf(context));
    if ("leave" in place) {
      return take()
        .catch((error: unknown) => {
          if (reasonOf(error) === OUT_OF_STOCK.name) {
            place.tooLate();
          }
          throw error;
        })
        .finally(place.leave);
    }
    // Read after the stock: if this very reservation took the units, it is seen now.
    if (await seen(commandKey(request, context), wanted.reservationId)) {
      return (await database.answered(request, context, ReserveResponseSchema)) ?? take();
    }
    requireLifetime(wanted.expireTime, database.clock.now());
    return failLacking(place);
  };
}

function answer({ row, lines }: Reserved) {
  return { reservation: toReservation(row, lines) };
}

/** The seller whose listing it is: the account that calls; from a service the one it names. */
function sellerOf(call: Call, request: SetUnitsRequest): string {
  if (!isService(call)) {
    return accountOf(call);
  }
  return (
    (request.sellerId || accountIfAny(call)) ??
    fail(INVALID_REQUEST, { violations: [{ field: "seller_id", description: "is needed from a service" }] })
  );
}
