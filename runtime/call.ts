import type { DescMethod } from "@bufbuild/protobuf";
import { createContextKey, type HandlerContext } from "@connectrpc/connect";
import { fail, PERMISSION_DENIED, TOKEN_MISSING } from "#runtime/errors.ts";
import type { Log } from "#runtime/log.ts";

/** Who is calling: nobody we know, an account, or a service (for itself, or for the account it names). */
export type Caller =
  | { readonly kind: "anonymous" }
  | { readonly kind: "account"; readonly accountId: string; readonly operator: boolean }
  | { readonly kind: "service"; readonly service: string; readonly accountId?: string };

/** One call as its handler sees it, after identity, policy and validation. */
export interface Call {
  readonly caller: Caller;
  /** When the call ends whatever happens: the caller's deadline or the method's timeout, in ms since the epoch. Infinity on a stream. */
  readonly deadline: number;
  /** Aborted when the deadline passes or the caller goes away. Hand it on. */
  readonly signal: AbortSignal;
  /** Carries the method and the caller's id. */
  readonly log: Log;
  readonly method: DescMethod;
  /** The `request_id` of a command. */
  readonly requestId?: string;
}

/** Where the interceptors put the call. Handlers use `callOf`. */
export const callKey = createContextKey<Call | undefined>(undefined, { description: "souk call" });

/** The call that a handler serves. Throws where the interceptors did not run: that is a mistake in the wiring. */
export function callOf(context: Pick<HandlerContext, "values">): Call {
  const call = context.values.get(callKey);
  if (call === undefined) {
    throw new Error("This handler runs without the runtime's interceptors: it has no call.");
  }
  return call;
}

/** The account that calls, or for which a service calls. Fails with TOKEN_MISSING or PERMISSION_DENIED when there is none. */
export function accountOf(call: Pick<Call, "caller">): string {
  const accountId = accountIfAny(call);
  if (accountId !== undefined) {
    return accountId;
  }
  return call.caller.kind === "anonymous"
    ? fail(TOKEN_MISSING)
    : fail(PERMISSION_DENIED, { message: "This method acts for an account, and the calling service named none." });
}

/** The account that calls, or for which a service calls; undefined when there is none. */
export function accountIfAny(call: Pick<Call, "caller">): string | undefined {
  return call.caller.kind === "anonymous" ? undefined : call.caller.accountId;
}

/** Whether an operator calls. */
export function isOperator(call: Pick<Call, "caller">): boolean {
  return call.caller.kind === "account" && call.caller.operator;
}

/** Whether a service calls, of any name, or of the given one. */
export function isService(call: Pick<Call, "caller">, service?: string): boolean {
  return call.caller.kind === "service" && (service === undefined || call.caller.service === service);
}

/** Names a caller in one word for a log line, such as `account:019…`. */
export function callerName(caller: Caller): string {
  switch (caller.kind) {
    case "anonymous":
      return "anonymous";
    case "account":
      return `account:${caller.accountId}`;
    case "service":
      return caller.accountId === undefined ? `service:${caller.service}` : `service:${caller.service}:${caller.accountId}`;
  }
}
