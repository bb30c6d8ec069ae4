import type { AnyRequest, AnyResponse } from "#runtime/listener.ts";
import type { Log } from "#runtime/log.ts";
import { PROMETHEUS_TYPE } from "./prometheus.ts";
import type { Telemetry } from "./telemetry.ts";

/** What a proxy adds to a request that it hands on. */
const PROXIED = ["x-forwarded-for", "forwarded", "x-envoy-external-address"];

/** Answers a request for `/metrics`, or answers false: nothing is there. */
export type MetricsPage = (request: AnyRequest, response: AnyResponse) => boolean;

/**
 * The page that Prometheus reads. It is for who reaches the process itself: what came through a proxy, as everything from outside a cluster does, finds
 * nothing, whatever the ingress was told.
 */
export function metricsPage(telemetry: Pick<Telemetry, "metrics">, log: Log): MetricsPage {
  return (request, response) => {
    const reads = request.method === "GET" || request.method === "HEAD";
    if (!reads || PROXIED.some((name) => request.headers[name] !== undefined)) return false;
    telemetry.metrics().then(
      (text) => {
        response.setHeader("content-type", PROMETHEUS_TYPE);
        response.setHeader("cache-control", "no-store");
        if (request.method === "HEAD") response.end();
        else response.end(text);
      },
      (error: unknown) => {
        log.error({ err: error }, "the measurements could not be told");
        response.statusCode = 500;
        response.end();
      },
    );
    return true;
  };
}
