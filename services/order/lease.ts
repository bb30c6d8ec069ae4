import { type Statement, updateRow } from "#runtime/database/compiled.ts";
import type { OrderDatabase, OrderTransaction } from "./entities.ts";

/** How long a runner owns an order without writing. Longer than any try of a step. */
export const LEASE_MS = 30_000;

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

/** What every write of a saga does to the order's row, and where: it changes none when the runner does not hold the lease any more. */
export interface Held {
  readonly set: { saga?: string; lease_owner: string | null; lease_expire_time: number | null };
  readonly where: { lease_owner: string };
  /** Whether others may wait for the order than who placed it: seen when a write that counted on the contrary changed nothing. */
  readonly others: boolean;
}

/** Renews the lease, or gives it back, if `owner` still holds it. With the saga's steps, unless these were not read. */
export function held(
  tx: OrderTransaction,
  owner: string,
  { release, saga, others }: { release: boolean; saga?: string | undefined; others: boolean },
): Held {
  const lease = release ? { lease_owner: null, lease_expire_time: null } : leaseColumns(tx, { owner });
  return { set: saga === undefined ? lease : { saga, ...lease }, where: { lease_owner: owner }, others };
}

/** The write of a saga that changes nothing else of the order. */
export function fence(tx: OrderTransaction, orderId: string, { set, where }: Held): Statement<unknown> {
  return updateRow(tx.sql, "orders", set, { order_id: orderId, ...where });
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
