import type { Migration } from "#runtime/database/migrations.ts";
import { up as ledger } from "./0001-ledger.ts";
import { up as payments } from "./0002-payments.ts";
import { up as feeSchedules } from "./0003-fee-schedules.ts";

/** Payment's migrations in order. */
export const migrations: readonly Migration[] = [
  { name: "0001-ledger", up: ledger },
  { name: "0002-payments", up: payments },
  { name: "0003-fee-schedules", up: feeSchedules },
];
