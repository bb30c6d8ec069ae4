// What an error says about itself, read by callers and by services alike. The client's package carries this file, so it needs nothing of Node.

import { Code, ConnectError } from "@connectrpc/connect";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "#gen/google/rpc/error_details_pb.ts";

/** The domain of every reason of this platform, in `google.rpc.ErrorInfo.domain`. */
export const ERROR_DOMAIN = "souk";

/** What is wrong with one field: its path in the request, such as `lines[2].quantity`, and why. */
export interface Violation {
  readonly field: string;
  readonly description: string;
  /** The id of the rule that was broken, such as `string.max_len`. */
  readonly rule?: string;
}

const NAMED_BY_CODE: ReadonlyMap<Code, string> = new Map([
  [Code.DeadlineExceeded, "DEADLINE_EXCEEDED"],
  [Code.Canceled, "CANCELLED"],
  [Code.Unavailable, "UNAVAILABLE"],
]);

/**
 * The name of an error's reason, whether it was thrown here or came over a transport. A client's own failures carry no details: a
 * deadline that passed, a cancelled call and a server out of reach are named by their code. Undefined for anything else.
 */
export function reasonOf(error: unknown): string | undefined {
  if (!(error instanceof ConnectError)) {
    return undefined;
  }
  return errorInfoOf(error)?.reason ?? NAMED_BY_CODE.get(error.code);
}

/** The metadata of an error's reason; empty when it has none. */
export function metadataOf(error: unknown): Readonly<Record<string, string>> {
  return (error instanceof ConnectError ? errorInfoOf(error)?.metadata : undefined) ?? {};
}

/** The fields an error finds fault with; empty when it names none. */
export function violationsOf(error: unknown): readonly Violation[] {
  const details = error instanceof ConnectError ? error.findDetails(BadRequestSchema) : [];
  return details.flatMap((detail) =>
    detail.fieldViolations.map((v) => ({ field: v.field, description: v.description, rule: v.reason })),
  );
}

/** The least wait in milliseconds before another attempt is worth it; undefined when the error does not invite one. */
export function retryAfterMsOf(error: unknown): number | undefined {
  const delay = error instanceof ConnectError ? error.findDetails(RetryInfoSchema)[0]?.retryDelay : undefined;
  return delay && Number(delay.seconds) * 1000 + Math.ceil(delay.nanos / 1_000_000);
}

function errorInfoOf(error: ConnectError) {
  return error.findDetails(ErrorInfoSchema).find((info) => info.domain === ERROR_DOMAIN);
}
