import type { DescMethod, Message } from "@bufbuild/protobuf";
import {
  ConnectError,
  createContextKey,
  type HandlerContext,
  type Interceptor,
  type StreamRequest,
  type StreamResponse,
  type UnaryResponse,
} from "@connectrpc/connect";
import { admit, identify } from "#runtime/access.ts";
import { type Call, type Caller, callerName, callKey } from "#runtime/call.ts";
import { type Duties, IDENTITY_HEADERS, logCall, presentable } from "#runtime/duties.ts";
import { CANCELLED, DEADLINE_EXCEEDED, failure, UNAVAILABLE } from "#runtime/errors.ts";
import type { Log } from "#runtime/log.ts";
import { type MethodPolicy, methodName } from "#runtime/policy.ts";
import { byCode, readingFailure } from "#runtime/refusals.ts";
import type { Carriage, ObservedCall } from "#runtime/telemetry/observer.ts";
import type { Validation } from "#runtime/validation.ts";

/** A call that passed the gate. */
export interface Arrival {
  readonly method: DescMethod;
  readonly policy: MethodPolicy;
  readonly caller: Caller;
  /** Milliseconds since the process began. */
  readonly startTime: number;
  /** Milliseconds since the epoch. */
  readonly deadline: number;
  /** Whether the deadline is the end of a stream's age, at which it ends well; its caller's own time is over with an error. */
  readonly ages: boolean;
  /** Whether the request was read and the interceptor took over, which then answers for errors and the log. */
  began: boolean;
  readonly observed: ObservedCall | undefined;
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
    const header = (name: string) => context.requestHeader.get(name) ?? undefined;
    const observed = duties.observer?.serverCall({ method, carriage: context.protocolName as Carriage, header });
    let caller: Caller = { kind: "anonymous" };
    try {
      const policy = duties.policies.get(method) as MethodPolicy;
      const timeoutMs = context.timeoutMs() ?? Infinity;
      const boundMs = Math.min(timeoutMs, policy.timeoutMs ?? policy.maxStreamAgeMs ?? Infinity);
      const deadline = Date.now() + boundMs;
      caller = await identify({ header }, duties.verifiers);
      admit(caller, policy);
      const ages = policy.maxStreamAgeMs !== undefined && boundMs < timeoutMs;
      const arrival: Arrival = { method, policy, caller, startTime, deadline, ages, began: false, observed };
      context.values.set(arrivalKey, arrival);
      nameReadingErrors(context, arrival, duties);
    } catch (error) {
      const answer = within(observed, () => {
        const told = presentable(error, duties, method);
        logCall(duties.log, { method, caller, startTime }, told);
        return told;
      });
      observed?.end(answer);
      throw answer;
    }
  };
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
      const named = duties.reasons ? readingFailure(error) : error;
      if (named !== error) {
        Object.assign(error, { code: named.code, rawMessage: named.rawMessage, message: named.message, details: named.details });
      }
      within(arrival.observed, () => logCall(duties.log, arrival, error));
      arrival.observed?.end(error);
    },
    { once: true },
  );
}

/** Runs something as a part of the call, for who watches. A stream's handler goes on in the context of whoever asks for its next message. */
function within<T>(observed: ObservedCall | undefined, work: () => T): T {
  return observed === undefined ? work() : observed.run(work);
}

/** What runs around the handler of every stream: its age, validation, errors with reasons, the log. */
export function createInterceptor(duties: Duties): Interceptor {
  return (next) => async (request) => {
    const arrival = request.contextValues.get(arrivalKey);
    if (arrival === undefined) {
      throw new Error("The gate did not run: it belongs in front of this interceptor.");
    }
    arrival.began = true;
    if (!request.stream) throw new Error("Unary calls have a way of their own.");
    return serveStream(duties, arrival, request, next);
  };
}

async function serveStream(
  duties: Duties,
  arrival: Arrival,
  request: StreamRequest,
  next: (request: StreamRequest) => Promise<UnaryResponse | StreamResponse>,
): Promise<StreamResponse> {
  const over = arrival.ages ? STREAM_OVER : undefined;
  const bound = bind(arrival, request.signal, over, duties.shutdown);
  let ended: { answer: ConnectError | undefined } | undefined;
  const finish = (error?: unknown): ConnectError | undefined => {
    if (ended === undefined) {
      const why = bound.signal.aborted ? bound.signal.reason : error;
      const answer = within(arrival.observed, () => {
        const told = why === undefined || why === STREAM_OVER ? undefined : presentable(why, duties, arrival.method);
        logCall(duties.log, arrival, told);
        return told;
      });
      ended = { answer };
      arrival.observed?.end(answer);
      bound.end();
    }
    return ended.answer;
  };
  try {
    takeCall(duties, arrival, request, bound.signal);
    const message = checkedInput(duties.validation, arrival.method, request.message);
    const begun = within(arrival.observed, () => next({ ...request, signal: bound.signal, message }));
    const response = (await Promise.race([begun, bound.over])) as StreamResponse;
    return { ...response, message: boundedOutput(response.message, arrival, bound, finish) };
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
  { observed }: Arrival,
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
        const item = await Promise.race([within(observed, () => iterator.next()), bound.over]);
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
  // The library's client tells nobody when its reader stops without a signal: in memory nothing but this time ends such a stream, and it is no reason to live.
  timer?.unref();
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

function takeCall(duties: Duties, arrival: Arrival, request: StreamRequest, signal: AbortSignal): void {
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
  };
  request.contextValues.set(callKey, call);
  for (const name of IDENTITY_HEADERS) request.header.delete(name);
}
