import type { Migration } from "#runtime/database/migrations.ts";
import { orders } from "./0001-orders.ts";
import { indexStateFirst } from "./0002-index-state-first.ts";
import { oneRow } from "./0003-one-row.ts";
import { waitingKey } from "./0004-waiting-key.ts";

/** The service's migrations, in order. */
export const migrations: readonly Migration[] = [orders, indexStateFirst, oneRow, waitingKey];
