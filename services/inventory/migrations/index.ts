import type { Migration } from "#runtime/database/migrations.ts";
import * as stock from "./0001-stock.ts";

/** Inventory's migrations in order. */
export const migrations: readonly Migration[] = [{ name: "0001-stock", ...stock }];
