import { ListingState } from "#gen/marketplace/catalog/v1/catalog_pb.ts";

/** The states of a listing as its table has them. */
export type State = "DRAFT" | "ACTIVE" | "RESERVED" | "SOLD" | "WITHDRAWN";

/**
 * Where a listing may go from each state. Reserved and sold follow the units; a state between may have been skipped because the stock
 * event that would have shown it came late. Withdrawn is final.
 */
export const transitions: Readonly<Record<State, readonly State[]>> = {
  DRAFT: ["ACTIVE", "WITHDRAWN"],
  ACTIVE: ["RESERVED", "SOLD", "WITHDRAWN"],
  RESERVED: ["ACTIVE", "SOLD"],
  SOLD: ["ACTIVE", "RESERVED"],
  WITHDRAWN: [],
};

/** The states in which others than the seller see a listing. */
export const publicStates: readonly State[] = ["ACTIVE", "RESERVED", "SOLD"];

/** All states. */
export const allStates: readonly State[] = ["DRAFT", "ACTIVE", "RESERVED", "SOLD", "WITHDRAWN"];

/** Whether the seller may change the contents of a listing in this state, publish or withdraw it. */
export function isEditable(state: State): boolean {
  return state === "DRAFT" || state === "ACTIVE";
}

/** Whether the table of transitions has this step. */
export function mayBecome(from: State, to: State): boolean {
  return transitions[from].includes(to);
}

/** The units behind a listing, as far as its state depends on them. */
export interface Units {
  readonly available: number;
  readonly reserved: number;
}

/** The state that a published listing has by its units. Drafts and withdrawn listings do not follow their units. */
export function stateByUnits(state: State, units: Units): State {
  if (!publicStates.includes(state)) {
    return state;
  }
  if (units.available > 0) {
    return "ACTIVE";
  }
  return units.reserved > 0 ? "RESERVED" : "SOLD";
}

const toProto: Readonly<Record<State, ListingState>> = {
  DRAFT: ListingState.DRAFT,
  ACTIVE: ListingState.ACTIVE,
  RESERVED: ListingState.RESERVED,
  SOLD: ListingState.SOLD,
  WITHDRAWN: ListingState.WITHDRAWN,
};

/** The state as the contract names it. */
export function stateToProto(state: State): ListingState {
  return toProto[state];
}

/** The state as the table names it. Throws on unspecified, which validation has refused. */
export function stateFromProto(state: ListingState): State {
  const found = allStates.find((candidate) => toProto[candidate] === state);
  if (found === undefined) {
    throw new RangeError(`the listing state ${state} is not one of the table's.`);
  }
  return found;
}
