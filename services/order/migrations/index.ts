import type { Migration } from "#runtime/database/migrations.ts";
import { orders } from "./0001-orders.ts";
import { indexStateFirst } from "./0002-index-state-first.ts";

/** The service's migrations, in order. */
export const migrations: readonly Migration[] = [orders, indexStateFirst];
