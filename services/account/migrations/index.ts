import type { Migration } from "#runtime/database/migrations.ts";
import * as accounts from "./0001-accounts.ts";

/** The account service's migrations in order. */
export const migrations: readonly Migration[] = [{ name: "0001-accounts", ...accounts }];
