import type { EntityName } from "@mikro-orm/core";
import type { Migration } from "#runtime/database/migrations.ts";
import * as account from "./account/entities.ts";
import { migrations as accountMigrations } from "./account/migrations/index.ts";
import * as catalog from "./catalog/entities.ts";
import { migrations as catalogMigrations } from "./catalog/migrations/index.ts";
import * as inventory from "./inventory/entities.ts";
import { migrations as inventoryMigrations } from "./inventory/migrations/index.ts";
import * as order from "./order/entities.ts";
import { migrations as orderMigrations } from "./order/migrations/index.ts";
import * as payment from "./payment/entities.ts";
import { migrations as paymentMigrations } from "./payment/migrations/index.ts";
import * as search from "./search/entities.ts";
import { migrations as searchMigrations } from "./search/migrations/index.ts";

/** The tables of every service that has any: as its code sees them, and how they come to be. For what looks at all of them without running a service. */
export const TABLES = {
  account: { entities: account.entities, migrations: accountMigrations },
  catalog: { entities: catalog.entities, migrations: catalogMigrations },
  inventory: { entities: inventory.entities, migrations: inventoryMigrations },
  order: { entities: order.entities, migrations: orderMigrations },
  payment: { entities: payment.entities, migrations: paymentMigrations },
  search: { entities: search.entities, migrations: searchMigrations },
} as const satisfies Readonly<Record<string, { entities: readonly EntityName[]; migrations: readonly Migration[] }>>;

/** A service that has tables. */
export type ServiceWithTables = keyof typeof TABLES;
