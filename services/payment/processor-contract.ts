// The contract between payment and a payment processor over HTTP, as docs/processor.md says it: what its JSON means, read by either side.

import type { AuthorizationOrder, Outcomes, PayoutOrder, ProcessorBooks } from "./processor.ts";

/** The header with the key of a command: a repeat under it has no further effect and gets the first outcome. */
export const KEY_HEADER = "idempotency-key";
/** The header in which payment says which books it is with: a processor with other ones does nothing. */
export const BOOKS_HEADER = "souk-processor-id";
/** The most bytes of a request or an answer. */
export const MAX_BYTES = 16_384;

/** Who a processor is. */
export interface ProcessorIdentity {
  /** Tells these books from others; at most 64 characters. */
  readonly processorId: string;
  /** Whether no real money moves. */
  readonly simulated: boolean;
}

/** Why a processor does not do what it was asked, for certain. Any other error leaves that open. */
export type ErrorCode =
  /** What was asked makes no sense, now or ever: a mistake of the program. */
  | "REFUSED"
  /** The bearer token is missing or wrong. */
  | "UNAUTHENTICATED"
  /** The books are not those that BOOKS_HEADER names. */
  | "OTHER_BOOKS"
  /** Not now; nothing was done. */
  | "UNAVAILABLE";

/** The answer is not one of the contract's. */
export class NotInContract extends Error {}

/** A JSON object of the contract. */
export type Fields = Readonly<Record<string, unknown>>;

/** Reads a JSON object. */
export function fieldsOf(text: string): Fields {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Fields;
  } catch {
    // No JSON.
  }
  throw new NotInContract("it is no JSON object");
}

/** Reads a text of 1 to `most` characters. */
export function textOf(fields: Fields, name: string, most = 200): string {
  const value = fields[name];
  if (typeof value === "string" && value.length > 0 && value.length <= most) return value;
  throw new NotInContract(`${name} is no text of 1 to ${most} characters`);
}

function amountOf(fields: Fields, name: string): bigint {
  const value = fields[name];
  if (typeof value === "string" && /^(0|[1-9]\d{0,18})$/.test(value)) return BigInt(value);
  throw new NotInContract(`${name} is no amount: a whole number in minor units, as a text`);
}

/** Reads a code of ISO 4217. */
export function currencyOf(fields: Fields): string {
  const code = textOf(fields, "currencyCode");
  if (/^[A-Z]{3}$/.test(code)) return code;
  throw new NotInContract("currencyCode is no currency");
}

function moneyOf(fields: Fields): { amountMinor: bigint; currencyCode: string } {
  const amountMinor = amountOf(fields, "amountMinor");
  if (amountMinor === 0n) throw new NotInContract("amountMinor is 0");
  return { amountMinor, currencyCode: currencyOf(fields) };
}

/** Reads what is to be authorized. */
export function authorizationOrder(fields: Fields): AuthorizationOrder {
  return { ...moneyOf(fields), paymentMethodToken: textOf(fields, "paymentMethodToken") };
}

/** Reads what is to be paid out. */
export function payoutOrder(fields: Fields): PayoutOrder {
  return { ...moneyOf(fields), destinationToken: textOf(fields, "destinationToken") };
}

/** Reads who a processor is. */
export function identityOf(fields: Fields): ProcessorIdentity {
  const { simulated } = fields;
  if (typeof simulated !== "boolean") throw new NotInContract("simulated is neither true nor false");
  return { processorId: textOf(fields, "processorId", 64), simulated };
}

/** Reads the processor's books. */
export function booksOf(fields: Fields): ProcessorBooks {
  return {
    capturedMinor: amountOf(fields, "capturedMinor"),
    refundedMinor: amountOf(fields, "refundedMinor"),
    paidOutMinor: amountOf(fields, "paidOutMinor"),
  };
}

/** Reads the outcome of a void. */
export function voidOf(fields: Fields): { readonly state: "voided" | "not_found" } {
  return { state: stateOf(fields, ["voided", "not_found"]) };
}

const DECLINES = ["PAYMENT_DECLINED", "INSUFFICIENT_FUNDS", "PAYMENT_METHOD_INVALID"] as const;

/** What each kind of outcome is read with. */
export const OUTCOMES: { readonly [K in keyof Outcomes]: (fields: Fields) => Outcomes[K] } = {
  authorization(fields) {
    const state = stateOf(fields, ["approved", "confirm", "declined", "dropped"]);
    switch (state) {
      case "confirm":
        return { state, confirmationUrl: pageOf(fields) };
      case "declined": {
        // A reason that is not on the list is one all the same: the payment is declined.
        const reason = DECLINES.find((each) => each === fields.reason) ?? "PAYMENT_DECLINED";
        return { state, reason };
      }
      default:
        return { state };
    }
  },
  capture: (fields) => ({ state: stateOf(fields, ["captured", "expired"]) }),
  refund: (fields) => ({ state: stateOf(fields, ["refunded"]) }),
  payout(fields) {
    const state = stateOf(fields, ["pending", "paid", "failed"]);
    if (state !== "failed") return { state };
    const reason = textOf(fields, "reason", 100);
    return { state, reason: /^[A-Z][A-Z0-9_]*$/.test(reason) ? reason : "FAILED" };
  },
};

function stateOf<const S extends string>(fields: Fields, allowed: readonly S[]): S {
  const state = allowed.find((each) => each === fields.state);
  if (state !== undefined) return state;
  throw new NotInContract(`state is none of ${allowed.join(", ")}`);
}

function pageOf(fields: Fields): string {
  const url = textOf(fields, "confirmationUrl", 2_000);
  if (/^https?:$/.test(URL.parse(url)?.protocol ?? "")) return url;
  throw new NotInContract("confirmationUrl is no web address");
}

/** Writes any value of the contract: amounts as texts, because JSON's numbers are not exact. */
export function jsonOf(value: object): string {
  return JSON.stringify(value, (_name, each: unknown) => (typeof each === "bigint" ? each.toString() : each));
}
