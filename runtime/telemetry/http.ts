import { type Attributes, type Meter, SpanKind } from "@opentelemetry/api";
import { ATTRIBUTE, HTTP_SECONDS } from "./conventions.ts";
import type { HttpOutcome, Observer } from "./observer.ts";
import { markFailed, type Traces } from "./traces.ts";

/** From here on a status is a failure to who has asked. */
const FIRST_FAILURE = 400;

/** Watches requests to servers of others: a span within a trace that is recorded, a measurement always. */
export function observeHttp(traces: Traces, meter: Meter): Pick<Observer, "httpRequest"> {
  const duration = meter.createHistogram("http.client.request.duration", {
    unit: "s",
    description: "Requests to the payment processor.",
    advice: { explicitBucketBoundaries: HTTP_SECONDS },
  });
  return {
    httpRequest({ method, url, resends }) {
      const startTime = performance.now();
      const { hostname, port, protocol, pathname } = new URL(url);
      const begun: Attributes = {
        [ATTRIBUTE.httpMethod]: method,
        [ATTRIBUTE.serverAddress]: hostname,
        [ATTRIBUTE.serverPort]: Number(port || (protocol === "https:" ? 443 : 80)),
        [ATTRIBUTE.urlTemplate]: pathname,
      };
      const span = traces.within(() => `${method} ${pathname}`, SpanKind.CLIENT, { ...begun, [ATTRIBUTE.urlFull]: url });
      if (resends > 0) span?.setAttribute(ATTRIBUTE.httpResends, resends);
      return (outcome) => {
        const known = outcomeOf(outcome);
        duration.record((performance.now() - startTime) / 1000, { ...begun, ...known });
        if (span === undefined) return;
        span.setAttributes(known);
        if (ATTRIBUTE.errorType in known) markFailed(span);
        span.end();
      };
    },
  };
}

function outcomeOf(outcome: HttpOutcome): Attributes {
  if ("status" in outcome) {
    const { status } = outcome;
    return { [ATTRIBUTE.httpStatus]: status, ...(status >= FIRST_FAILURE && { [ATTRIBUTE.errorType]: String(status) }) };
  }
  // The code alone: a message may repeat what was sent.
  const { code, name } = { ...(outcome.error as { code?: unknown; name?: unknown } | undefined) };
  return { [ATTRIBUTE.errorType]: String(code ?? name ?? "_OTHER") };
}
