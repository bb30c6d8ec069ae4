import type { Kysely } from "kysely";
import type { PaymentDatabase, PaymentTables } from "./entities.ts";
import type { Schedule } from "./fees.ts";

/** All fee schedules, oldest first: there are few, and none is ever changed. */
export async function readSchedules(
  sql: Pick<Kysely<Pick<PaymentTables, "fee_schedule" | "fee_minimum">>, "selectFrom">,
): Promise<Schedule[]> {
  const rows = await sql
    .selectFrom("fee_schedule as s")
    .leftJoin("fee_minimum as m", "m.schedule_version", "s.schedule_version")
    .select(["s.schedule_version", "s.effective_time", "s.fee_basis_points", "m.currency_code", "m.minimum_fee_minor"])
    .orderBy("s.schedule_version")
    .execute();
  const schedules = new Map<number, Schedule & { minimumMinor: Record<string, bigint> }>();
  for (const row of rows) {
    let schedule = schedules.get(row.schedule_version);
    if (schedule === undefined) {
      schedule = {
        version: row.schedule_version,
        effectiveTime: row.effective_time,
        feeBasisPoints: row.fee_basis_points,
        minimumMinor: {},
      };
      schedules.set(row.schedule_version, schedule);
    }
    if (row.currency_code != null && row.minimum_fee_minor != null) {
      schedule.minimumMinor[row.currency_code] = row.minimum_fee_minor;
    }
  }
  return [...schedules.values()];
}

/** How long schedules are remembered: none is ever changed, and a new one is known long before it is in force. */
const REMEMBERED_MS = 60_000;

/** All fee schedules, read again when a minute has passed. */
export function rememberedSchedules(database: PaymentDatabase): () => Promise<Schedule[]> {
  let known: Schedule[] = [];
  let until = Number.NEGATIVE_INFINITY;
  return async () => {
    const now = database.clock.now();
    if (now >= until) {
      known = await readSchedules(database.sql);
      until = now + REMEMBERED_MS;
    }
    return known;
  };
}
