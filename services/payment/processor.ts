/** What is asked of the processor for one payment. */
export interface AuthorizationOrder {
  readonly amountMinor: bigint;
  readonly currencyCode: string;
  /** The processor's token of the buyer's payment method. */
  readonly paymentMethodToken: string;
}

/** What is asked of the processor for one payout. */
export interface PayoutOrder {
  readonly amountMinor: bigint;
  readonly currencyCode: string;
  /** The processor's token of the seller's bank account. */
  readonly destinationToken: string;
}

/** What the processor knows of one thing it was asked for, by its kind. */
export interface Outcomes {
  authorization:
    | { readonly state: "approved" }
    /** The buyer has to confirm at the URL. */
    | { readonly state: "confirm"; readonly confirmationUrl: string }
    | {
        readonly state: "declined";
        readonly reason: "PAYMENT_DECLINED" | "INSUFFICIENT_FUNDS" | "PAYMENT_METHOD_INVALID";
      }
    /** It was voided, or ran out. */
    | { readonly state: "dropped" };
  capture: { readonly state: "captured" } /** The authorization is gone. */ | { readonly state: "expired" };
  refund: { readonly state: "refunded" };
  payout:
    | { readonly state: "pending" }
    | { readonly state: "paid" }
    /** In capitals, such as ACCOUNT_CLOSED. */
    | { readonly state: "failed"; readonly reason: string };
}

/** The processor's own books in one currency, in minor units: sums over all time. */
export interface ProcessorBooks {
  readonly capturedMinor: bigint;
  readonly refundedMinor: bigint;
  readonly paidOutMinor: bigint;
}

/**
 * The outside payment provider.
 *
 * Every call that moves money carries a key made by us. A repeat under the same key has no further effect and gets the first outcome (a
 * payout under way: its outcome by now). Calls end when `signal` says so.
 *
 * @throws ProcessorTimeout when it is not known whether the call took effect; `find` with the same key tells later.
 * @throws ProcessorUnreachable when the call certainly took no effect.
 */
export interface Processor {
  /** Promises money. */
  authorize(key: string, order: AuthorizationOrder, signal: AbortSignal): Promise<Outcomes["authorization"]>;
  /** Takes all the money that was promised under `authorizationKey`. */
  capture(key: string, authorizationKey: string, signal: AbortSignal): Promise<Outcomes["capture"]>;
  /** Drops an authorization that was not captured. `not_found` is not remembered: the authorization may arrive later. */
  void(key: string, authorizationKey: string, signal: AbortSignal): Promise<{ readonly state: "voided" | "not_found" }>;
  /** Gives all captured money back. */
  refund(key: string, authorizationKey: string, signal: AbortSignal): Promise<Outcomes["refund"]>;
  /** Sends money to a bank. */
  payout(key: string, order: PayoutOrder, signal: AbortSignal): Promise<Outcomes["payout"]>;
  /** What became of the call with this key, by now; undefined when none has arrived (it may still). */
  find<K extends keyof Outcomes>(kind: K, key: string, signal: AbortSignal): Promise<Outcomes[K] | undefined>;
  /** The processor's own books. */
  books(currencyCode: string, signal: AbortSignal): Promise<ProcessorBooks>;
}

/** The processor did not answer in time: whether the call took effect is not known. */
export class ProcessorTimeout extends Error {
  constructor(what: string) {
    super(`the payment processor did not answer: ${what}.`);
  }
}

/** The processor could not be reached: the call took no effect. */
export class ProcessorUnreachable extends Error {
  constructor(what: string) {
    super(`the payment processor cannot be reached: ${what}.`);
  }
}
