import { fromBinary } from "@bufbuild/protobuf";
import { anyUnpack, timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Client } from "@connectrpc/connect";
import { EventSchema } from "#gen/marketplace/event/v1/event_pb.ts";
import { type StockChanged, StockChangedSchema } from "#gen/marketplace/inventory/v1/events_pb.ts";
import type { InventoryService } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import type { ManualClock } from "#runtime/clock.ts";
import { newId } from "#runtime/ids.ts";
import type { JobHandler } from "#runtime/jobs/jobs.ts";
import { type Jobs, startJobs } from "#runtime/jobs/jobs.ts";
import type { ServiceModule } from "#runtime/service.ts";
import { entities, type InventoryDatabase } from "../../services/inventory/entities.ts";
import { migrations } from "../../services/inventory/migrations/index.ts";
import { inventory } from "../../services/inventory/service.ts";
import { memoryDatabase } from "../support/database.ts";

/** Inventory with an empty database and a clock that stands still. */
export interface Storehouse {
  readonly database: InventoryDatabase;
  readonly clock: ManualClock;
  readonly module: ServiceModule;
  readonly jobs: Jobs;
  readonly expire: JobHandler;
  /** What was told of listings, in the order of writing, by listing. */
  told(): Promise<Map<string, StockChanged[]>>;
  close(): Promise<void>;
}

/** Opens one. */
export async function openStorehouse(): Promise<Storehouse> {
  const { database, clock } = await memoryDatabase(entities, migrations, { service: "inventory" });
  const module = inventory({ database });
  const jobs = startJobs({ database, handlers: module.jobs, pollMs: 3_600_000 });
  return {
    database,
    clock,
    module,
    jobs,
    expire: module.jobs[0] as JobHandler,
    async told() {
      const rows = await database.sql.selectFrom("outbox").select(["aggregate_id", "event"]).orderBy("sequence").execute();
      const told = new Map<string, StockChanged[]>();
      for (const row of rows) {
        const { payload } = fromBinary(EventSchema, row.event);
        const change = payload && anyUnpack(payload, StockChangedSchema);
        told.set(row.aggregate_id, [...(told.get(row.aggregate_id) ?? []), change as StockChanged]);
      }
      return told;
    },
    async close() {
      await jobs.stop();
      await database.close();
    },
  };
}

type Inventory = Client<typeof InventoryService>;

/** Offers units of a new listing; gives its id. */
export async function offer(catalog: Inventory, units: number, sellerId = newId()): Promise<string> {
  const listingId = newId();
  await catalog.setUnits({ requestId: newId(), listingId, sellerId, units });
  return listingId;
}

/** Reserves by a service's client; `requestId` is a new one unless given. */
export function reserve(
  order: Inventory,
  clock: ManualClock,
  reservationId: string,
  lines: readonly (readonly [listingId: string, units: number])[],
  options: { requestId?: string; lifetimeMs?: number } = {},
) {
  return order.reserve({
    requestId: options.requestId ?? newId(),
    reservationId,
    lines: lines.map(([listingId, units]) => ({ listingId, units })),
    expireTime: timestampFromMs(clock.now() + (options.lifetimeMs ?? 60_000)),
  });
}

/** The units of a listing as [available, reserved, sold]. */
export async function unitsOf(anyone: Inventory, listingId: string): Promise<[number, number, number]> {
  const { stock } = await anyone.getAvailability({ listingId });
  return [stock?.availableUnits ?? -1, stock?.reservedUnits ?? -1, stock?.soldUnits ?? -1];
}
