import { ReservationState } from "#gen/marketplace/inventory/v1/inventory_pb.ts";

/** The states of a reservation as its table has them. */
export type State = "PENDING" | "COMMITTED" | "RELEASED" | "EXPIRED";

/** Where a reservation may go from each state: it is pending until exactly one of the others. */
export const transitions: Readonly<Record<State, readonly State[]>> = {
  PENDING: ["COMMITTED", "RELEASED", "EXPIRED"],
  COMMITTED: [],
  RELEASED: [],
  EXPIRED: [],
};

/** The states in which a reservation ends. */
export type EndState = Exclude<State, "PENDING">;

/** The states from which the table of transitions leads to this one. */
export function statesBefore(to: State): State[] {
  return (Object.keys(transitions) as State[]).filter((from) => transitions[from].includes(to));
}

const toProto: Readonly<Record<State, ReservationState>> = {
  PENDING: ReservationState.PENDING,
  COMMITTED: ReservationState.COMMITTED,
  RELEASED: ReservationState.RELEASED,
  EXPIRED: ReservationState.EXPIRED,
};

/** The state as the contract names it. */
export function stateToProto(state: State): ReservationState {
  return toProto[state];
}
