import type { ReasonName } from "#gen/reasons.ts";
import { reasonOf as nameOf } from "#runtime/error-details.ts";

export { REASONS, type ReasonName } from "#gen/reasons.ts";
export { metadataOf, retryAfterMsOf, type Violation, violationsOf } from "#runtime/error-details.ts";

/** A reason that a newer server has and this package does not know yet. */
export type LaterReason = string & Record<never, never>;

/**
 * The reason of an error, such as "OUT_OF_STOCK". A failure that no server answered has one, too: UNAVAILABLE, DEADLINE_EXCEEDED or CANCELLED.
 * Undefined for what is no failure of a call.
 */
export const reasonOf: (error: unknown) => ReasonName | LaterReason | undefined = nameOf;
