import type { OrderState } from "#gen/marketplace/order/v1/order_pb.ts";

/** The states of an order by name, as the tables hold them. */
export type State = Exclude<keyof typeof OrderState, "UNSPECIFIED">;

/** What may follow each state. Every change of a state is a conditional update from states that this table allows. */
export const transitions: Readonly<Record<State, readonly State[]>> = {
  PLACING: ["AWAITING_CONFIRMATION", "PAID", "CANCELLING", "CANCELLED"],
  AWAITING_CONFIRMATION: ["PLACING", "CANCELLING"],
  PAID: ["SHIPPED", "CANCELLING"],
  SHIPPED: ["COMPLETING", "DISPUTED"],
  COMPLETING: ["COMPLETED"],
  COMPLETED: [],
  CANCELLING: ["CANCELLED"],
  CANCELLED: [],
  DISPUTED: ["COMPLETING", "CANCELLING"],
};

/** All states. */
export const allStates = Object.keys(transitions) as State[];

/** The states from which a change to `state` is allowed. */
export function statesBefore(state: State): State[] {
  return allStates.filter((from) => transitions[from].includes(state));
}

/** Both ends of an order's life. */
export const finalStates = allStates.filter((state) => transitions[state].length === 0);

/** The states in which the buyer's money stands in escrow. */
export const escrowStates: readonly State[] = ["PAID", "SHIPPED", "DISPUTED"];

/** The states in which a saga moves money, or may at any moment, so that order and ledger can be apart for a while. */
export const motionStates: readonly State[] = ["PLACING", "AWAITING_CONFIRMATION", "COMPLETING", "CANCELLING"];

/** The states in which the seller sees where the parcel goes. */
export const addressStates: readonly State[] = ["PAID", "SHIPPED", "COMPLETING", "COMPLETED", "DISPUTED"];

/** The states that end by themselves when `due_time` has come, and what follows then. */
export const whenDue: Readonly<Partial<Record<State, { to: State; cancelReason: string }>>> = {
  AWAITING_CONFIRMATION: { to: "CANCELLING", cancelReason: "NOT_CONFIRMED_IN_TIME" },
  PAID: { to: "CANCELLING", cancelReason: "NOT_SHIPPED_IN_TIME" },
  SHIPPED: { to: "COMPLETING", cancelReason: "" },
};

const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;

/** How long units are set aside for a purchase. */
export const RESERVATION_MS = 30 * MINUTE_MS;
/** A capture is not begun when the reservation has less than this left: its units could be gone before they are sold. */
export const CAPTURE_MARGIN_MS = MINUTE_MS;

/** When somebody must have acted on an order that enters `state` now, in ms since the epoch; null where nobody has to. */
export function dueTimeOf(state: State, now: number, handlingDays: number): number | null {
  switch (state) {
    case "AWAITING_CONFIRMATION":
      return now + 15 * MINUTE_MS;
    case "PAID":
      return now + (handlingDays + 2) * DAY_MS;
    case "SHIPPED":
      return now + 14 * DAY_MS;
    default:
      return null;
  }
}
