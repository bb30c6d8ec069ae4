import { type Attributes, context, type Meter, ROOT_CONTEXT, SpanKind } from "@opentelemetry/api";
import { reasonOf } from "#runtime/errors.ts";
import { ATTRIBUTE, BACKGROUND_SECONDS, EVENTS_SYSTEM } from "./conventions.ts";
import type { Observer, ToldEvent } from "./observer.ts";
import { contextOf, markFailed, type Scope, type Traces, traceparentOf } from "./traces.ts";

/** Watches what happens behind a call: events from the outbox to their consumers, and jobs. */
export function observeBackground(traces: Traces, meter: Meter): Pick<Observer, "eventTold" | "eventsApplied" | "jobRun"> {
  const advice = { explicitBucketBoundaries: BACKGROUND_SECONDS };
  const histogram = (name: string, description: string) => meter.createHistogram(name, { unit: "s", description, advice });
  const processed = histogram("messaging.process.duration", "What consumers do with events.");
  const delay = histogram("souk.event.delay", "From a change to its effect in a consumer.");
  const ran = histogram("souk.job.duration", "Runs of jobs.");
  const within = (event: ToldEvent, operation: "create" | "process"): Attributes => ({
    [ATTRIBUTE.messagingSystem]: EVENTS_SYSTEM,
    [ATTRIBUTE.messagingOperation]: operation,
    [ATTRIBUTE.messagingOperationType]: operation,
    [ATTRIBUTE.messagingDestination]: event.type,
    [ATTRIBUTE.messagingMessageId]: event.eventId,
    [ATTRIBUTE.aggregateId]: event.aggregateId,
  });
  return {
    eventTold(event) {
      if (!traces.isRecording) return traceparentOf(context.active()) ?? "";
      const scope = traces.begin(context.active(), `create ${event.type}`, SpanKind.PRODUCER, within(event, "create"));
      scope.span?.end();
      return traceparentOf(scope.context) ?? "";
    },
    async eventsApplied(consumer, events, work) {
      const startTime = performance.now();
      const scopes = events.map((event) => {
        const attributes = { ...within(event, "process"), [ATTRIBUTE.messagingConsumer]: consumer };
        return traces.begin(contextOf(event.traceparent), `process ${event.type}`, SpanKind.CONSUMER, attributes);
      });
      // What is done for several events at once belongs to the trace of none.
      const [only] = scopes;
      const active = scopes.length === 1 ? (only as Scope).context : context.active();
      const end = (error?: unknown) => {
        const seconds = (performance.now() - startTime) / 1000;
        const now = Date.now();
        for (const [index, event] of events.entries()) {
          const attributes: Attributes = {
            [ATTRIBUTE.messagingSystem]: EVENTS_SYSTEM,
            [ATTRIBUTE.messagingOperation]: "process",
            [ATTRIBUTE.messagingDestination]: event.type,
            [ATTRIBUTE.messagingConsumer]: consumer,
            ...failedBy(error),
          };
          processed.record(seconds, attributes);
          if (error === undefined) {
            const late = Math.max(0, now - event.eventTime) / 1000;
            delay.record(late, { [ATTRIBUTE.messagingDestination]: event.type, [ATTRIBUTE.messagingConsumer]: consumer });
          }
          endSpan(scopes[index] as Scope, error);
        }
      };
      return context.with(active, () => watched(work, end));
    },
    async jobRun({ kind, key, attempt }, work) {
      const startTime = performance.now();
      const attributes = { [ATTRIBUTE.jobKind]: kind, [ATTRIBUTE.jobKey]: key, [ATTRIBUTE.jobAttempt]: attempt };
      const scope = traces.begin(ROOT_CONTEXT, `job ${kind}`, SpanKind.INTERNAL, attributes);
      return context.with(scope.context, () =>
        watched(work, (error) => {
          ran.record((performance.now() - startTime) / 1000, { [ATTRIBUTE.jobKind]: kind, ...failedBy(error) });
          endSpan(scope, error);
        }),
      );
    },
  };
}

async function watched<T>(work: () => Promise<T>, end: (error?: unknown) => void): Promise<T> {
  let result: T;
  try {
    result = await work();
  } catch (error) {
    end(error ?? new Error());
    throw error;
  }
  end();
  return result;
}

function failedBy(error: unknown): Attributes {
  if (error === undefined) return {};
  const reason = reasonOf(error);
  return {
    [ATTRIBUTE.errorType]: reason ?? (error as Error).name ?? "_OTHER",
    ...(reason !== undefined && { [ATTRIBUTE.reason]: reason }),
  };
}

function endSpan({ span }: Scope, error: unknown): void {
  if (span === undefined) return;
  if (error !== undefined) {
    span.setAttributes(failedBy(error));
    markFailed(span);
  }
  span.end();
}
