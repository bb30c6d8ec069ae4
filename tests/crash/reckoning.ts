import { equals, fromBinary, type Message } from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import { EventSchema } from "#gen/marketplace/event/v1/event_pb.ts";
import { StockChangedSchema } from "#gen/marketplace/inventory/v1/events_pb.ts";
import { OrderState } from "#gen/marketplace/order/v1/order_pb.ts";
import type { Database } from "#runtime/database/database.ts";
import { orderConsumer } from "../../services/account/ratings.ts";
import { publicStates, stateFromProto } from "../../services/catalog/states.ts";
import { stockConsumer } from "../../services/catalog/stock.ts";
import type { OrderRow } from "../../services/order/entities.ts";
import { audit, type Fate, type Told } from "../inventory/audit.ts";
import type { Acknowledged } from "./ledger.ts";
import { type AllTables, eachOf } from "./tables.ts";
import type { Market } from "./traders.ts";

const IN_ONE_QUERY = 500;

/** Every command that was answered has its answer still, and what it did is in the tables; nothing is there that nobody was told of. */
export async function checkAcknowledged({ ledger, orders, listings, payouts }: Market, tables: AllTables): Promise<string[]> {
  const findings = [...ledger.findings];
  for (const database of eachOf(tables)) {
    const mine = ledger.acknowledged.filter(({ service }) => service === database.service);
    findings.push(...(await checkAnswers(database, mine)));
  }
  const orderRows = new Map((await tables.order.sql.selectFrom("orders").selectAll().execute()).map((row) => [row.order_id, row]));
  for (const [orderId, told] of orders) {
    const row = orderRows.get(orderId);
    const state = settled(told.state);
    if (row === undefined) findings.push(`The order ${orderId} was acknowledged as ${state}, and is not there.`);
    else if (row.state !== state) findings.push(`The order ${orderId} was acknowledged as ${state}, and is ${row.state}.`);
    else if (row.total_minor !== told.total?.amountMinor || row.rating_stars !== (told.rating?.stars ?? null))
      findings.push(`The order ${orderId} has another total or rating than was acknowledged.`);
  }
  for (const { order_id: orderId, state } of orderRows.values())
    if (!orders.has(orderId) && state !== "CANCELLED") findings.push(`Nobody was told of the order ${orderId}, which is ${state}.`);
  const listingRows = await tables.catalog.sql.selectFrom("listing").selectAll().execute();
  const listingsById = new Map(listingRows.map((row) => [row.listing_id, row]));
  for (const [listingId, told] of listings) {
    const row = listingsById.get(listingId);
    const state = stateFromProto(told.state);
    if (row === undefined) findings.push(`The listing ${listingId} was acknowledged as ${state}, and is not there.`);
    else if (row.state !== state && !(publicStates.includes(state) && publicStates.includes(row.state)))
      findings.push(`The listing ${listingId} was acknowledged as ${state}, and is ${row.state}.`);
    else if (row.price_minor !== told.price?.amountMinor || row.title !== told.title)
      findings.push(`The listing ${listingId} has another title or price than was acknowledged.`);
  }
  const payoutRows = new Map(
    (await tables.payment.sql.selectFrom("payout").selectAll().execute()).map((row) => [row.payout_id, row]),
  );
  for (const [payoutId, told] of payouts) {
    const row = payoutRows.get(payoutId);
    if (row?.state !== "PAID" || row.amount_minor !== told.amount?.amountMinor)
      findings.push(
        `The payout ${payoutId} of ${told.amount?.amountMinor} was acknowledged, and is ${row?.state} of ${row?.amount_minor}.`,
      );
  }
  for (const payoutId of payoutRows.keys()) if (!payouts.has(payoutId)) findings.push(`Nobody was told of the payout ${payoutId}.`);
  return findings;
}

/** The name of the state once what is under way is over. */
function settled(state: OrderState): string {
  const name = Object.entries(OrderState).find(([, value]) => value === state)?.[0] ?? "";
  if (name === "CANCELLING") return "CANCELLED";
  return name === "COMPLETING" ? "COMPLETED" : name;
}

async function checkAnswers(database: Database, acknowledged: readonly Acknowledged[]): Promise<string[]> {
  const findings: string[] = [];
  for (let start = 0; start < acknowledged.length; start += IN_ONE_QUERY) {
    const some = acknowledged.slice(start, start + IN_ONE_QUERY);
    const keyOf = ({ account, requestId }: Acknowledged) => `account:${account}/${requestId}`;
    const query = database.sql.selectFrom("replay").selectAll().where("request_key", "in", some.map(keyOf));
    const rows = new Map((await query.execute()).map((row) => [row.request_key, row]));
    for (const each of some) {
      const row = rows.get(keyOf(each));
      const what = `${each.method.name} under ${each.requestId}`;
      if (typeof each.answer === "string") {
        // A refusal before anything was begun leaves nothing.
        if (row !== undefined && row.state !== "failed")
          findings.push(`${what} was refused with ${each.answer}, and is ${row.state}.`);
      } else if (row?.state !== "answered" || row.answer === null) {
        findings.push(`${what} was answered, and its answer is ${row?.state ?? "not kept"}.`);
      } else if (!equals(each.method.output, fromBinary(each.method.output, row.answer) as Message, each.answer)) {
        findings.push(`${what} was answered otherwise than it would be now.`);
      }
    }
  }
  const pending = await database.sql.selectFrom("replay").select("request_key").where("state", "=", "pending").execute();
  return [...findings, ...pending.map(({ request_key: key }) => `The command ${key} is never answered.`)];
}

/** Every reservation and every payment ended as its order did, once, and none is without an order. */
export async function checkEnds({ order, inventory, payment }: AllTables): Promise<string[]> {
  const findings: string[] = [];
  const orders = new Map((await order.sql.selectFrom("orders").selectAll().execute()).map((row) => [row.order_id, row]));
  const reservations = await inventory.sql.selectFrom("reservation").selectAll().execute();
  const states = new Map(reservations.map(({ reservation_id: id, state }) => [id, state]));
  for (const [id, state] of states)
    if (!orders.has(id)) findings.push(`The reservation ${id}, which is ${state}, belongs to no order.`);
  const payments = new Map((await payment.sql.selectFrom("payment").selectAll().execute()).map((row) => [row.payment_id, row]));
  const paymentIds = new Set([...orders.values()].map((row) => row.payment_id));
  for (const { payment_id: id, state } of payments.values())
    if (!paymentIds.has(id)) findings.push(`The payment ${id}, which is ${state}, belongs to no order.`);
  for (const row of orders.values()) {
    const paid = payments.get(row.payment_id);
    const [reserved, owed] = endsOf(row);
    const reservation = states.get(row.order_id) ?? "NONE";
    if (!reserved.includes(reservation))
      findings.push(`The order ${row.order_id} is ${row.state}, its reservation ${reservation}.`);
    if (!owed.includes(paid?.state ?? "NONE"))
      findings.push(`The order ${row.order_id} is ${row.state}, its payment ${paid?.state}.`);
    if (paid !== undefined && paid.step !== "") findings.push(`The payment ${paid.payment_id} is still to ${paid.step}.`);
    if (["CAPTURED", "RELEASED"].includes(paid?.state ?? "") && paid?.amount_minor !== row.total_minor)
      findings.push(`The order ${row.order_id} costs ${row.total_minor}, and ${paid?.amount_minor} was paid.`);
  }
  try {
    audit(await toldOf(inventory), await fatesOf(inventory));
  } catch (error) {
    findings.push(`The units do not add up: ${(error as Error).message}`);
  }
  return findings;
}

/** The states that the reservation and the payment of an order may end in. */
function endsOf({ state, cancel_reason: reason }: OrderRow): [reservation: string[], payment: string[]] {
  switch (state) {
    case "PAID":
    case "SHIPPED":
      return [["COMMITTED"], ["CAPTURED"]];
    case "COMPLETED":
      return [["COMMITTED"], ["RELEASED"]];
    case "CANCELLED":
      // What was sold stays sold; a refusal of the first step leaves neither.
      return [
        ["RELEASED", "COMMITTED", ...(reason === "" ? [] : ["NONE"])],
        ["VOIDED", "DECLINED", "REFUNDED", "NONE"],
      ];
    default:
      return [[], []];
  }
}

async function toldOf(inventory: AllTables["inventory"]): Promise<Map<string, Told[]>> {
  const query = inventory.sql.selectFrom("outbox").select(["aggregate_id", "event"]).where("aggregate_type", "=", "stock");
  const told = new Map<string, Told[]>();
  for (const { aggregate_id: listingId, event } of await query.orderBy("aggregate_id").orderBy("sequence").execute()) {
    const { payload } = fromBinary(EventSchema, event);
    const change = payload && anyUnpack(payload, StockChangedSchema);
    const { availableUnits: available = -1, reservedUnits: reserved = -1, soldUnits: sold = -1 } = change?.stock ?? {};
    const changes = told.get(listingId) ?? [];
    changes.push({ available, reserved, sold, reservationId: change?.reservationId ?? "" });
    told.set(listingId, changes);
  }
  return told;
}

async function fatesOf({ sql }: AllTables["inventory"]): Promise<Map<string, Fate>> {
  const reservations = await sql.selectFrom("reservation").selectAll().execute();
  const lines = Map.groupBy(await sql.selectFrom("reservation_line").selectAll().execute(), (line) => line.reservation_id);
  return new Map(
    reservations.map(({ reservation_id: id, state }) => {
      const units = new Map((lines.get(id) ?? []).map((line) => [line.listing_id, line.units]));
      return [id, { units, state, answered: [] }];
    }),
  );
}

/** The numbers of the last events that aggregates have in their own rows. */
async function countedInRows({ inventory, order, payment }: AllTables, database: unknown) {
  const counted = (type: string, rows: readonly { id: string; value: number | null | undefined }[]) =>
    rows.flatMap(({ id, value }) => (value == null || value === 0 ? [] : [{ aggregate_type: type, aggregate_id: id, value }]));
  switch (database) {
    case inventory:
      return counted(
        "stock",
        await inventory.sql.selectFrom("stock").select(["listing_id as id", "event_sequence as value"]).execute(),
      );
    case order:
      return counted("order", await order.sql.selectFrom("orders").select(["order_id as id", "event_sequence as value"]).execute());
    case payment:
      return counted(
        "payment",
        await payment.sql.selectFrom("payment").select(["payment_id as id", "event_sequence as value"]).execute(),
      );
    default:
      return [];
  }
}

/** Every event was published and taken in by each consumer that has an inbox, and the events of each aggregate are numbered without a gap. */
export async function checkEvents(tables: AllTables): Promise<string[]> {
  const findings: string[] = [];
  for (const database of eachOf(tables)) {
    const rows = await database.sql
      .selectFrom("outbox")
      .select(["aggregate_type", "aggregate_id", "sequence", "publish_time"])
      .orderBy("aggregate_type")
      .orderBy("aggregate_id")
      .orderBy("sequence")
      .execute();
    const last = new Map<string, number>();
    for (const { aggregate_type, aggregate_id, sequence, publish_time } of rows) {
      const name = `${aggregate_type}/${aggregate_id}`;
      if (sequence !== (last.get(name) ?? 0) + 1) findings.push(`After event ${last.get(name) ?? 0} of ${name} comes ${sequence}.`);
      if (publish_time === null) findings.push(`The event ${sequence} of ${name} is not published.`);
      last.set(name, sequence);
    }
    for (const { aggregate_type, aggregate_id, value } of [
      ...(await database.sql.selectFrom("sequence").selectAll().execute()),
      ...(await countedInRows(tables, database)),
    ]) {
      const name = `${aggregate_type}/${aggregate_id}`;
      if (last.get(name) !== value) findings.push(`${name} counts ${value} events, and has ${last.get(name)}.`);
      last.delete(name);
    }
    findings.push(...[...last.keys()].map((name) => `${name} has events that are not counted.`));
    const letters = await database.sql.selectFrom("dead_letter").selectAll().where("state", "not in", ["resolved"]).execute();
    for (const letter of letters) findings.push(`${letter.handler} put aside ${letter.subject}: ${letter.message}`);
  }
  const { account, catalog, inventory, order } = tables;
  findings.push(...(await checkTaken(orderConsumer(account), order, account)));
  findings.push(...(await checkTaken(stockConsumer(catalog), inventory, catalog)));
  const others = await Promise.all(
    eachOf(tables).map(({ sql }) => sql.selectFrom("inbox").select("consumer").distinct().execute()),
  );
  const unknown = others.flat().filter(({ consumer }) => !["account.orders", "catalog.stock"].includes(consumer));
  return [...findings, ...unknown.map(({ consumer }) => `Nobody checks what the consumer ${consumer} took in.`)];
}

type Of = Pick<Database, "sql">;

async function checkTaken(
  { consumer, types }: { consumer: string; types: readonly string[] },
  from: unknown,
  to: unknown,
): Promise<string[]> {
  const sent = await (from as Of).sql.selectFrom("outbox").select("event_id").where("type", "in", types).execute();
  const rows = await (to as Of).sql.selectFrom("inbox").select("event_id").where("consumer", "=", consumer).execute();
  const taken = new Set(rows.map((row) => row.event_id));
  const missed = sent.filter((row) => !taken.delete(row.event_id));
  return [
    ...missed.map((row) => `${consumer} has not taken in the event ${row.event_id}.`),
    ...[...taken].map((id) => `${consumer} has taken in the event ${id}, which nobody sent.`),
  ];
}
