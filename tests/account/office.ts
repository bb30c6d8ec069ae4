import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { anyPack, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { EventSchema } from "#gen/marketplace/event/v1/event_pb.ts";
import { OrderCompletedSchema } from "#gen/marketplace/order/v1/events_pb.ts";
import type { OrderSchema } from "#gen/marketplace/order/v1/order_pb.ts";
import type { ManualClock } from "#runtime/clock.ts";
import type { Subscription } from "#runtime/events/bus.ts";
import { newId } from "#runtime/ids.ts";
import { pageTokens } from "#runtime/pages.ts";
import type { ServiceModule } from "#runtime/service.ts";
import { type AccountDatabase, entities } from "../../services/account/entities.ts";
import { migrations } from "../../services/account/migrations/index.ts";
import { account } from "../../services/account/service.ts";
import { memoryDatabase } from "../support/database.ts";

/** The account service with an empty database and a clock that stands still. */
export interface Office {
  readonly database: AccountDatabase;
  readonly clock: ManualClock;
  readonly module: ServiceModule;
  /** Delivers that an order is complete, as the bus does; `eventId` is a new one unless given. */
  completed(order: MessageInitShape<typeof OrderSchema>, eventId?: string): Promise<void>;
  close(): Promise<void>;
}

/** Opens one. */
export async function openOffice(): Promise<Office> {
  const { database, clock } = await memoryDatabase(entities, migrations, { service: "account" });
  const module = account({ database, pages: pageTokens({ secret: new Uint8Array(32), clock }) });
  const [consumer] = module.consumers as [Subscription];
  return {
    database,
    clock,
    module,
    completed(order, eventId = newId()) {
      const event = create(EventSchema, {
        eventId,
        source: "order",
        aggregateType: "order",
        aggregateId: order.orderId ?? "",
        sequence: 5n,
        eventTime: timestampFromMs(clock.now()),
        payload: anyPack(OrderCompletedSchema, create(OrderCompletedSchema, { order })),
      });
      return consumer.handle([event]);
    },
    close: () => database.close(),
  };
}
