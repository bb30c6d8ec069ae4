import { Code } from "@connectrpc/connect";
import { reason } from "#runtime/errors.ts";

/** No payment with this id. */
export const PAYMENT_NOT_FOUND = reason("PAYMENT_NOT_FOUND", Code.NotFound, "There is no such payment.");

/** The payment_id is taken by a payment with other contents, or was voided before it came to be. Metadata: `payment_id`. */
export const PAYMENT_CONFLICT = reason(
  "PAYMENT_CONFLICT",
  Code.AlreadyExists,
  "This payment_id belongs to a payment with other contents, or was voided before it was authorized.",
);

/** The payment's state does not allow this. Metadata: `state`. */
export const PAYMENT_STATE_CONFLICT = reason(
  "PAYMENT_STATE_CONFLICT",
  Code.FailedPrecondition,
  "The payment's state does not allow this.",
);

/** The processor or the buyer's bank refused. Metadata: `decline_reason`. */
export const PAYMENT_DECLINED = reason("PAYMENT_DECLINED", Code.FailedPrecondition, "The payment was declined.");

/** The buyer's payment method has not enough money behind it. */
export const INSUFFICIENT_FUNDS = reason(
  "INSUFFICIENT_FUNDS",
  Code.FailedPrecondition,
  "The payment method has not enough money behind it.",
);

/** The processor does not know the token. */
export const PAYMENT_METHOD_INVALID = reason(
  "PAYMENT_METHOD_INVALID",
  Code.InvalidArgument,
  "The processor does not know this payment method.",
);

/** The authorization ran out before the money was taken. */
export const AUTHORIZATION_EXPIRED = reason(
  "AUTHORIZATION_EXPIRED",
  Code.FailedPrecondition,
  "The authorization ran out before it was captured.",
);

/** The lines are not all in one currency. */
export const MIXED_CURRENCIES = reason("MIXED_CURRENCIES", Code.InvalidArgument, "All lines of a payment are in one currency.");

/** The processor did not answer: whether it did what it was asked is being found out. Repeat the command. */
export const PROCESSOR_OUTCOME_UNKNOWN = reason(
  "PROCESSOR_OUTCOME_UNKNOWN",
  Code.Unavailable,
  "The payment processor did not answer; its outcome is being asked for. Repeat the call.",
);

/** The processor cannot be reached; it was asked for nothing. Repeat the command. */
export const PROCESSOR_UNAVAILABLE = reason(
  "PROCESSOR_UNAVAILABLE",
  Code.Unavailable,
  "The payment processor is out of reach. Repeat the call.",
);

/** More than is available. Metadata: `available_minor`. */
export const BALANCE_TOO_LOW = reason(
  "BALANCE_TOO_LOW",
  Code.FailedPrecondition,
  "The balance is lower than the amount asked for.",
);

/** The account has set no payout destination for the currency. */
export const PAYOUT_DESTINATION_MISSING = reason(
  "PAYOUT_DESTINATION_MISSING",
  Code.FailedPrecondition,
  "The account has no payout destination for this currency.",
);

/** The payout destination takes another currency. Metadata: `currency_code`. */
export const PAYOUT_CURRENCY_MISMATCH = reason(
  "PAYOUT_CURRENCY_MISMATCH",
  Code.FailedPrecondition,
  "The payout destination takes another currency.",
);

/** No payout with this id, or none of the caller's. */
export const PAYOUT_NOT_FOUND = reason("PAYOUT_NOT_FOUND", Code.NotFound, "There is no such payout.");

/** The time lies before the first fee schedule. */
export const FEE_SCHEDULE_NOT_FOUND = reason("FEE_SCHEDULE_NOT_FOUND", Code.NotFound, "No fee schedule was in force at this time.");
