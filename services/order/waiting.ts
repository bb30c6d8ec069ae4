import type { ConnectError } from "@connectrpc/connect";
import {
  CancelOrderResponseSchema,
  ConfirmOrderResponseSchema,
  ContinueOrderResponseSchema,
  PlaceOrderResponseSchema,
} from "#gen/marketplace/order/v1/order_pb.ts";
import { compiledFor, insertRow, updateRow } from "#runtime/database/compiled.ts";
import type { Command, OrderDatabase, OrderTransaction, Viewer } from "./entities.ts";
import { answerPlacer, type OrderRecord, orderMessage, stateConflict } from "./orders.ts";
import type { State } from "./states.ts";

/** The states that are the outcome of each command: what its caller waits for. */
const outcomes: Readonly<Record<Command, readonly State[]>> = {
  place: ["AWAITING_CONFIRMATION", "PAID"],
  continue: ["AWAITING_CONFIRMATION", "PAID"],
  cancel: ["CANCELLED"],
  confirm: ["COMPLETED"],
};

/** Notes that the caller of a claimed command waits for the order's saga. */
export async function addWaiting(
  tx: OrderTransaction,
  wait: { requestKey: string; orderId: string; command: Command; viewer: Viewer },
): Promise<void> {
  const { requestKey, orderId, command, viewer } = wait;
  await tx.later(insertRow(tx.sql, "order_command", { request_key: requestKey, order_id: orderId, command, viewer }));
}

/**
 * Makes room beside who placed the order and waited alone: the saga that counts on that sees by it that others wait. The caller has locked the order. Gives the
 * order as it then is.
 */
export async function joinPlacer(tx: OrderTransaction, order: OrderRecord): Promise<OrderRecord> {
  const { order_id: orderId, waiting_key: requestKey } = order;
  if (requestKey === null) {
    return order;
  }
  await addWaiting(tx, { requestKey, orderId, command: "place", viewer: "buyer" });
  await tx.later(updateRow(tx.sql, "orders", { waiting_key: null }, { order_id: orderId }));
  return { ...order, waiting_key: null };
}

/** Answers those whom a program that knew of them only half has left: it moved the order on, or waits for it in the table. */
export async function settleLeft(tx: OrderTransaction, order: OrderRecord): Promise<void> {
  if (order.waiting_key !== null) {
    await tx.later(updateRow(tx.sql, "orders", { waiting_key: null }, { order_id: order.order_id }));
    answerPlacer(tx, order.waiting_key, order);
  }
  await settleWaiting(tx, order);
}

/**
 * Answers those who wait for the state that the order has come to. When it is being cancelled, who wanted to buy gets `error`, and where there is none
 * ORDER_STATE_CONFLICT: somebody else, or the time, was faster.
 */
export async function settleWaiting(tx: OrderTransaction, order: OrderRecord, error?: ConnectError): Promise<void> {
  await answer(
    tx,
    order,
    (Object.keys(outcomes) as Command[]).filter((command) => outcomes[command].includes(order.state)),
  );
  if (order.state === "CANCELLING" || order.state === "CANCELLED") {
    await answer(tx, order, ["place", "continue"], { error: error ?? stateConflict(order) });
  }
}

/** The commands that wait for an order now, by their keys. */
export async function waitingKeys(database: OrderDatabase, orderId: string, command: Command): Promise<string[]> {
  const rows = await database.sql
    .selectFrom("order_command")
    .select("request_key")
    .where("order_id", "=", orderId)
    .where("command", "=", command)
    .execute();
  return rows.map((row) => row.request_key);
}

/**
 * Answers those who do not wait any longer, because the saga goes on in the background or has to wait itself: they get the order as it is. With
 * `keys` only these; answers whether others wait still.
 */
export async function releaseWaiting(
  tx: OrderTransaction,
  order: OrderRecord,
  commands: readonly Command[],
  keys?: readonly string[],
): Promise<boolean> {
  return (await answer(tx, order, commands, { keys })) > 0;
}

/** Under the order's lock, which keeps them waiting: answers who waits with the order or an error; with `keys` only these. Gives the number of those who wait on. */
async function answer(
  tx: OrderTransaction,
  order: OrderRecord,
  commands: readonly Command[],
  { error, keys }: { error?: ConnectError | undefined; keys?: readonly string[] | undefined } = {},
): Promise<number> {
  if (commands.length === 0) {
    return 0;
  }
  const { rows } = await tx.sql.executeQuery(waitingOn(tx.sql, { orderId: order.order_id }));
  const all = rows.filter((row) => commands.includes(row.command));
  const waiting = keys === undefined ? all : all.filter((row) => keys.includes(row.request_key));
  for (const { request_key, command, viewer, claimed } of waiting) {
    if (claimed === null) {
      continue;
    }
    if (error === undefined) {
      tx.answer(request_key, responseOf[command], { order: orderMessage(order, viewer) }, "surely");
    } else {
      tx.answerError(request_key, error, "surely");
    }
  }
  if (waiting.length > 0) {
    const answered = waiting.map((row) => row.request_key);
    await tx.later(tx.sql.deleteFrom("order_command").where("request_key", "in", answered));
  }
  return all.length - waiting.length;
}

/** Who waits for an order. An answer that nobody can ask for any more (after 30 days) must not keep the order from going on. */
const waitingOn = compiledFor((sql: OrderTransaction["sql"], at: { orderId: string }) =>
  sql
    .selectFrom("order_command")
    .leftJoin("replay", (join) =>
      join.onRef("replay.request_key", "=", "order_command.request_key").on("replay.state", "=", "pending"),
    )
    .select(["order_command.request_key", "command", "viewer", "replay.request_key as claimed"])
    .where("order_id", "=", at.orderId),
);

/** The answers of the four differ in name only: each holds the order. */
const responseOf = {
  place: PlaceOrderResponseSchema,
  continue: ContinueOrderResponseSchema,
  cancel: CancelOrderResponseSchema,
  confirm: ConfirmOrderResponseSchema,
} as unknown as Readonly<Record<Command, typeof PlaceOrderResponseSchema>>;
