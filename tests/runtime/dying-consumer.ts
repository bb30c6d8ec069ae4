// A process that takes events of a consumer, says so, and never finishes with them.

import { StockChangedSchema } from "#gen/marketplace/inventory/v1/events_pb.ts";
import { redisBus } from "#runtime/events/redis-bus.ts";
import { quietLog } from "../support/database.ts";

const [url = "", prefix = "", consumer = ""] = process.argv.slice(2);
redisBus({ url, log: quietLog, prefix, consumers: [consumer], leaseMs: 600 }).subscribe({
  consumer,
  service: "test",
  types: [StockChangedSchema.typeName],
  handle: () => {
    console.log("taken");
    return new Promise(() => {});
  },
});
