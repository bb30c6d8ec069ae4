import { Code } from "@connectrpc/connect";
import { reason } from "#runtime/errors.ts";

/** The listing has no stock: it was never published. Metadata: `listing_id`. */
export const LISTING_NOT_FOUND = reason("LISTING_NOT_FOUND", Code.NotFound, "There is no stock of such a listing.");

/** The listing is bound to another seller. Metadata: `listing_id`. */
export const NOT_YOUR_LISTING = reason(
  "NOT_YOUR_LISTING",
  Code.PermissionDenied,
  "Only its seller may set the units of a listing.",
);

/** Units are set aside, and the caller asked to be refused then. Metadata: `listing_id`, `reserved_units`. */
export const UNITS_RESERVED = reason(
  "UNITS_RESERVED",
  Code.FailedPrecondition,
  "Units of the listing are set aside for an order. Try again when that order has ended.",
);

/** Not as many units are available as the caller expected. Metadata: `listing_id`, `available_units`. */
export const UNITS_CHANGED = reason(
  "UNITS_CHANGED",
  Code.Aborted,
  "The available units have changed since they were read. Read them again and repeat the change.",
);

/** Fewer units are available than are wanted. Metadata: `listing_id`, `available_units`. */
export const OUT_OF_STOCK = reason("OUT_OF_STOCK", Code.FailedPrecondition, "Fewer units are available than are wanted.");

/** There is a reservation of this id with other lines; one that was released before it was made has none. Metadata: `reservation_id`. */
export const RESERVATION_CONFLICT = reason(
  "RESERVATION_CONFLICT",
  Code.AlreadyExists,
  "There is a reservation of this id with other lines.",
);

/** A reservation lasts from 1 second to 24 hours. Metadata: `expire_time`, in milliseconds since the epoch. */
export const EXPIRE_TIME_INVALID = reason(
  "EXPIRE_TIME_INVALID",
  Code.InvalidArgument,
  "A reservation expires from 1 second to 24 hours from now.",
);

/** No reservation of this id. Metadata: `reservation_id`. */
export const RESERVATION_NOT_FOUND = reason("RESERVATION_NOT_FOUND", Code.NotFound, "There is no such reservation.");

/** Its units were given back by a command. Metadata: `reservation_id`. */
export const RESERVATION_RELEASED = reason(
  "RESERVATION_RELEASED",
  Code.FailedPrecondition,
  "The reservation was released: its units are on sale again.",
);

/** Its time has run out. Metadata: `reservation_id`. */
export const RESERVATION_EXPIRED = reason(
  "RESERVATION_EXPIRED",
  Code.FailedPrecondition,
  "The reservation has expired: its units are on sale again.",
);

/** Its units are sold. Metadata: `reservation_id`. */
export const RESERVATION_COMMITTED = reason(
  "RESERVATION_COMMITTED",
  Code.FailedPrecondition,
  "The reservation was committed: its units are sold.",
);
