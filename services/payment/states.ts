import type {
  LedgerAccountKind,
  PaymentState,
  PayoutState,
  TransferKind,
  TransferState,
} from "#gen/marketplace/payment/v1/payment_pb.ts";

/** The names of an enum's values without the one that is never used. */
type NameOf<E> = Exclude<keyof E & string, "UNSPECIFIED">;

/** The states of a payment as its table has them. */
export type PaymentStateName = NameOf<typeof PaymentState>;
/** The states of a payout as its table has them. */
export type PayoutStateName = NameOf<typeof PayoutState>;
/** The states of a transfer as its table has them. */
export type TransferStateName = NameOf<typeof TransferState>;
/** The kinds of transfers as their table has them. */
export type TransferKindName = NameOf<typeof TransferKind>;
/** The kinds of ledger accounts as their table has them. */
export type AccountKindName = NameOf<typeof LedgerAccountKind>;

/**
 * What the processor was last asked to do for a payment, from before it is asked until its answer is recorded; empty otherwise. While
 * a step is under way no other may begin: capture excludes void and expiry, refund excludes release.
 */
export type Step = "" | "AUTHORIZE" | "CAPTURE" | "VOID" | "REFUND";

/** Where a payment may go from each state. */
export const paymentTransitions: Readonly<Record<PaymentStateName, readonly PaymentStateName[]>> = {
  AUTHORIZING: ["AWAITING_CONFIRMATION", "AUTHORIZED", "DECLINED", "VOIDED"],
  AWAITING_CONFIRMATION: ["AUTHORIZED", "DECLINED", "VOIDED"],
  AUTHORIZED: ["CAPTURED", "VOIDED", "EXPIRED"],
  CAPTURED: ["RELEASED", "REFUNDED"],
  RELEASED: [],
  DECLINED: [],
  VOIDED: [],
  REFUNDED: [],
  EXPIRED: [],
};

/** The steps that may be under way in each state: a voided payment's authorization is being dropped at the processor, too. */
export const stepsOf: Readonly<Record<PaymentStateName, readonly Step[]>> = {
  AUTHORIZING: ["AUTHORIZE"],
  AWAITING_CONFIRMATION: [""],
  AUTHORIZED: ["", "CAPTURE"],
  CAPTURED: ["", "REFUND"],
  RELEASED: [""],
  DECLINED: [""],
  VOIDED: ["", "VOID"],
  REFUNDED: [""],
  EXPIRED: ["", "VOID"],
};

/** Where a payout may go from each state. */
export const payoutTransitions: Readonly<Record<PayoutStateName, readonly PayoutStateName[]>> = {
  PENDING: ["PAID", "FAILED"],
  PAID: [],
  FAILED: [],
};

/** Where a transfer may go from each state: a pending one ends once, in one of three ways. */
export const transferTransitions: Readonly<Record<TransferStateName, readonly TransferStateName[]>> = {
  PENDING: ["POSTED", "VOIDED", "EXPIRED"],
  POSTED: [],
  VOIDED: [],
  EXPIRED: [],
};

/** Throws when a table of transitions lacks the step: a mistake of the program, caught before the database refuses it. */
export function assertTransition<S extends string>(table: Readonly<Record<S, readonly S[]>>, from: S, to: S): void {
  if (!table[from].includes(to)) {
    throw new Error(`${from} may not become ${to}.`);
  }
}
