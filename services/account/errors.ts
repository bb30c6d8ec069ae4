import { Code } from "@connectrpc/connect";
import { reason } from "#runtime/errors.ts";

/** The account has no profile. Metadata: `account_id`. */
export const ACCOUNT_NOT_FOUND = reason("ACCOUNT_NOT_FOUND", Code.NotFound, "There is no account with a profile of this id.");

/** Another account has this name, or one that reads like it. */
export const DISPLAY_NAME_TAKEN = reason(
  "DISPLAY_NAME_TAKEN",
  Code.AlreadyExists,
  "Another account has this name, or one that reads like it. Choose another one.",
);

/** The account has no address of this id. Metadata: `address_id`. */
export const ADDRESS_NOT_FOUND = reason("ADDRESS_NOT_FOUND", Code.NotFound, "There is no such address.");

/** The account has as many addresses as it can have. Metadata: `max_addresses`. */
export const TOO_MANY_ADDRESSES = reason(
  "TOO_MANY_ADDRESSES",
  Code.FailedPrecondition,
  "The account has as many addresses as it can have. Delete one first.",
);

/** The account has not said where payouts in this currency go. Metadata: `currency_code`. */
export const PAYOUT_DESTINATION_MISSING = reason(
  "PAYOUT_DESTINATION_MISSING",
  Code.FailedPrecondition,
  "Say first where payouts in this currency go.",
);
