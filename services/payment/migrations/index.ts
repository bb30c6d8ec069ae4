import type { Migration } from "#runtime/database/migrations.ts";
import * as ledger from "./0001-ledger.ts";
import * as payments from "./0002-payments.ts";
import * as feeSchedules from "./0003-fee-schedules.ts";
import * as processor from "./0004-processor.ts";
import * as oneRow from "./0005-one-row.ts";

/** Payment's migrations in order. */
export const migrations: readonly Migration[] = [
  { name: "0001-ledger", ...ledger },
  { name: "0002-payments", ...payments },
  { name: "0003-fee-schedules", ...feeSchedules },
  { name: "0004-processor", ...processor },
  { name: "0005-one-row", ...oneRow },
];
