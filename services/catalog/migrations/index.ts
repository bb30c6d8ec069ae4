import type { Migration } from "#runtime/database/migrations.ts";
import { up as listings } from "./0001-listings.ts";
import { up as creations } from "./0002-creations.ts";

/** The catalog's migrations in order. */
export const migrations: readonly Migration[] = [
  { name: "0001-listings", up: listings },
  { name: "0002-creations", up: creations },
];
