import type { Compilable } from "kysely";
import type { OrderDatabase, OrderTransaction, StepState } from "./entities.ts";

/** How long a runner owns an order without writing. Longer than any try of a step. */
export const LEASE_MS = 30_000;

/** A step's row, and whether the database has it. */
export interface StepRow {
  readonly order_id: string;
  readonly step: string;
  state: StepState;
  attempts: number;
  result: Uint8Array | null;
  reason: string;
  readonly start_time: number;
  update_time: number;
  stored: boolean;
}

/** A lease as the order's row holds it: from now on, or from the last write. */
export function leaseColumns(tx: Pick<OrderTransaction, "now">, { owner }: { owner: string }) {
  return { lease_owner: owner, lease_expire_time: tx.now + LEASE_MS };
}

/** Takes the lease on an order that nobody drives, or whose runner has not written for `LEASE_MS`. Answers false when it is taken. */
export function acquireLease(database: OrderDatabase, orderId: string, owner: string): Promise<boolean> {
  return database.transaction(async (tx) => {
    const taken = await tx.sql
      .updateTable("orders")
      .set(leaseColumns(tx, { owner }))
      .where("order_id", "=", orderId)
      .where((eb) => eb.or([eb("lease_owner", "is", null), eb("lease_expire_time", "<=", tx.now)]))
      .executeTakeFirst();
    return taken.numUpdatedRows === 1n;
  });
}

/** Renews the lease, or gives it back, if `owner` still holds it: then it changes a row, which is locked until the commit. */
export function fence(tx: OrderTransaction, orderId: string, owner: string, options: { release: boolean }): Compilable<unknown> {
  return tx.sql
    .updateTable("orders")
    .set(options.release ? { lease_owner: null, lease_expire_time: null } : leaseColumns(tx, { owner }))
    .where("order_id", "=", orderId)
    .where("lease_owner", "=", owner);
}

/** When the lease of an order runs out; undefined when nobody holds it. */
export async function leaseEnd(database: OrderDatabase, orderId: string): Promise<number | undefined> {
  const row = await database.sql
    .selectFrom("orders")
    .select("lease_expire_time")
    .where("order_id", "=", orderId)
    .executeTakeFirst();
  return row?.lease_expire_time ?? undefined;
}

/** The steps of an order's sagas, by name. */
export async function readSteps(database: OrderDatabase, orderId: string): Promise<Map<string, StepRow>> {
  const rows = await database.sql.selectFrom("saga_step").selectAll().where("order_id", "=", orderId).execute();
  return new Map(rows.map((row) => [row.step, { ...row, stored: true }]));
}

/** Writes a step: for the first time, or its change. */
export function writeStep(tx: OrderTransaction, { stored, ...row }: StepRow): Compilable<unknown> {
  if (!stored) {
    return tx.sql.insertInto("saga_step").values(row);
  }
  const { state, attempts, result, reason, update_time } = row;
  return tx.sql
    .updateTable("saga_step")
    .set({ state, attempts, result, reason, update_time })
    .where("order_id", "=", row.order_id)
    .where("step", "=", row.step);
}
