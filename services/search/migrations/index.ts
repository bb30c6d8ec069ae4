import type { Migration } from "#runtime/database/migrations.ts";
import * as reindex from "./0001-reindex.ts";

/** Search's migrations in order. */
export const migrations: readonly Migration[] = [{ name: "0001-reindex", ...reindex }];
