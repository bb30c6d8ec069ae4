import { create, fromBinary, type Message, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import type { GenMessage } from "@bufbuild/protobuf/codegenv2";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { ConnectError } from "@connectrpc/connect";
import {
  OrderCancellationStartedSchema,
  OrderCancelledSchema,
  OrderCompletedSchema,
  OrderConfirmationRequestedSchema,
  OrderConfirmedSchema,
  OrderPaidSchema,
  OrderPlacedSchema,
  OrderShippedSchema,
} from "#gen/marketplace/order/v1/events_pb.ts";
import {
  type OrderSchema,
  OrderState,
  PlaceOrderResponseSchema,
  ShippingAddressSchema,
} from "#gen/marketplace/order/v1/order_pb.ts";
import { insertRow, insertRows, updateRow } from "#runtime/database/compiled.ts";
import { failure } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import type { LineRow, OrderDatabase, OrderRow, OrderTransaction, Viewer } from "./entities.ts";
import { ORDER_STATE_CONFLICT } from "./errors.ts";
import { type Held, LEASE_MS } from "./lease.ts";
import type { Quote } from "./quote.ts";
import { addressStates, dueTimeOf, finalStates, motionStates, RESERVATION_MS, type State, transitions } from "./states.ts";

/** The job that looks after an order at its watch time: when it is due, or its saga may have stopped. Its key is the order's id. */
export const DUE_JOB = "order.due";

/** An order with its lines, as the tables hold it. */
export interface OrderRecord extends OrderRow {
  readonly lines: readonly LineRow[];
}

/** What a change of state sets besides. */
export type OrderChanges = Partial<
  Pick<
    OrderRow,
    | "cancel_reason"
    | "carrier"
    | "tracking_number"
    | "rating_stars"
    | "rating_comment"
    | "confirmation_url"
    | "lease_owner"
    | "lease_expire_time"
  >
>;

/** Events differ in name only: each holds the order. */
type EventSchema = typeof OrderPlacedSchema;

/** The event that tells of the arrival in each state; going on after a confirmation is told by what follows. */
const eventOf: Readonly<Partial<Record<State, GenMessage<Message>>>> = {
  AWAITING_CONFIRMATION: OrderConfirmationRequestedSchema,
  PAID: OrderPaidSchema,
  SHIPPED: OrderShippedSchema,
  COMPLETING: OrderConfirmedSchema,
  COMPLETED: OrderCompletedSchema,
  CANCELLING: OrderCancellationStartedSchema,
  CANCELLED: OrderCancelledSchema,
};

/** What a new order is made of. */
export interface NewOrder {
  readonly orderId: string;
  readonly buyerId: string;
  readonly quote: Quote;
  readonly shipTo: MessageInitShape<typeof ShippingAddressSchema>;
  readonly paymentMethodToken: string;
  /** The runner that drives it. */
  readonly lease: Pick<OrderRow, "lease_owner" | "lease_expire_time">;
  /** The steps of its saga, as `steps.ts` writes them. */
  readonly saga: string;
  /** The command whose caller waits for it. */
  readonly waitingKey: string;
}

/** Writes a new order in the state PLACING. */
export async function insertOrder(tx: OrderTransaction, order: NewOrder): Promise<OrderRecord> {
  const { orderId, quote } = order;
  const row = {
    order_id: orderId,
    state: "PLACING" as const,
    version: 1,
    buyer_id: order.buyerId,
    seller_id: quote.sellerId,
    currency_code: quote.currencyCode,
    total_minor: quote.totalMinor,
    handling_days: quote.handlingDays,
    payment_id: newId(),
    payment_method_token: order.paymentMethodToken,
    ship_to: toBinary(ShippingAddressSchema, create(ShippingAddressSchema, order.shipTo)) as Buffer,
    reservation_expire_time: tx.now + RESERVATION_MS,
    confirmation_url: "",
    cancel_reason: "",
    carrier: "",
    tracking_number: "",
    rating_stars: null,
    rating_comment: "",
    create_time: tx.now,
    update_time: tx.now,
    due_time: null,
    paid_time: null,
    ship_time: null,
    end_time: null,
    ...order.lease,
    saga: order.saga,
    event_sequence: 1,
    watch_time: watchTimeOf("PLACING", null, tx.now),
    waiting_key: order.waitingKey,
  };
  const lines = quote.lines.map((line, position) => ({
    order_id: orderId,
    position,
    listing_id: line.listingId,
    title: line.title,
    units: line.units,
    unit_price_minor: line.unitPriceMinor,
    listing_time: line.listingTime,
  }));
  await tx.later(insertRow(tx.sql, "orders", row), insertRows(tx.sql, "order_line", lines));
  const record = { ...row, lines };
  append(tx, OrderPlacedSchema, record);
  return record;
}

/** Reads an order; undefined when there is none. */
export async function readOrder(sql: OrderDatabase["sql"], orderId: string): Promise<OrderRecord | undefined> {
  const row = await sql.selectFrom("orders").selectAll().where("order_id", "=", orderId).executeTakeFirst();
  return row === undefined ? undefined : (await withLines(sql, [row]))[0];
}

/** Adds the lines to orders. */
export async function withLines(sql: OrderDatabase["sql"], rows: readonly OrderRow[]): Promise<OrderRecord[]> {
  if (rows.length === 0) {
    return [];
  }
  const ids = rows.map((row) => row.order_id);
  const lines = await sql
    .selectFrom("order_line")
    .selectAll()
    .where("order_id", "in", ids)
    .orderBy("order_id")
    .orderBy("position")
    .execute();
  const byOrder = Map.groupBy(lines, (line) => line.order_id);
  return rows.map((row) => ({ ...row, lines: byOrder.get(row.order_id) ?? [] }));
}

/** Locks an order's row until the commit, and reads it. A write of a column onto itself locks on every store. */
export async function lockOrder(tx: OrderTransaction, orderId: string): Promise<OrderRecord | undefined> {
  await tx.sql
    .updateTable("orders")
    .set((eb) => ({ version: eb.ref("version") }))
    .where("order_id", "=", orderId)
    .execute();
  return readOrder(tx.sql, orderId);
}

/** How a change of state is written. */
export interface Change {
  /** What the saga writes with it, on the condition that its runner still holds the lease. */
  readonly held?: Held | undefined;
  /** What who placed the order gets when it is being cancelled; ORDER_STATE_CONFLICT unless given. */
  readonly error?: ConnectError | undefined;
  /** What it means that the order is not as it was read. */
  readonly otherwise?: () => Error;
}

/**
 * Moves an order to another state by a conditional update that must hit its row in the state given, with everything that follows from it: times, the
 * due job, the event, the answer of who placed it and waits. Answers the order as it then is; the transaction fails with `otherwise` when its state was
 * another already.
 *
 * @throws Error when the table of transitions does not allow it.
 */
export async function changeState(
  tx: OrderTransaction,
  order: OrderRecord,
  to: State,
  set: OrderChanges = {},
  { held, error, otherwise = () => new Error(`the order ${order.order_id} is not ${order.state} any more.`) }: Change = {},
): Promise<OrderRecord> {
  if (!transitions[order.state].includes(to)) {
    throw new Error(`an order that is ${order.state} does not become ${to}: see states.ts.`);
  }
  const dueTime = dueTimeOf(to, tx.now, order.handling_days);
  const schema = eventOf[to];
  const changes = {
    ...set,
    ...(order.state === "AWAITING_CONFIRMATION" ? { confirmation_url: "" } : {}),
    ...(to === "PAID" ? { paid_time: tx.now } : {}),
    ...(to === "SHIPPED" ? { ship_time: tx.now } : {}),
    ...(finalStates.includes(to) ? { end_time: tx.now } : {}),
    state: to,
    update_time: tx.now,
    due_time: dueTime,
    watch_time: watchTimeOf(to, dueTime, tx.now),
    version: order.version + 1,
    ...(order.waiting_key === null ? {} : { waiting_key: null }),
    ...held?.set,
    ...(schema !== undefined && order.event_sequence != null ? { event_sequence: order.event_sequence + 1 } : {}),
  };
  const { order_id, state, version } = order;
  const placed = placerOf(order, held);
  const where = { order_id, state, version, ...(placed === null ? {} : { waiting_key: placed }), ...held?.where };
  await tx.must(updateRow(tx.sql, "orders", changes, where), otherwise);
  const changed: OrderRecord = { ...order, ...changes };
  if (placed !== null) {
    answerPlacer(tx, placed, changed, error);
  }
  tx.changed({ kind: "order", id: order.order_id, version: changed.version });
  if (schema !== undefined) {
    append(tx, schema as unknown as EventSchema, changed);
  }
  return changed;
}

/** The command of who placed the order and waits alone; null when the order's row does not have it, or may not have it any more. */
export function placerOf(order: OrderRecord, held?: Held): string | null {
  return held?.others === true ? null : order.waiting_key;
}

/** Answers who placed an order with what became of it. */
export function answerPlacer(tx: OrderTransaction, requestKey: string, order: OrderRecord, error?: ConnectError): void {
  if (order.state === "CANCELLING" || order.state === "CANCELLED") {
    tx.answerError(requestKey, error ?? stateConflict(order), "surely");
  } else {
    tx.answer(requestKey, PlaceOrderResponseSchema, { order: orderMessage(order, "buyer") }, "surely");
  }
}

/** The refusal of a command that the order's state does not allow. */
export function stateConflict(order: OrderRecord): ConnectError {
  const { order_id, state, cancel_reason } = order;
  return failure(ORDER_STATE_CONFLICT, { metadata: { order_id, state, ...(cancel_reason === "" ? {} : { cancel_reason }) } });
}

/** When the job looks after an order: when it is due, or when whoever drives its saga may have died. */
function watchTimeOf(state: State, dueTime: number | null, now: number): number | null {
  return dueTime ?? (motionStates.includes(state) ? now + LEASE_MS : null);
}

function append(tx: OrderTransaction, schema: EventSchema, order: OrderRecord): void {
  const { shipTo: _, ...message } = orderMessage(order, "operator");
  tx.append({
    aggregateType: "order",
    aggregateId: order.order_id,
    schema,
    message: { order: message },
    sequence: order.event_sequence,
  });
}

/** The order as a viewer may see it: the address is the buyer's, and the seller's while there is a parcel to send or follow. */
export function orderMessage(order: OrderRecord, viewer: Viewer): Exclude<MessageInitShape<typeof OrderSchema>, Message> {
  const addressed = viewer !== "seller" || addressStates.includes(order.state);
  const { currency_code: currencyCode } = order;
  return {
    orderId: order.order_id,
    state: OrderState[order.state],
    buyerId: order.buyer_id,
    sellerId: order.seller_id,
    lines: order.lines.map((line) => ({
      listingId: line.listing_id,
      units: line.units,
      unitPrice: { currencyCode, amountMinor: line.unit_price_minor },
      title: line.title,
    })),
    total: { currencyCode, amountMinor: order.total_minor },
    ...(addressed ? { shipTo: fromBinary(ShippingAddressSchema, order.ship_to) } : {}),
    confirmationUrl: viewer === "seller" ? "" : order.confirmation_url,
    cancelReason: order.cancel_reason,
    carrier: order.carrier,
    trackingNumber: order.tracking_number,
    ...(order.rating_stars === null ? {} : { rating: { stars: order.rating_stars, comment: order.rating_comment } }),
    createTime: timestampFromMs(order.create_time),
    updateTime: timestampFromMs(order.update_time),
    ...timeField("dueTime", order.due_time),
    ...timeField("paidTime", order.paid_time),
    ...timeField("shipTime", order.ship_time),
    ...timeField("endTime", order.end_time),
    sequence: BigInt(order.version),
  };
}

function timeField<K extends string>(name: K, ms: number | null) {
  return (ms === null ? {} : { [name]: timestampFromMs(ms) }) as Partial<Record<K, ReturnType<typeof timestampFromMs>>>;
}
