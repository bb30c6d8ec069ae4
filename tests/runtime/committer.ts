import { StockChangedSchema } from "#gen/marketplace/inventory/v1/events_pb.ts";
import { systemClock } from "#runtime/clock.ts";
import { openDatabase } from "#runtime/database/database.ts";
import { newId } from "#runtime/ids.ts";
import { quietLog } from "../support/database.ts";
import { Pot, pot, potMigrations } from "./pots.ts";

// The program that a test kills: it commits a pot and its event again and again, and prints each id once it is acknowledged.
const database = await openDatabase({
  service: "pots",
  url: process.argv[2] ?? "",
  entities: [Pot],
  migrations: potMigrations,
  clock: systemClock,
  log: quietLog,
});
for (;;) {
  const id = newId();
  await database.transaction(async (tx) => {
    await tx.sql.insertInto("pot").values(pot(id)).execute();
    tx.append({ aggregateType: "stock", aggregateId: id, schema: StockChangedSchema, message: {} });
  });
  process.stdout.write(`${id}\n`);
}
