import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { ConnectError } from "@connectrpc/connect";
import {
  CommitReservationResponseSchema,
  InventoryService,
  ReserveResponseSchema,
} from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import {
  AuthorizePaymentResponseSchema,
  CapturePaymentResponseSchema,
  ConfirmPaymentResponseSchema,
  type Payment,
  PaymentService,
  PaymentState,
  ReleaseEscrowResponseSchema,
} from "#gen/marketplace/payment/v1/payment_pb.ts";
import type { Clients } from "#runtime/clients.ts";
import { fail, reasonOf } from "#runtime/errors.ts";
import type { Command, OrderDatabase, OrderTransaction } from "./entities.ts";
import {
  INSUFFICIENT_FUNDS,
  LISTING_NOT_FOUND,
  OUT_OF_STOCK,
  PAYMENT_DECLINED,
  PAYMENT_METHOD_INVALID,
  RESERVATION_EXPIRED,
} from "./errors.ts";
import type { Held } from "./lease.ts";
import { changeState, type OrderChanges, type OrderRecord, placerOf, readOrder } from "./orders.ts";
import { type Course, LeaseLost, OthersWait, type Saga, type StepCall } from "./saga.ts";
import { CAPTURE_MARGIN_MS, type State } from "./states.ts";
import { releaseWaiting, settleWaiting, waitingKeys } from "./waiting.ts";

/**
 * The steps that a new order has begun with when it is written. Each can be taken back whenever it takes effect, also after its undo; units that are sold cannot,
 * so before that one the runner makes sure that the order is still its own.
 */
export const STEPS_AHEAD = ["reserve", "authorize", "capture"] as const;

const reserveRefusals = {
  OUT_OF_STOCK,
  LISTING_NOT_FOUND,
  EXPIRE_TIME_INVALID: RESERVATION_EXPIRED,
  RESERVATION_CONFLICT: RESERVATION_EXPIRED,
};
const authorizeRefusals = { PAYMENT_DECLINED, INSUFFICIENT_FUNDS, PAYMENT_METHOD_INVALID, PAYMENT_CONFLICT: PAYMENT_DECLINED };
const confirmRefusals = {
  PAYMENT_DECLINED,
  INSUFFICIENT_FUNDS: PAYMENT_DECLINED,
  PAYMENT_METHOD_INVALID: PAYMENT_DECLINED,
  PAYMENT_STATE_CONFLICT: PAYMENT_DECLINED,
};
const captureRefusals = { AUTHORIZATION_EXPIRED: PAYMENT_DECLINED, PAYMENT_STATE_CONFLICT: PAYMENT_DECLINED };
const commitRefusals = {
  RESERVATION_EXPIRED,
  RESERVATION_RELEASED: RESERVATION_EXPIRED,
  RESERVATION_NOT_FOUND: RESERVATION_EXPIRED,
};

/** The neighbours that a purchase moves. */
interface Neighbours {
  readonly inventory: ReturnType<typeof inventoryOf>;
  readonly payment: ReturnType<typeof paymentOf>;
}
const inventoryOf = (clients: Clients) => clients.of(InventoryService);
const paymentOf = (clients: Clients) => clients.of(PaymentService);

/** An order while its saga runs: knows the record as last written, and writes the next state. */
interface Moving {
  readonly order: OrderRecord;
  move(tx: OrderTransaction, held: Held, to: State, set?: OrderChanges, error?: ConnectError): Promise<void>;
}

/** The courses of orders: what the saga engine does with an order in each state. */
export function purchaseCourses(deps: {
  database: OrderDatabase;
  clients: Clients;
}): (orderId: string, known?: OrderRecord) => Promise<Course | undefined> {
  const { database } = deps;
  const neighbours = { inventory: inventoryOf(deps.clients), payment: paymentOf(deps.clients) };
  return async (orderId, known) => {
    const order = known ?? (await readOrder(database.sql, orderId));
    return order && courseOf(database, neighbours, moving(order));
  };
}

function courseOf(database: OrderDatabase, neighbours: Neighbours, moving: Moving): Course | undefined {
  const release = (commands: readonly Command[]) => (tx: OrderTransaction) => releaseWaiting(tx, moving.order, commands);
  const describe = () => `the order is ${moving.order.state}, its payment ${moving.order.payment_id}`;
  switch (moving.order.state) {
    case "PLACING":
    case "AWAITING_CONFIRMATION":
    case "CANCELLING":
      return {
        direction: moving.order.state === "CANCELLING" ? "back" : "forward",
        run: (saga) => purchase(saga, moving, neighbours, database),
        refused: (tx, held, error, pending) =>
          moving.move(tx, held, pending ? "CANCELLING" : "CANCELLED", { cancel_reason: reasonOf(error) ?? "" }, error),
        undone: (tx, held) => moving.move(tx, held, "CANCELLED"),
        delayed: release(["cancel"]),
        describe,
      };
    case "COMPLETING":
      return {
        direction: "forward",
        run: (saga) => complete(saga, moving, neighbours),
        delayed: release(["confirm"]),
        describe,
      };
    default:
      return undefined;
  }
}

/**
 * The purchase: units are set aside, the money is promised, taken, the units are sold. Cancelling runs the same function back: each undo holds whatever
 * became of its step, because inventory and payment remember a release or a void that came before what it takes back.
 */
async function purchase(saga: Saga, moving: Moving, { inventory, payment }: Neighbours, database: OrderDatabase): Promise<void> {
  const { order } = moving;
  const { clock } = database;
  const reservationId = order.order_id;
  const paymentId = order.payment_id;

  await saga.step("reserve", {
    result: ReserveResponseSchema,
    keep: () => ({}),
    refusals: reserveRefusals,
    run: ({ requestId, timeoutMs }) => {
      const lines = order.lines.map((line) => ({ listingId: line.listing_id, units: line.units }));
      const expireTime = timestampFromMs(order.reservation_expire_time);
      return inventory.reserve({ requestId, reservationId, lines, expireTime }, { timeoutMs });
    },
    // Units that are sold stay sold: the seller has the parcel, and decides whether to offer it again.
    undo: ({ requestId, timeoutMs }) =>
      allowing("RESERVATION_COMMITTED", inventory.releaseReservation({ requestId, reservationId }, { timeoutMs })),
  });

  const authorized = await saga.step("authorize", {
    result: AuthorizePaymentResponseSchema,
    keep: ({ payment }) => (payment ? { payment: { state: payment.state, confirmationUrl: payment.confirmationUrl } } : {}),
    refusals: authorizeRefusals,
    run: async ({ requestId, timeoutMs }) => {
      const response = await payment.authorizePayment({ requestId, ...paymentOfOrder(order) }, { timeoutMs });
      return refuseUnless(isPromised, response);
    },
    undo: (call) => giveBack(call, payment, paymentId),
  });

  if (authorized.payment?.state === PaymentState.AWAITING_CONFIRMATION) {
    const { confirmationUrl } = authorized.payment;
    let asking: string[] = [];
    await saga.ask("confirm", {
      result: ConfirmPaymentResponseSchema,
      refusals: confirmRefusals,
      // Asked again it may be answered otherwise, so each attempt is a command of its own.
      run: async ({ requestId, attempt, timeoutMs }) => {
        asking = await waitingKeys(database, order.order_id, "continue");
        const response = await payment.confirmPayment({ requestId: `${requestId}/${attempt}`, paymentId }, { timeoutMs });
        return refuseUnless(isPromised, response);
      },
      settled: (answer) => answer.payment?.state !== PaymentState.AWAITING_CONFIRMATION,
      wait: (tx, held) => moving.move(tx, held, "AWAITING_CONFIRMATION", { confirmation_url: confirmationUrl }),
      // Who came after the question was asked may know better, and is not answered with what was heard.
      stillWaiting: async (tx) => ((await releaseWaiting(tx, moving.order, ["continue"], asking)) ? "again" : "rest"),
      resume: (tx, held) => moving.move(tx, held, "PLACING"),
    });
  }

  // Has no undo of its own: what takes an authorization back also gives back what was captured of it.
  await saga.step("capture", {
    result: CapturePaymentResponseSchema,
    keep: () => ({}),
    refusals: captureRefusals,
    unless: () => (order.reservation_expire_time - clock.now() < CAPTURE_MARGIN_MS ? RESERVATION_EXPIRED : undefined),
    run: ({ requestId, timeoutMs }) => payment.capturePayment({ requestId, paymentId }, { timeoutMs }),
  });

  await saga.step("commit", {
    result: CommitReservationResponseSchema,
    keep: () => ({}),
    refusals: commitRefusals,
    run: ({ requestId, timeoutMs }) => inventory.commitReservation({ requestId, reservationId }, { timeoutMs }),
  });

  await saga.settle((tx, held) => moving.move(tx, held, "PAID"));
}

/** The end of a purchase: escrow goes to the seller. There is no way back from here, so nothing is refused: it is tried until it succeeds. */
async function complete(saga: Saga, moving: Moving, { payment }: Neighbours): Promise<void> {
  const paymentId = moving.order.payment_id;
  await saga.step("release-escrow", {
    result: ReleaseEscrowResponseSchema,
    keep: () => ({}),
    run: ({ requestId, timeoutMs }) => payment.releaseEscrow({ requestId, paymentId }, { timeoutMs }),
  });
  await saga.settle((tx, held) => moving.move(tx, held, "COMPLETED"));
}

/**
 * Voids what was not taken, refunds what was. A capture whose answer was lost may land at any moment before the void, so the refusal of
 * the void is what tells the two apart, not what we remember.
 */
async function giveBack(call: StepCall, payment: Neighbours["payment"], paymentId: string): Promise<unknown> {
  const { requestId, timeoutMs } = call;
  try {
    return await payment.voidPayment({ requestId, paymentId }, { timeoutMs });
  } catch (error) {
    if (reasonOf(error) !== "PAYMENT_STATE_CONFLICT") {
      throw error;
    }
  }
  return payment.refundPayment({ requestId: `${requestId}/refund`, paymentId }, { timeoutMs });
}

/** Takes one reason for a success: what was to be undone is beyond undoing, and may stay. */
async function allowing(reason: string, call: Promise<unknown>): Promise<void> {
  try {
    await call;
  } catch (error) {
    if (reasonOf(error) !== reason) {
      throw error;
    }
  }
}

/** A payment that was declined, voided or has run out by the time of a repeat is answered as it is: for the buyer that is a decline. */
function refuseUnless<R extends { payment?: Payment | undefined }>(good: (payment: Payment) => boolean, response: R): R {
  if (response.payment === undefined || !good(response.payment)) {
    fail(PAYMENT_DECLINED, { metadata: { decline_reason: response.payment?.declineReason ?? "" } });
  }
  return response;
}

function isPromised(payment: Payment): boolean {
  return (
    payment.state === PaymentState.AUTHORIZED ||
    payment.state === PaymentState.AWAITING_CONFIRMATION ||
    payment.state === PaymentState.CAPTURED
  );
}

function paymentOfOrder(order: OrderRecord) {
  return {
    paymentId: order.payment_id,
    orderId: order.order_id,
    buyerId: order.buyer_id,
    sellerId: order.seller_id,
    paymentMethodToken: order.payment_method_token,
    lines: order.lines.map((line) => ({
      listingId: line.listing_id,
      amount: { currencyCode: order.currency_code, amountMinor: line.unit_price_minor * BigInt(line.units) },
      listingTime: timestampFromMs(line.listing_time),
    })),
  };
}

function moving(start: OrderRecord): Moving {
  let order = start;
  return {
    get order() {
      return order;
    },
    async move(tx, held, to, set, error) {
      const alone = placerOf(order, held) !== null;
      // Whoever changes the state of an order under way also takes its lease; and who comes to wait beside who placed it moves that one's command.
      const otherwise = () => (alone ? new OthersWait() : new LeaseLost());
      const next = await changeState(tx, order, to, set, { held, error, otherwise });
      if (!alone) {
        await settleWaiting(tx, next, error);
      }
      tx.afterCommit(() => {
        order = next;
      });
    },
  };
}
