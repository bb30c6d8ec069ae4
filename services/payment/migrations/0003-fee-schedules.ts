import { type Kysely, sql } from "kysely";
import { initialSchedules } from "../fees.ts";

interface Tables {
  fee_schedule: { schedule_version: number; effective_time: number; fee_basis_points: number };
  fee_minimum: { schedule_version: number; currency_code: string; minimum_fee_minor: bigint };
}

/** Fee schedules, and the ones a database begins with. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await db.schema
    .createTable("fee_schedule")
    .addColumn("schedule_version", "integer", (c) => c.primaryKey())
    .addColumn("effective_time", "bigint", (c) => c.notNull().unique())
    .addColumn("fee_basis_points", "integer", (c) => c.notNull())
    .addCheckConstraint("fee_schedule_share", sql`fee_basis_points between 0 and 5000 and schedule_version >= 1`)
    .execute();
  await db.schema
    .createTable("fee_minimum")
    .addColumn("schedule_version", "integer", (c) => c.notNull())
    .addColumn("currency_code", "varchar(3)", (c) => c.notNull())
    .addColumn("minimum_fee_minor", "bigint", (c) => c.notNull())
    .addPrimaryKeyConstraint("fee_minimum_pk", ["schedule_version", "currency_code"])
    .addCheckConstraint("fee_minimum_amount", sql`minimum_fee_minor >= 0 and currency_code in ('USD', 'JPY')`)
    .execute();
  const tables = db as Kysely<Tables>;
  for (const schedule of initialSchedules) {
    await tables
      .insertInto("fee_schedule")
      .values({
        schedule_version: schedule.version,
        effective_time: schedule.effectiveTime,
        fee_basis_points: schedule.feeBasisPoints,
      })
      .execute();
    for (const [currency_code, minimum_fee_minor] of Object.entries(schedule.minimumMinor)) {
      await tables
        .insertInto("fee_minimum")
        .values({ schedule_version: schedule.version, currency_code, minimum_fee_minor })
        .execute();
    }
  }
}

/** Why it cannot be undone. */
export const down =
  "every fee that was taken is explained by its schedule, and a schedule is never forgotten. Restore a backup instead.";
