import { Agent as HttpAgent } from "node:http";
import { Agent as HttpsAgent } from "node:https";
import type { MeterProvider } from "@opentelemetry/api";
import { type ExportResult, ExportResultCode } from "@opentelemetry/core";
import { CompressionAlgorithm } from "@opentelemetry/otlp-exporter-base";
import { createOtlpHttpExportDelegate } from "@opentelemetry/otlp-exporter-base/node-http";
import {
  MetricsExporterMetricsHelper,
  ProtobufMetricsSerializer,
  ProtobufTraceSerializer,
  TraceExporterMetricsHelper,
} from "@opentelemetry/otlp-transformer";
import type { PushMetricExporter } from "@opentelemetry/sdk-metrics";
import type { SpanExporter } from "@opentelemetry/sdk-trace";
import type { Log } from "#runtime/log.ts";

/** Exports under way at once, of each kind; more fail at once. */
const EXPORTS_AT_ONCE = 2;

/** Where a collector is. */
export interface Collector {
  /** The beginning of its address, such as `http://otel-collector:4318`. */
  readonly endpoint: string;
  /** What it wants to see, such as a key. */
  readonly headers: Readonly<Record<string, string>>;
  /** How long an export may take, its retries included. */
  readonly timeoutMs: number;
}

/** The ways to a collector. */
export interface Exporters {
  readonly metrics: PushMetricExporter;
  /** `counted` counts what is sent and what is lost. */
  spans(counted: MeterProvider): SpanExporter;
  /** Cuts the connections, and with them what is under way. */
  close(): void;
}

/**
 * Sends by OTLP, protobuf over HTTP. A collector that is away or slow costs nobody anything but what it does not get, which is counted; the log says once that it is
 * away and once that it is back.
 */
export function otlpExporters(collector: Collector, log: Log): Exporters {
  const base = collector.endpoint.replace(/\/+$/, "");
  const options = { keepAlive: true, maxSockets: EXPORTS_AT_ONCE };
  const agent = base.startsWith("https:") ? new HttpsAgent(options) : new HttpAgent(options);
  const settings = (path: string) => ({
    url: `${base}/v1/${path}`,
    headers: async () => ({ ...collector.headers, "Content-Type": "application/x-protobuf" }),
    timeoutMillis: collector.timeoutMs,
    concurrencyLimit: EXPORTS_AT_ONCE,
    compression: CompressionAlgorithm.GZIP,
    agentFactory: () => agent,
  });
  const heard = telling(collector.endpoint, log);
  const spans = (counted: MeterProvider) =>
    createOtlpHttpExportDelegate(
      settings("traces"),
      ProtobufTraceSerializer,
      "otlp_http_span_exporter",
      TraceExporterMetricsHelper,
      counted,
    );
  const metrics = createOtlpHttpExportDelegate(
    settings("metrics"),
    ProtobufMetricsSerializer,
    "otlp_http_metric_exporter",
    MetricsExporterMetricsHelper,
    // What counts cannot count its own exports.
    undefined,
  );
  return {
    metrics: heard(metrics),
    spans: (counted) => heard(spans(counted)),
    close: () => agent.destroy(),
  };
}

interface Sender<T> {
  export(items: T, done: (result: ExportResult) => void): void;
  forceFlush(): Promise<void>;
  shutdown(): Promise<void>;
}

/** Says when the collector goes away and comes back, whatever is sent there. */
function telling(endpoint: string, log: Log): <T>(sender: Sender<T>) => Sender<T> {
  let away = false;
  return (sender) => ({
    export(items, done) {
      sender.export(items, (result) => {
        const failed = result.code !== ExportResultCode.SUCCESS;
        if (failed && !away) log.warn({ collector: endpoint, err: result.error }, "the collector of telemetry is out of reach");
        if (!failed && away) log.info({ collector: endpoint }, "the collector of telemetry is back");
        away = failed;
        done(result);
      });
    },
    forceFlush: () => sender.forceFlush(),
    shutdown: () => sender.shutdown(),
  });
}
