import { constants, monitorEventLoopDelay, PerformanceObserver, performance } from "node:perf_hooks";
import { getHeapStatistics } from "node:v8";
import type { Meter } from "@opentelemetry/api";
import { ATTRIBUTE } from "./conventions.ts";

/** How finely the event loop's delay is looked at. */
const RESOLUTION_MS = 20;

const GC_KINDS: ReadonlyMap<number, string> = new Map([
  [constants.NODE_PERFORMANCE_GC_MAJOR, "major"],
  [constants.NODE_PERFORMANCE_GC_MINOR, "minor"],
  [constants.NODE_PERFORMANCE_GC_INCREMENTAL, "incremental"],
  [constants.NODE_PERFORMANCE_GC_WEAKCB, "weakcb"],
]);

/** Measures the process itself: event loop, heap, memory, processor. Gives what ends it. */
export function observeProcess(meter: Meter): () => void {
  const delay = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  delay.enable();
  const gauge = (name: string, unit: string, description: string) => meter.createObservableGauge(name, { unit, description });
  const p50 = gauge(
    "nodejs.eventloop.delay.p50",
    "s",
    "Half of the event loop's turns were delayed by no more, since the last look.",
  );
  const p99 = gauge(
    "nodejs.eventloop.delay.p99",
    "s",
    "99 % of the event loop's turns were delayed by no more, since the last look.",
  );
  const most = gauge("nodejs.eventloop.delay.max", "s", "The longest delay of a turn since the last look.");
  const busy = gauge(
    "nodejs.eventloop.utilization",
    "1",
    "The share of the time since the last look that the event loop was busy.",
  );
  const heap = gauge("v8js.memory.heap.used", "By", "The heap in use.");
  const heapLimit = gauge("v8js.memory.heap.limit", "By", "The most the heap may have.");
  const memory = gauge("process.memory.usage", "By", "The memory of the process.");
  const cpu = meter.createObservableCounter("process.cpu.time", { unit: "s", description: "The processor's time." });
  let last = performance.eventLoopUtilization();
  meter.addBatchObservableCallback(
    (result) => {
      // The monitor counts the turn's own length in: a loop without delay has one of the resolution.
      const seconds = (ns: number) => Math.max(0, ns / 1e9 - RESOLUTION_MS / 1000) || 0;
      result.observe(p50, seconds(delay.percentile(50)));
      result.observe(p99, seconds(delay.percentile(99)));
      result.observe(most, seconds(delay.max));
      delay.reset();
      const now = performance.eventLoopUtilization();
      result.observe(busy, performance.eventLoopUtilization(now, last).utilization);
      last = now;
      const { used_heap_size: used, heap_size_limit: limit } = getHeapStatistics();
      result.observe(heap, used);
      result.observe(heapLimit, limit);
      result.observe(memory, process.memoryUsage.rss());
      const { user, system } = process.cpuUsage();
      result.observe(cpu, user / 1e6, { [ATTRIBUTE.cpuMode]: "user" });
      result.observe(cpu, system / 1e6, { [ATTRIBUTE.cpuMode]: "system" });
    },
    [p50, p99, most, busy, heap, heapLimit, memory, cpu],
  );
  const collected = meter.createHistogram("v8js.gc.duration", {
    unit: "s",
    description: "Collections of garbage.",
    advice: { explicitBucketBoundaries: [0.001, 0.01, 0.1, 1, 10] },
  });
  const collections = new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) {
      const { kind } = (entry as { detail?: { kind?: number } }).detail ?? {};
      collected.record(entry.duration / 1000, { [ATTRIBUTE.gcType]: GC_KINDS.get(kind ?? -1) ?? "other" });
    }
  });
  collections.observe({ entryTypes: ["gc"] });
  return () => {
    delay.disable();
    collections.disconnect();
  };
}
