import {
  type Attributes,
  type Context,
  context,
  createTraceState,
  ROOT_CONTEXT,
  type Span,
  type SpanContext,
  type SpanKind,
  SpanStatusCode,
  TraceFlags,
  type Tracer,
  trace,
} from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";

const TRACEPARENT = /^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?$/;
const TRACESTATE_MAX = 512;

/** A trace of which nothing is kept. Its ids are made when somebody asks for them: a line of the log, a call to another process. */
class UnsampledContext implements SpanContext {
  #traceId: string | undefined;
  #spanId: string | undefined;
  readonly traceFlags = TraceFlags.NONE;

  get traceId(): string {
    this.#traceId ??= randomHex(4);
    return this.#traceId;
  }

  get spanId(): string {
    this.#spanId ??= randomHex(2);
    return this.#spanId;
  }
}

/** What is active while work runs, and the span that is recorded of it, if any. */
export interface Scope {
  readonly context: Context;
  readonly span: Span | undefined;
}

/** Begins spans where the trace is sampled: as its parent is, by the ratio where there is none. Elsewhere it makes none. */
export class Traces {
  readonly #tracer: Tracer | undefined;
  readonly #ratio: number;

  /**
   * @param tracer makes the spans; without one no trace begins here, and others' are passed on
   * @param ratio the share of traces that begin here and are recorded, 0 to 1
   */
  constructor(tracer: Tracer | undefined, ratio: number) {
    // One for all of a process, as the API has it; a second one is not taken.
    context.setGlobalContextManager(contextManager);
    this.#tracer = tracer;
    this.#ratio = ratio;
  }

  /** Begins work that may be the first of a trace. */
  begin(parent: Context, name: string, kind: SpanKind, attributes: Attributes): Scope {
    if (this.#tracer === undefined) return { context: parent, span: undefined };
    const above = trace.getSpanContext(parent);
    if (above === undefined ? Math.random() >= this.#ratio : (above.traceFlags & TraceFlags.SAMPLED) === 0) {
      const unsampled = above === undefined ? trace.setSpanContext(parent, new UnsampledContext()) : parent;
      return { context: unsampled, span: undefined };
    }
    const span = this.#tracer.startSpan(name, { kind, attributes }, parent);
    return { context: trace.setSpan(parent, span), span };
  }

  /** Whether what is active is recorded. */
  get isRecording(): boolean {
    return this.#tracer !== undefined && trace.getActiveSpan()?.isRecording() === true;
  }

  /** A span of something small within what is active, where that is recorded. */
  within(name: () => string, kind: SpanKind, attributes: Attributes): Span | undefined {
    return this.isRecording ? this.#tracer?.startSpan(name(), { kind, attributes }) : undefined;
  }
}

const contextManager = new AsyncLocalStorageContextManager();

/** The context in which a trace goes on that came from elsewhere by the W3C's headers; the root where there is none. */
export function contextOf(traceparent: string | undefined, tracestate?: string): Context {
  const found = traceparent === undefined ? null : TRACEPARENT.exec(traceparent);
  if (found === null) return ROOT_CONTEXT;
  const [, traceId, spanId, flags] = found as unknown as [string, string, string, string];
  return trace.setSpanContext(ROOT_CONTEXT, {
    traceId,
    spanId,
    traceFlags: Number.parseInt(flags, 16) & TraceFlags.SAMPLED,
    isRemote: true,
    ...(tracestate !== undefined && tracestate.length <= TRACESTATE_MAX && { traceState: createTraceState(tracestate) }),
  });
}

/** The W3C's header of a trace; undefined without one. */
export function traceparentOf(from: Context): string | undefined {
  const found = trace.getSpanContext(from);
  return found && `00-${found.traceId}-${found.spanId}-${(found.traceFlags & TraceFlags.SAMPLED) === 0 ? "00" : "01"}`;
}

/** The other header: what tracing systems add. */
export function tracestateOf(from: Context): string | undefined {
  return trace.getSpanContext(from)?.traceState?.serialize();
}

/** What a line of the log says of the active trace. */
export function traceFields(): { trace_id?: string; span_id?: string } {
  const found = trace.getSpanContext(context.active());
  return found === undefined ? {} : { trace_id: found.traceId, span_id: found.spanId };
}

/** Marks a span as failed. No message: one may name what must not leave. */
export function markFailed(span: Span): void {
  span.setStatus({ code: SpanStatusCode.ERROR });
}

function randomHex(words: number): string {
  let text = "";
  for (let word = 0; word < words; word++) text += ((Math.random() * 0xffffffff) >>> 0).toString(16).padStart(8, "0");
  return text;
}
