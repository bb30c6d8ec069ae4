import type { DescMethod, DescMethodUnary, Registry } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { ErrorInfoSchema } from "#gen/google/rpc/error_details_pb.ts";
import { ACCOUNT_HEADER, admit, identify, SERVICE_TOKEN_HEADER, type Verifiers } from "#runtime/access.ts";
import { type Caller, callerName } from "#runtime/call.ts";
import { reasonOf, retryAfterMsOf } from "#runtime/error-details.ts";
import { DEPENDENCY_UNAVAILABLE, failure, INTERNAL, openDetails, withoutReason } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { type Log, plainLog } from "#runtime/log.ts";
import { CLIENT_CERT_HEADER } from "#runtime/mesh-identity.ts";
import { type MethodPolicy, methodName } from "#runtime/policy.ts";
import { byCode } from "#runtime/refusals.ts";
import type { UnaryCall } from "#runtime/rpc/call.ts";
import type { UnaryDuties, UnaryMethod } from "#runtime/rpc/method.ts";
import { Watch } from "#runtime/rpc/watch.ts";
import type { CallObserver } from "#runtime/telemetry/observer.ts";
import type { Validation } from "#runtime/validation.ts";

/** What every call is measured against. */
export interface Duties {
  readonly policies: ReadonlyMap<DescMethod, MethodPolicy>;
  readonly verifiers: Verifiers;
  readonly validation: Validation;
  readonly log: Log;
  /** Whether errors carry reasons. Without, handlers' errors leave as they were thrown. */
  readonly reasons: boolean;
  /** The messages of the served contracts: what a `google.protobuf.Any` holds as JSON. */
  readonly types: Registry;
  /** Aborted when the process stops: streams end, unary calls finish. */
  readonly shutdown: AbortSignal;
  readonly observer: CallObserver | undefined;
}

/** Headers that say who calls. A handler that hands its headers on must not hand these on. */
export const IDENTITY_HEADERS: ReadonlySet<string> = new Set([
  "authorization",
  SERVICE_TOKEN_HEADER,
  ACCOUNT_HEADER,
  CLIENT_CERT_HEADER,
]);

/** The duties of a unary method's calls: identity, access, validation, errors with reasons, the log. */
function unaryDuties(duties: Duties, desc: DescMethodUnary, policy: MethodPolicy): UnaryDuties {
  const { verifiers, validation, log } = duties;
  const name = methodName(desc);
  const lines = log.isLevelEnabled("info") ? plainLog(log) : undefined;
  const take = (call: UnaryCall, caller: Caller) => {
    call.caller = caller;
    admit(caller, policy);
  };
  return {
    admit(call) {
      const caller = identify(call, verifiers);
      return caller instanceof Promise ? caller.then((known) => take(call, known)) : take(call, caller);
    },
    check: (call, message) => validation.check(call.rpc.desc.input, message),
    presentable: (call, error) => presentable(error, duties, call.method),
    ended(call, error) {
      if (lines !== undefined) writeCall(lines, name, call, error);
    },
    logFor: (call) => log.child({ method: name, caller: callerName(call.caller) }),
    hiddenHeaders: IDENTITY_HEADERS,
  };
}

/** Puts unary methods behind their duties. The calls of all of them are watched by one timer. */
export function methodFactory(
  duties: Duties,
  maxResponseBytes: number,
): (desc: DescMethodUnary, implementation: UnaryMethod["implementation"]) => UnaryMethod {
  const watch = new Watch();
  return (desc, implementation) => {
    const policy = duties.policies.get(desc) as MethodPolicy;
    // An answer that may be shared was given to everybody alike; with a token it is the caller's own.
    const cacheControl = policy.cacheControl ?? "no-store";
    const ownCacheControl = cacheControl.replace("public", "private");
    return {
      desc,
      implementation,
      timeoutMs: policy.timeoutMs ?? Number.POSITIVE_INFINITY,
      types: duties.types,
      maxRequestBytes: policy.maxRequestBytes,
      maxResponseBytes,
      readsOnly: desc.idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS,
      cacheControl: ({ caller }) => (caller.kind === "anonymous" ? cacheControl : ownCacheControl),
      duties: unaryDuties(duties, desc, policy),
      watch,
      observer: duties.observer,
    };
  };
}

/** Reasons of the tokens that we send to other services: when those are refused the fault is ours, not our caller's. */
const OWN_IDENTITY = new Set(["TOKEN_MISSING", "TOKEN_EXPIRED", "TOKEN_INVALID"]);

/** The error as the caller may see it: with a reason, and without anything inner. What is not meant for callers is logged whole. */
export function presentable(error: unknown, { log, reasons }: Duties, method: DescMethod): ConnectError {
  if (error instanceof ConnectError && !reasons) return withoutReason(error);
  if (error instanceof ConnectError) {
    if (error.code === Code.Unavailable && isFromElsewhere(error)) return exhausted(error);
    const reason = error.findDetails(ErrorInfoSchema).length > 0 ? reasonOf(error) : undefined;
    if (reason !== undefined && !(OWN_IDENTITY.has(reason) && isFromElsewhere(error))) {
      return openDetails(error);
    }
    const named = reason === undefined ? byCode(error) : undefined;
    if (named !== undefined) {
      return named;
    }
  }
  const errorId = newId();
  log.error({ err: error, error_id: errorId, method: methodName(method) }, "a call failed");
  const hidden = failure(INTERNAL, { metadata: { error_id: errorId }, cause: error });
  return reasons ? hidden : withoutReason(hidden);
}

/** Whether an error came from another service, rather than from this one's own doing. */
function isFromElsewhere(error: ConnectError): boolean {
  return error.details.some((detail) => "type" in detail);
}

const RETRY_AFTER_MS = 1000;

/** What another service could not do, with its reason for whoever looks into it. */
function exhausted(error: ConnectError): ConnectError {
  const reason = reasonOf(error);
  return failure(DEPENDENCY_UNAVAILABLE, {
    retryAfterMs: retryAfterMsOf(error) ?? RETRY_AFTER_MS,
    metadata: reason === undefined ? {} : { cause: reason },
    cause: error,
  });
}

/** One line a call. A server's own fault was logged as an error already. */
export function logCall(log: Log, call: { method: DescMethod; caller: Caller; startTime: number }, error?: ConnectError): void {
  if (log.isLevelEnabled("info")) writeCall(plainLog(log), methodName(call.method), call, error);
}

function writeCall(
  lines: Log,
  method: string,
  { caller, startTime }: { caller: Caller; startTime: number },
  error: ConnectError | undefined,
): void {
  const ms = Math.round((performance.now() - startTime) * 100) / 100;
  if (error === undefined) lines.info({ method, caller: callerName(caller), code: 0, ms });
  else lines.info({ method, caller: callerName(caller), code: error.code, reason: reasonOf(error), ms });
}
