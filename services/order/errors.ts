import { Code } from "@connectrpc/connect";
import { reason } from "#runtime/errors.ts";

// The reasons of the order service. Some are first given by a neighbour (inventory, payment, account); the saga translates them.

/** A listing does not exist, or the buyer may not see it. */
export const LISTING_NOT_FOUND = reason("LISTING_NOT_FOUND", Code.NotFound, "There is no such listing.");
/** A listing is not on sale. */
export const LISTING_NOT_AVAILABLE = reason("LISTING_NOT_AVAILABLE", Code.FailedPrecondition, "The listing is not on sale.");
/** A buyer wants to buy of itself. */
export const OWN_LISTING = reason("OWN_LISTING", Code.FailedPrecondition, "An account cannot buy its own listing.");
/** The listings of one order belong to more than one seller. */
export const MIXED_SELLERS = reason(
  "MIXED_SELLERS",
  Code.InvalidArgument,
  "An order buys from one seller. Place an order for each.",
);
/** The lines of one order are in more than one currency. */
export const MIXED_CURRENCIES = reason(
  "MIXED_CURRENCIES",
  Code.InvalidArgument,
  "An order is in one currency. Place an order for each.",
);
/** The price agreed to is not the price now. Metadata: listing_id, amount_minor, currency_code. */
export const PRICE_CHANGED = reason(
  "PRICE_CHANGED",
  Code.FailedPrecondition,
  "The price has changed. Ask the buyer to agree to the new one.",
);
/** Another buyer was faster. Metadata: listing_id, available_units. */
export const OUT_OF_STOCK = reason("OUT_OF_STOCK", Code.FailedPrecondition, "There are not enough units left.");
/** The buyer has no such address. */
export const ADDRESS_NOT_FOUND = reason("ADDRESS_NOT_FOUND", Code.NotFound, "The buyer has no such address.");
/** The processor refused, or the authorization is not there any more. */
export const PAYMENT_DECLINED = reason(
  "PAYMENT_DECLINED",
  Code.FailedPrecondition,
  "The payment was declined. Try another payment method.",
);
/** The processor refused for want of money. */
export const INSUFFICIENT_FUNDS = reason(
  "INSUFFICIENT_FUNDS",
  Code.FailedPrecondition,
  "There is not enough money behind the payment method.",
);
/** The processor does not know the payment method's token. */
export const PAYMENT_METHOD_INVALID = reason(
  "PAYMENT_METHOD_INVALID",
  Code.InvalidArgument,
  "The processor does not know this payment method.",
);
/** The purchase took longer than its units were set aside; no money was kept. */
export const RESERVATION_EXPIRED = reason(
  "RESERVATION_EXPIRED",
  Code.FailedPrecondition,
  "The purchase took too long and was given up. Place a new order.",
);
/** The order does not exist, or is none of the caller's business. */
export const ORDER_NOT_FOUND = reason("ORDER_NOT_FOUND", Code.NotFound, "There is no such order.");
/** The order's state does not allow it, or does not any more. Metadata: order_id, state. */
export const ORDER_STATE_CONFLICT = reason(
  "ORDER_STATE_CONFLICT",
  Code.FailedPrecondition,
  "The order's state does not allow this.",
);
/** A watcher names a change that the order has not had. Metadata: sequence. */
export const SEQUENCE_AHEAD = reason(
  "SEQUENCE_AHEAD",
  Code.OutOfRange,
  "The order has had fewer changes. Watch it from its state now: with after_sequence 0.",
);
/** An account watches too many orders at once. */
export const TOO_MANY_WATCHES = reason(
  "TOO_MANY_WATCHES",
  Code.ResourceExhausted,
  "The account watches too many orders at once. End a stream first.",
);
