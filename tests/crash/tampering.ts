import { newId } from "#runtime/ids.ts";
import type { AllTables } from "./tables.ts";

/** What a broken marketplace would have left in its tables: each must be noticed, also beside all before it. The fleet is of no use afterwards. */
export const TAMPERINGS: Readonly<Record<string, (tables: AllTables) => Promise<unknown>>> = {
  async "an answer that was forgotten"({ order: { sql } }) {
    const { request_key: key } = await sql
      .selectFrom("replay")
      .select("request_key")
      .where("request_key", "like", "account:%")
      .where("state", "=", "answered")
      .executeTakeFirstOrThrow();
    await sql.deleteFrom("replay").where("request_key", "=", key).execute();
  },
  async "an order that costs more than was paid"({ order: { sql } }) {
    const { order_id: id } = await sql
      .selectFrom("orders")
      .select("order_id")
      .where("state", "<>", "CANCELLED")
      .executeTakeFirstOrThrow();
    await sql
      .updateTable("orders")
      .set((eb) => ({ total_minor: eb("total_minor", "+", 1n) }))
      .where("order_id", "=", id)
      .execute();
  },
  async "a listing with another price"({ catalog: { sql } }) {
    const { listing_id: id } = await sql
      .selectFrom("listing")
      .select("listing_id")
      .where("state", "=", "ACTIVE")
      .executeTakeFirstOrThrow();
    await sql.updateTable("listing").set({ price_minor: 1n }).where("listing_id", "=", id).execute();
  },
  async "a reservation that nobody ended"({ inventory: { sql } }) {
    const { reservation_id: id } = await sql.selectFrom("reservation").select("reservation_id").executeTakeFirstOrThrow();
    await sql.updateTable("reservation").set({ state: "PENDING", end_time: null }).where("reservation_id", "=", id).execute();
  },
  async "a payment without an order"({ payment: { sql } }) {
    const { payment_id: id } = await sql.selectFrom("payment").select("payment_id").executeTakeFirstOrThrow();
    await sql.updateTable("payment").set({ payment_id: newId() }).where("payment_id", "=", id).execute();
  },
  async "an event that was lost"({ inventory: { sql } }) {
    const { position } = await sql.selectFrom("outbox").select("position").where("sequence", "=", 2).executeTakeFirstOrThrow();
    await sql.deleteFrom("outbox").where("position", "=", position).execute();
  },
  async "an event that a consumer did not take in"({ catalog: { sql } }) {
    const { event_id: id } = await sql.selectFrom("inbox").select("event_id").executeTakeFirstOrThrow();
    await sql.deleteFrom("inbox").where("event_id", "=", id).execute();
  },
  async "a sale that was counted twice"({ account: { sql } }) {
    await sql
      .updateTable("seller_totals")
      .set((eb) => ({ completed_sales: eb("completed_sales", "+", 1) }))
      .execute();
  },
  async "units that the catalog did not hear of"({ catalog: { sql } }) {
    const { listing_id: id } = await sql.selectFrom("listing").select("listing_id").executeTakeFirstOrThrow();
    await sql
      .updateTable("listing")
      .set((eb) => ({ available_units: eb("available_units", "+", 1) }))
      .where("listing_id", "=", id)
      .execute();
  },
};
