import type { Attributes } from "@opentelemetry/api";
import { DataPointType, type MetricData, MetricReader, type ResourceMetrics } from "@opentelemetry/sdk-metrics";

/** The media type of what `prometheusText` writes. */
export const PROMETHEUS_TYPE = "text/plain; version=0.0.4; charset=utf-8";

/** What units are called at the end of a name there. */
const UNITS: Readonly<Record<string, string>> = { s: "seconds", By: "bytes", "1": "ratio" };

/** Gives the measurements when somebody asks for them. */
export class PullReader extends MetricReader {
  protected async onForceFlush(): Promise<void> {}

  protected async onShutdown(): Promise<void> {}
}

/** Measurements in the text format of Prometheus, named as OpenTelemetry's rules of compatibility say. */
export function prometheusText({ resource, scopeMetrics }: ResourceMetrics): string {
  const lines = ["# TYPE target_info gauge", `target_info${labels(resource.attributes)} 1`];
  for (const { metrics } of scopeMetrics) {
    for (const metric of metrics) write(metric, lines);
  }
  return `${lines.join("\n")}\n`;
}

function write(metric: MetricData, lines: string[]): void {
  const { descriptor, dataPointType } = metric;
  const counts = dataPointType === DataPointType.SUM && metric.isMonotonic;
  const name = nameOf(descriptor.name, descriptor.unit, counts);
  const type = counts ? "counter" : dataPointType === DataPointType.HISTOGRAM ? "histogram" : "gauge";
  if (descriptor.description !== "") lines.push(`# HELP ${name} ${descriptor.description.replace(/[\\\n]/g, " ")}`);
  lines.push(`# TYPE ${name} ${type}`);
  if (metric.dataPointType === DataPointType.HISTOGRAM) {
    for (const { attributes, value } of metric.dataPoints) {
      let sum = 0;
      for (const [index, count] of value.buckets.counts.entries()) {
        sum += count;
        const le = value.buckets.boundaries[index];
        lines.push(`${name}_bucket${labels(attributes, le === undefined ? "+Inf" : String(le))} ${sum}`);
      }
      lines.push(`${name}_sum${labels(attributes)} ${value.sum ?? 0}`, `${name}_count${labels(attributes)} ${value.count}`);
    }
  } else if (metric.dataPointType !== DataPointType.EXPONENTIAL_HISTOGRAM) {
    for (const { attributes, value } of metric.dataPoints) lines.push(`${name}${labels(attributes)} ${value}`);
  }
}

function nameOf(name: string, unit: string, counts: boolean): string {
  const words = [name.replace(/[^a-zA-Z0-9]+/g, "_")];
  const last = counts && unit === "1" ? undefined : UNITS[unit];
  if (last !== undefined && !(words[0] as string).endsWith(`_${last}`)) words.push(last);
  if (counts) words.push("total");
  return words.join("_");
}

function labels(attributes: Attributes, le?: string): string {
  const pairs = Object.entries(attributes).map(
    ([name, value]) => `${name.replace(/[^a-zA-Z0-9_]/g, "_")}="${escaped(String(value))}"`,
  );
  if (le !== undefined) pairs.push(`le="${le}"`);
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
}

function escaped(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}
