import type { DescMethod, Message } from "@bufbuild/protobuf";
import {
  ConnectError,
  createContextKey,
  type HandlerContext,
  type Interceptor,
  type StreamRequest,
  type StreamResponse,
  type UnaryRequest,
  type UnaryResponse,
} from "@connectrpc/connect";
import { ErrorInfoSchema } from "#gen/google/rpc/error_details_pb.ts";
import { ACCOUNT_HEADER, admit, identify, SERVICE_TOKEN_HEADER, type Verifiers } from "#runtime/access.ts";
import { type Call, type Caller, callerName, callKey } from "#runtime/call.ts";
import {
  CANCELLED,
  DEADLINE_EXCEEDED,
  failure,
  INTERNAL,
  MALFORMED_REQUEST,
  openDetails,
  reasonOf,
  UNAVAILABLE,
} from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import type { Log } from "#runtime/log.ts";
import { type MethodPolicy, methodName } from "#runtime/policy.ts";
import { byCode, readingFailure } from "#runtime/refusals.ts";
import type { Validation } from "#runtime/validation.ts";

/** What every call is measured against. */
export interface Duties {
  readonly policies: ReadonlyMap<DescMethod, MethodPolicy>;
  readonly verifiers: Verifiers;
  readonly validation: Validation;
  readonly log: Log;
  /** Aborted when the process stops: streams end, unary calls finish. */
  readonly shutdown: AbortSignal;
}

/** A call that passed the gate. */
export interface Arrival {
  readonly method: DescMethod;
  readonly policy: MethodPolicy;
  readonly caller: Caller;
  /** Milliseconds since the process began. */
  readonly startTime: number;
  /** Milliseconds since the epoch. */
  readonly deadline: number;
  /** Whether the request was read and the interceptor took over, which then answers for errors and the log. */
  began: boolean;
}

/** Where the gate leaves the arrival for the interceptor and for the reader of the body. */
export const arrivalKey = createContextKey<Arrival | undefined>(undefined, { description: "souk arrival" });

/** Why a stream's signal aborts when its age or the process ends: it then ends well, and its client resumes. */
const STREAM_OVER = Symbol("the stream is over");

/**
 * What runs before a request's body is read: identity, access, and the deadline, which counts from here. A request refused here is
 * neither read nor decompressed nor parsed.
 */
export function createGate(duties: Duties): (context: HandlerContext) => Promise<void> {
  return async (context) => {
    const startTime = performance.now();
    const { method } = context;
    let caller: Caller = { kind: "anonymous" };
    try {
      const policy = duties.policies.get(method) as MethodPolicy;
      const boundMs = Math.min(context.timeoutMs() ?? Infinity, policy.timeoutMs ?? policy.maxStreamAgeMs ?? Infinity);
      const deadline = Date.now() + boundMs;
      caller = await identify(context, duties.verifiers);
      admit(caller, policy);
      checkQuery(context);
      const arrival: Arrival = { method, policy, caller, startTime, deadline, began: false };
      context.values.set(arrivalKey, arrival);
      nameReadingErrors(context, arrival, duties);
    } catch (error) {
      const answer = presentable(error, duties.log, method);
      logCall(duties.log, { method, caller, startTime }, answer);
      throw answer;
    }
  };
}

/** The library meets broken base64 in the URL of a GET with an error that it would answer as our fault. */
function checkQuery(context: HandlerContext): void {
  if (context.requestMethod !== "GET") return;
  const query = new URL(context.url).searchParams;
  if (query.get("base64") === "1" && !/^[A-Za-z0-9+/_-]*={0,2}$/.test(query.get("message") ?? "")) {
    throw failure(MALFORMED_REQUEST, { message: "The message in the URL is not base64." });
  }
}

/**
 * Gives reasons to the errors that the library raises between the gate and the interceptor. It aborts the context with the error just
 * before it writes it in the protocol's own form: the one moment at which all protocols can be told of a reason.
 */
function nameReadingErrors(context: HandlerContext, arrival: Arrival, duties: Duties): void {
  context.signal.addEventListener(
    "abort",
    () => {
      const error: unknown = context.signal.reason;
      if (arrival.began || !(error instanceof ConnectError)) return;
      const named = readingFailure(error);
      if (named !== error) {
        Object.assign(error, { code: named.code, rawMessage: named.rawMessage, message: named.message, details: named.details });
      }
      logCall(duties.log, arrival, error);
    },
    { once: true },
  );
}

/** What runs around every handler: the deadline, validation, errors with reasons, the log. */
export function createInterceptor(duties: Duties): Interceptor {
  return (next) => async (request) => {
    const arrival = request.contextValues.get(arrivalKey);
    if (arrival === undefined) {
      throw new Error("The gate did not run: it belongs in front of this interceptor.");
    }
    arrival.began = true;
    return request.stream ? serveStream(duties, arrival, request, next) : serveUnary(duties, arrival, request, next);
  };
}

async function serveUnary(
  duties: Duties,
  arrival: Arrival,
  request: UnaryRequest,
  next: (request: UnaryRequest) => Promise<UnaryResponse | StreamResponse>,
): Promise<UnaryResponse> {
  const bound = bind(arrival, request.signal);
  try {
    if (bound.signal.aborted) {
      throw bound.signal.reason;
    }
    duties.validation.check(arrival.method.input, request.message);
    takeCall(duties, arrival, request, bound.signal, (request.message as { requestId?: unknown }).requestId);
    const response = (await Promise.race([next({ ...request, signal: bound.signal }), bound.over])) as UnaryResponse;
    if (request.requestMethod === "GET") {
      response.header.set("cache-control", cacheControl(arrival));
    }
    logCall(duties.log, arrival);
    return response;
  } catch (error) {
    const answer = presentable(bound.signal.aborted ? bound.signal.reason : error, duties.log, arrival.method);
    logCall(duties.log, arrival, answer);
    throw answer;
  } finally {
    bound.end();
  }
}

async function serveStream(
  duties: Duties,
  arrival: Arrival,
  request: StreamRequest,
  next: (request: StreamRequest) => Promise<UnaryResponse | StreamResponse>,
): Promise<StreamResponse> {
  const over = arrival.policy.maxStreamAgeMs === undefined ? undefined : STREAM_OVER;
  const bound = bind(arrival, request.signal, over, duties.shutdown);
  let ended: { answer: ConnectError | undefined } | undefined;
  const finish = (error?: unknown): ConnectError | undefined => {
    if (ended === undefined) {
      const why = bound.signal.aborted ? bound.signal.reason : error;
      ended = { answer: why === undefined || why === STREAM_OVER ? undefined : presentable(why, duties.log, arrival.method) };
      logCall(duties.log, arrival, ended.answer);
      bound.end();
    }
    return ended.answer;
  };
  try {
    takeCall(duties, arrival, request, bound.signal, undefined);
    const message = checkedInput(duties.validation, arrival.method, request.message);
    const response = (await Promise.race([next({ ...request, signal: bound.signal, message }), bound.over])) as StreamResponse;
    return { ...response, message: boundedOutput(response.message, bound, finish) };
  } catch (error) {
    throw finish(error) ?? failure(UNAVAILABLE);
  }
}

async function* checkedInput(validation: Validation, method: DescMethod, input: AsyncIterable<Message>): AsyncGenerator<Message> {
  const iterator = input[Symbol.asyncIterator]();
  try {
    for (;;) {
      let item: IteratorResult<Message>;
      try {
        item = await iterator.next();
      } catch (error) {
        throw error instanceof ConnectError ? readingFailure(error) : error;
      }
      if (item.done === true) return;
      validation.check(method.input, item.value);
      yield item.value;
    }
  } finally {
    await iterator.return?.();
  }
}

function boundedOutput(
  output: AsyncIterable<Message>,
  bound: Bound,
  finish: (error?: unknown) => ConnectError | undefined,
): AsyncIterable<Message> {
  const iterator = output[Symbol.asyncIterator]();
  const leave = () => {
    finish();
    // A handler that waits for something else does not hold the stream open.
    iterator.return?.().catch(() => {});
  };
  // Nobody may ask for the next message any more: a reader that is gone just stops. The handler has to end all the same.
  bound.over.catch(leave);
  return (async function* () {
    try {
      for (;;) {
        const item = await Promise.race([iterator.next(), bound.over]);
        if (item.done === true) return;
        yield item.value;
      }
    } catch (error) {
      const answer = finish(error);
      if (answer !== undefined) throw answer;
    } finally {
      leave();
    }
  })();
}

/** The time a call has: its signal aborts, and `over` rejects, when the deadline passes or the caller goes away. */
interface Bound {
  readonly signal: AbortSignal;
  readonly over: Promise<never>;
  end(): void;
}

/** The longest delay that a timer takes. */
const MAX_TIMER_MS = 2 ** 31 - 1;

function bind(arrival: Arrival, caller: AbortSignal, atDeadline?: symbol, shutdown?: AbortSignal): Bound {
  const controller = new AbortController();
  let refuse: (reason: unknown) => void = () => {};
  const over = new Promise<never>((_, reject) => {
    refuse = reject;
  });
  over.catch(() => {});
  const abort = (reason: unknown) => {
    if (controller.signal.aborted) return;
    controller.abort(reason);
    refuse(reason);
  };
  const onCaller = () => abort(callerGone(caller.reason));
  const onShutdown = () => abort(STREAM_OVER);
  const leftMs = arrival.deadline - Date.now();
  const timer =
    leftMs === Infinity
      ? undefined
      : setTimeout(() => abort(atDeadline ?? failure(DEADLINE_EXCEEDED)), Math.min(Math.max(leftMs, 0), MAX_TIMER_MS));
  if (leftMs <= 0) abort(atDeadline ?? failure(DEADLINE_EXCEEDED));
  if (caller.aborted) onCaller();
  else caller.addEventListener("abort", onCaller);
  if (shutdown?.aborted) onShutdown();
  else shutdown?.addEventListener("abort", onShutdown);
  return {
    signal: controller.signal,
    over,
    end() {
      clearTimeout(timer);
      caller.removeEventListener("abort", onCaller);
      shutdown?.removeEventListener("abort", onShutdown);
    },
  };
}

/** The library aborts with its own timeout error, with a connection's error, or with nothing. */
function callerGone(reason: unknown): ConnectError {
  return (reason instanceof ConnectError ? byCode(reason) : undefined) ?? failure(CANCELLED, { cause: reason });
}

function takeCall(
  duties: Duties,
  arrival: Arrival,
  request: UnaryRequest | StreamRequest,
  signal: AbortSignal,
  requestId: unknown,
): void {
  const { method, caller, deadline } = arrival;
  let log: Log | undefined;
  const call: Call = {
    caller,
    deadline,
    signal,
    method,
    // Made when asked for: most calls write no line of their own.
    get log() {
      log ??= duties.log.child({ method: methodName(method), caller: callerName(caller) });
      return log;
    },
    ...(typeof requestId === "string" && requestId !== "" ? { requestId } : {}),
  };
  request.contextValues.set(callKey, call);
  // A handler that hands its headers on must not hand on who called it.
  request.header.delete("authorization");
  request.header.delete(SERVICE_TOKEN_HEADER);
  request.header.delete(ACCOUNT_HEADER);
}

/** An answer that may be shared was given to everybody alike; with a token it is the caller's own. */
function cacheControl({ policy, caller }: Arrival): string {
  if (policy.cacheControl === undefined) return "no-store";
  return caller.kind === "anonymous" ? policy.cacheControl : policy.cacheControl.replace("public", "private");
}

/** Reasons of the tokens that we send to other services: when those are refused the fault is ours, not our caller's. */
const OWN_IDENTITY = new Set(["TOKEN_MISSING", "TOKEN_EXPIRED", "TOKEN_INVALID"]);

/** The error as the caller may see it: with a reason, and without anything inner. What is not meant for callers is logged whole. */
export function presentable(error: unknown, log: Log, method: DescMethod): ConnectError {
  if (error instanceof ConnectError) {
    const reason = error.findDetails(ErrorInfoSchema).length > 0 ? reasonOf(error) : undefined;
    if (reason !== undefined && !(OWN_IDENTITY.has(reason) && isFromWire(error))) {
      return openDetails(error);
    }
    const named = reason === undefined ? byCode(error) : undefined;
    if (named !== undefined) {
      return named;
    }
  }
  const errorId = newId();
  log.error({ err: error, error_id: errorId, method: methodName(method) }, "a call failed");
  return failure(INTERNAL, { metadata: { error_id: errorId }, cause: error });
}

function isFromWire(error: ConnectError): boolean {
  return error.details.some((detail) => "type" in detail);
}

/** One line a call. A server's own fault was logged as an error already. */
function logCall(log: Log, call: Pick<Arrival, "method" | "caller" | "startTime">, error?: ConnectError): void {
  if (!log.isLevelEnabled("info")) return;
  log.info({
    method: methodName(call.method),
    caller: callerName(call.caller),
    code: error?.code ?? 0,
    ...(error === undefined ? {} : { reason: reasonOf(error) }),
    ms: Math.round((performance.now() - call.startTime) * 100) / 100,
  });
}
