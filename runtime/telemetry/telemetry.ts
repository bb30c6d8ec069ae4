import type { ObservableResult } from "@opentelemetry/api";
import { defaultResource, resourceFromAttributes } from "@opentelemetry/resources";
import { type IMetricReader, MeterProvider, PeriodicExportingMetricReader } from "@opentelemetry/sdk-metrics";
import {
  AlwaysOnSampler,
  BatchSpanProcessor,
  ParentBasedSampler,
  type SpanProcessor,
  TracerProvider,
} from "@opentelemetry/sdk-trace";
import type { Database } from "#runtime/database/database.ts";
import { newId } from "#runtime/ids.ts";
import type { Log } from "#runtime/log.ts";
import { observeBackground } from "./background.ts";
import { observeBacklog } from "./backlog.ts";
import { observeHttp } from "./http.ts";
import type { Observer } from "./observer.ts";
import { type Collector, type Exporters, otlpExporters } from "./otlp.ts";
import { observeProcess } from "./process.ts";
import { PullReader, prometheusText } from "./prometheus.ts";
import { observeCalls } from "./rpc.ts";
import { observeStores } from "./stores.ts";
import { Traces } from "./traces.ts";

const SCOPE = "souk";
/** Spans that wait for the collector; more are dropped and counted. */
const QUEUE_MAX = 4_096;
const BATCH_MAX = 512;
const DELAY_MS = 2_000;
/** How long the end of a process waits for the collector. */
const STOP_MS = 2_000;

/** What telemetry is opened with. */
export interface TelemetryOptions {
  /** Names the process to whoever collects, such as "souk-order". */
  readonly serviceName: string;
  /** More about it: what the environment says of the place it runs at. */
  readonly resource?: Readonly<Record<string, string>>;
  /** Where spans and measurements are sent; nowhere unless given. */
  readonly collector?: Collector | undefined;
  /** The share of traces that begin here and are recorded, 0 to 1. A trace that began elsewhere is recorded as it was there. */
  readonly ratio: number;
  /** How often measurements are sent. */
  readonly intervalMs: number;
  readonly log: Log;
  /** What else is given each span, for tests. */
  readonly processors?: readonly SpanProcessor[];
}

/** Watches a process, and tells of it. */
export interface Telemetry {
  readonly observer: Observer;
  /** All measurements in the text format of Prometheus. */
  metrics(): Promise<string>;
  /** Measures what waits in these databases, too. */
  watch(databases: readonly Database[]): void;
  /** Measures a number that is there anyway, whenever it is asked for. */
  gauge(name: string, description: string, read: () => number): void;
  /** Sends what is there, for 2 s at most, and ends. Never fails: a collector that is away is no reason not to end. */
  stop(): Promise<void>;
}

/** Opens telemetry. Nothing of it waits for the collector, and nothing of it fails because of the collector. */
export function openTelemetry(options: TelemetryOptions): Telemetry {
  const { collector, log } = options;
  const resource = defaultResource().merge(
    resourceFromAttributes({
      "service.instance.id": newId(),
      ...options.resource,
      "service.name": options.serviceName,
    }),
  );
  const exporters = collector && otlpExporters(collector, log);
  // One reader for the collector and for /metrics: each would add up every measurement for itself.
  const reader = exporters === undefined ? new PullReader() : pushing(exporters, options);
  const meters = new MeterProvider({ resource, readers: [reader] });
  const meter = meters.getMeter(SCOPE);
  const processors = [...(options.processors ?? [])];
  if (exporters !== undefined) processors.push(batches(exporters, collector as Collector, meters));
  const spans =
    processors.length === 0
      ? undefined
      : new TracerProvider({
          resource,
          spanProcessors: processors,
          sampler: new ParentBasedSampler({ root: new AlwaysOnSampler() }),
        });
  const traces = new Traces(spans?.getTracer(SCOPE), options.ratio);
  const endProcess = observeProcess(meter);
  return {
    observer: {
      ...observeCalls(traces, meter),
      ...observeHttp(traces, meter),
      ...observeStores(traces, meter),
      ...observeBackground(traces, meter),
    },
    metrics: async () => prometheusText((await reader.collect()).resourceMetrics),
    watch: (databases) => observeBacklog(meter, databases),
    gauge(name, description, read) {
      const observe = (result: ObservableResult) => result.observe(read());
      meter.createObservableGauge(name, { description }).addCallback(observe);
    },
    async stop() {
      endProcess();
      await withinGrace(Promise.allSettled([spans?.shutdown(), meters.shutdown()]));
      exporters?.close();
    },
  };
}

function pushing({ metrics }: Exporters, { intervalMs, collector }: TelemetryOptions): IMetricReader {
  const exportTimeoutMillis = Math.min(intervalMs, collector?.timeoutMs ?? intervalMs);
  return new PeriodicExportingMetricReader({ exporter: metrics, exportIntervalMillis: intervalMs, exportTimeoutMillis });
}

function batches({ spans }: Exporters, { timeoutMs }: Collector, counted: MeterProvider): SpanProcessor {
  return new BatchSpanProcessor({
    exporter: spans(counted),
    maxQueueSize: QUEUE_MAX,
    maxExportBatchSize: BATCH_MAX,
    scheduledDelayMillis: DELAY_MS,
    exportTimeoutMillis: timeoutMs,
    selfObsMeterProvider: counted,
  });
}

async function withinGrace(work: Promise<unknown>): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, STOP_MS);
  await Promise.race([work, promise]);
  clearTimeout(timer);
}
