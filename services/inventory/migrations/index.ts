import type { Migration } from "#runtime/database/migrations.ts";
import * as stock from "./0001-stock.ts";
import * as oneRow from "./0002-one-row.ts";

/** Inventory's migrations in order. */
export const migrations: readonly Migration[] = [
  { name: "0001-stock", ...stock },
  { name: "0002-one-row", ...oneRow },
];
