import type { DescMessage, Message, MessageShape } from "@bufbuild/protobuf";
import type { HandlerContext } from "@connectrpc/connect";
import {
  CancelOrderResponseSchema,
  ConfirmOrderResponseSchema,
  ContinueOrderResponseSchema,
  OrderService,
  PlaceOrderResponseSchema,
  type Rating,
} from "#gen/marketplace/order/v1/order_pb.ts";
import { type Call, callOf } from "#runtime/call.ts";
import type { Clients } from "#runtime/clients.ts";
import { commandOf } from "#runtime/database/replay.ts";
import { newId } from "#runtime/ids.ts";
import type { Log } from "#runtime/log.ts";
import type { PageTokens } from "#runtime/pages.ts";
import type { ServiceModule } from "#runtime/service.ts";
import { createGate } from "./admission.ts";
import { createDriving, type Driving } from "./driving.ts";
import type { Command, OrderDatabase, OrderTransaction, Viewer } from "./entities.ts";
import { LEASE_MS, leaseColumns } from "./lease.ts";
import { changeState, lockOrder, type OrderChanges, type OrderRecord, orderMessage, readOrder, stateConflict } from "./orders.ts";
import { placements, type Started } from "./placing.ts";
import { purchaseCourses } from "./purchase.ts";
import { orderReads, viewerIn } from "./reads.ts";
import { createSagas, SAGA_JOB } from "./saga.ts";
import { type State, transitions } from "./states.ts";
import { addWaiting, joinPlacer, releaseWaiting, settleLeft, settleWaiting } from "./waiting.ts";
import { createWatching, WATCH_OPTIONS, type WatchOptions } from "./watch.ts";

/** What the order service is made of. */
export interface OrderDependencies {
  readonly database: OrderDatabase;
  readonly clients: Clients;
  readonly pages: PageTokens;
  readonly log: Log;
  /** The times and bounds of WatchOrder, where they are not those of the contract. */
  readonly watch?: Partial<WatchOptions>;
}

/** How long before its deadline a call stops waiting for the saga and answers what is known. */
const ANSWER_MARGIN_MS = 500;

/** How many purchases read listing and address at once in one process, and how many wait for that and how long. */
const READING = { atOnce: 32, waitingMax: 1_000, waitMaxMs: 2_000 };

/** The order service: drives a purchase through inventory and payment, and all that follows it. */
export function order({ database, clients, pages, log, watch = {} }: OrderDependencies): ServiceModule {
  const sagas = createSagas({ database, log, course: purchaseCourses({ database, clients }), ended: settleEnded });
  const driving = createDriving({ database, sagas, log });
  const reads = orderReads(database, pages);
  const watching = createWatching({ database, log, options: { ...WATCH_OPTIONS, ...watch } });
  const placing = placements(clients);
  const reading = createGate(READING);
  const outcome = outcomes(database, driving);

  return {
    name: "order",
    database,
    consumers: [],
    jobs: driving.jobs,
    recurring: [],
    async stop() {
      await Promise.all([driving.stop(), watching.stop()]);
    },
    routes(router) {
      router.service(OrderService, {
        async placeOrder(request, context) {
          const call = callOf(context);
          const known = () => database.answered(request, context, PlaceOrderResponseSchema);
          const stored = await known();
          if (stored !== undefined) {
            return stored;
          }
          driving.checkRoom();
          const agreed = await reading
            .pass(() => placing.agree(request, call))
            .catch(async (error: unknown) => {
              // The first try of this very command may have taken the units, or be about to: then its answer is the answer.
              const first =
                (await known()) ?? (await database.awaitAnswer(commandOf(request, context).key, PlaceOrderResponseSchema, call));
              return first ?? Promise.reject(error);
            });
          return "$typeName" in agreed
            ? agreed
            : outcome(request, context, PlaceOrderResponseSchema, (tx, requestKey) => placing.insert(tx, requestKey, agreed, call));
        },

        async continueOrder(request, context) {
          driving.checkRoom();
          return outcome(request, context, ContinueOrderResponseSchema, async (tx, requestKey) => {
            const found = await load(tx, request.orderId, callOf(context), ["buyer"]);
            if (found.order.state === "PAID") {
              tx.answer(requestKey, ContinueOrderResponseSchema, { order: orderMessage(found.order, "buyer") });
              return undefined;
            }
            if (found.order.state !== "AWAITING_CONFIRMATION" && found.order.state !== "PLACING") {
              throw stateConflict(found.order);
            }
            const order = await joinPlacer(tx, found.order);
            await wait(tx, requestKey, "continue", { ...found, order });
            tx.schedule({ kind: SAGA_JOB, key: found.order.order_id, dueTime: tx.now + LEASE_MS });
            return takeLease(tx, found.order);
          });
        },

        getOrder: (request, context) => reads.get(request.orderId, callOf(context)),

        listOrders: (request, context) => reads.list(request, callOf(context)),

        async cancelOrder(request, context) {
          driving.checkRoom();
          return outcome(
            request,
            context,
            CancelOrderResponseSchema,
            async (tx, requestKey) => {
              const found = await load(tx, request.orderId, callOf(context), ["buyer", "seller", "operator"]);
              if (found.order.state === "CANCELLED" || found.order.state === "CANCELLING") {
                tx.answer(requestKey, CancelOrderResponseSchema, { order: orderMessage(found.order, found.viewer) });
                return undefined;
              }
              await wait(tx, requestKey, "cancel", found);
              return turn(tx, found.order, "CANCELLING", { cancel_reason: `${found.viewer.toUpperCase()}_CANCELLED` });
            },
            "cancel",
          );
        },

        shipOrder: (request, context) =>
          database.command(request, context, async (tx) => {
            const found = await load(tx, request.orderId, callOf(context), ["seller"]);
            const set = { carrier: request.carrier, tracking_number: request.trackingNumber };
            return { order: orderMessage(await advance(tx, found.order, "SHIPPED", set), "seller") };
          }),

        async confirmOrder(request, context) {
          driving.checkRoom();
          return outcome(
            request,
            context,
            ConfirmOrderResponseSchema,
            async (tx, requestKey) => {
              const found = await load(tx, request.orderId, callOf(context), ["buyer"]);
              const { stars, comment } = request.rating as Rating;
              await wait(tx, requestKey, "confirm", found);
              return turn(tx, found.order, "COMPLETING", { rating_stars: stars, rating_comment: comment });
            },
            "confirm",
          );
        },

        watchOrder: (request, context) => watching.watch(request, callOf(context)),

        getEscrowTotals: () => reads.escrowTotals(),
      });
    },
  };
}

/**
 * The answer of a command that the order's saga carries out: claimed, driven while the caller waits, and answered with what became of it. When time
 * runs out, `underWay` commands are answered with the order as it is then; others get DEADLINE_EXCEEDED.
 */
function outcomes(database: OrderDatabase, driving: Driving) {
  return async <D extends DescMessage>(
    request: Message,
    context: HandlerContext,
    output: D,
    work: (tx: OrderTransaction, requestKey: string) => Promise<Started | undefined>,
    underWay?: Command,
  ): Promise<MessageShape<D>> => {
    const { deadline, signal } = callOf(context);
    const claimed = await database.claim(request, context, output, work);
    if (!claimed.first) {
      return claimed.answer;
    }
    if (claimed.value !== undefined) {
      const { orderId, lease } = claimed.value;
      const ended = await atMost(deadline - ANSWER_MARGIN_MS - Date.now(), driving.start(orderId, lease));
      if (!ended && underWay !== undefined) {
        await database.transaction(
          async (tx) => {
            const order = await lockOrder(tx, orderId);
            await (order && releaseWaiting(tx, order, [underWay]));
          },
          { deadline, signal },
        );
      }
    }
    const answer = await database.awaitAnswer(claimed.requestKey, output, { deadline, signal });
    return answer ?? Promise.reject(new Error("the claim of a command that a saga carries out was dropped."));
  };
}

/** Waits for `work`, but no longer than `ms`; the work goes on. Answers whether it ended. */
async function atMost(ms: number, work: Promise<void>): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const timer = setTimeout(() => resolve(false), Math.max(0, ms));
  const ended = await Promise.race([work.then(() => true), promise]);
  clearTimeout(timer);
  return ended;
}

async function load(tx: OrderTransaction, orderId: string, call: Call, allowed: readonly Viewer[]) {
  return viewerIn(await lockOrder(tx, orderId), call, allowed);
}

/** The caller waits for the saga; should this process die, who goes on with that gets it its answer. */
async function wait(
  tx: OrderTransaction,
  requestKey: string,
  command: Command,
  found: { order: OrderRecord; viewer: Viewer },
): Promise<void> {
  const orderId = found.order.order_id;
  await addWaiting(tx, { requestKey, orderId, command, viewer: found.viewer });
}

/** Answers whoever still waits for an order whose saga has nothing to do. */
async function settleEnded(tx: OrderTransaction, orderId: string): Promise<void> {
  const order = await readOrder(tx.sql, orderId);
  await (order && settleLeft(tx, order));
}

/** Moves an order on, or refuses what its state does not allow. */
async function advance(tx: OrderTransaction, order: OrderRecord, to: State, set: OrderChanges): Promise<OrderRecord> {
  if (!transitions[order.state].includes(to)) {
    throw stateConflict(order);
  }
  return changeState(tx, order, to, set, { otherwise: () => stateConflict(order) });
}

/** Turns the saga of an order to another course: whoever drives it loses the lease, and with it the right to write. */
async function turn(tx: OrderTransaction, order: OrderRecord, to: State, set: OrderChanges): Promise<Started> {
  const lease = { owner: newId() };
  await settleWaiting(tx, await advance(tx, order, to, { ...set, ...leaseColumns(tx, lease) }));
  return { orderId: order.order_id, lease };
}

/** Takes the lease of an order that nobody drives; whoever holds it answers the command otherwise. The caller has locked the order. */
async function takeLease(tx: OrderTransaction, order: OrderRecord): Promise<Started | undefined> {
  if (order.lease_owner !== null && (order.lease_expire_time ?? 0) > tx.now) {
    return undefined;
  }
  const lease = { owner: newId(), job: true } as const;
  await tx.sql.updateTable("orders").set(leaseColumns(tx, lease)).where("order_id", "=", order.order_id).execute();
  return { orderId: order.order_id, lease };
}
