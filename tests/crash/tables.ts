import type { EntityName } from "@mikro-orm/core";
import { systemClock } from "#runtime/clock.ts";
import { type Database, openDatabase } from "#runtime/database/database.ts";
import type { Migration } from "#runtime/database/migrations.ts";
import type { AccountDatabase } from "../../services/account/entities.ts";
import type { CatalogDatabase } from "../../services/catalog/entities.ts";
import type { InventoryDatabase } from "../../services/inventory/entities.ts";
import type { OrderDatabase } from "../../services/order/entities.ts";
import type { PaymentDatabase } from "../../services/payment/entities.ts";
import type { SearchDatabase } from "../../services/search/entities.ts";
import { type ServiceWithTables, TABLES } from "../../services/tables.ts";
import { quietLog } from "../support/database.ts";
import type { Fleet } from "../support/processes.ts";

/** Everybody's tables, to look into. */
export interface AllTables {
  readonly account: AccountDatabase;
  readonly catalog: CatalogDatabase;
  readonly inventory: InventoryDatabase;
  readonly order: OrderDatabase;
  readonly payment: PaymentDatabase;
  readonly search: SearchDatabase;
}

/** Opens the databases of a fleet, which has made their tables. */
export async function openTables(fleet: Fleet): Promise<AllTables & { close(): Promise<void> }> {
  const opened = await Promise.all(
    (Object.keys(TABLES) as ServiceWithTables[]).map(async (service) => {
      const { entities, migrations }: { entities: readonly EntityName[]; migrations: readonly Migration[] } = TABLES[service];
      const url = `${fleet.databaseUrl(service)}?pool=2`;
      const options = { service, url, entities, migrations, migrate: false, clock: systemClock, log: quietLog };
      return [service, await openDatabase(options)] as const;
    }),
  );
  const tables = Object.fromEntries(opened) as unknown as AllTables;
  return {
    ...tables,
    close: async () => {
      await Promise.all(opened.map(([, database]) => database.close()));
    },
  };
}

/** The databases, for what all have alike. */
export function eachOf(tables: AllTables): Database[] {
  const { account, catalog, inventory, order, payment, search } = tables;
  return [account, catalog, inventory, order, payment, search] as unknown as Database[];
}
