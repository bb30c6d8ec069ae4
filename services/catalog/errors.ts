import { Code } from "@connectrpc/connect";
import { reason } from "#runtime/errors.ts";

/** No listing with this id, or none that the caller may see. */
export const LISTING_NOT_FOUND = reason("LISTING_NOT_FOUND", Code.NotFound, "There is no such listing.");

/** The listing is another seller's. */
export const NOT_YOUR_LISTING = reason("NOT_YOUR_LISTING", Code.PermissionDenied, "Only its seller may change a listing.");

/** The listing's state does not allow the change. Metadata: `state`. */
export const LISTING_NOT_EDITABLE = reason(
  "LISTING_NOT_EDITABLE",
  Code.FailedPrecondition,
  "The listing's state does not allow this.",
);

/** Units of the listing are set aside for a buyer's order. */
export const UNITS_RESERVED = reason(
  "UNITS_RESERVED",
  Code.FailedPrecondition,
  "Units of the listing are set aside for an order. Try again when that order has ended.",
);

/** No category with this id. Metadata: `category_id`. */
export const CATEGORY_NOT_FOUND = reason("CATEGORY_NOT_FOUND", Code.NotFound, "There is no such category.");

/** The category has categories below it. Metadata: `category_id`. */
export const CATEGORY_NOT_LEAF = reason(
  "CATEGORY_NOT_LEAF",
  Code.InvalidArgument,
  "Listings stand only in categories without categories below them. Choose one of those.",
);

/** The seller used the external_id for other contents. Metadata: `external_id`, `listing_id`. */
export const EXTERNAL_ID_CONFLICT = reason(
  "EXTERNAL_ID_CONFLICT",
  Code.AlreadyExists,
  "Another listing of yours has this external_id and was created with other contents. Update that listing instead.",
);

/** The price of an active listing was given in another currency. Metadata: `currency_code`. */
export const CURRENCY_FIXED = reason(
  "CURRENCY_FIXED",
  Code.FailedPrecondition,
  "An active listing keeps its currency. Withdraw it and create another one.",
);
