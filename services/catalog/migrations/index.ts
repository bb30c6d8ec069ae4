import type { Migration } from "#runtime/database/migrations.ts";
import * as listings from "./0001-listings.ts";
import * as creations from "./0002-creations.ts";

/** The catalog's migrations in order. */
export const migrations: readonly Migration[] = [
  { name: "0001-listings", ...listings },
  { name: "0002-creations", ...creations },
];
