import { type Attributes, type Meter, SpanKind } from "@opentelemetry/api";
import { ATTRIBUTE, STATEMENT_SECONDS } from "./conventions.ts";
import type { Observer } from "./observer.ts";
import { markFailed, type Traces } from "./traces.ts";

/** How much of a round's summary is told. */
const SUMMARY_MAX = 255;
/** The table that a statement is about: the first that it names as one. A statement is read no further than it takes to find it. */
const STATEMENT =
  /^\s*(?:with\b.*?\)\s*)?([a-z]+)(?:\b.*?\b(?:from|into|update|table)\s+(?:if\s+(?:not\s+)?exists\s+)?[`"]?(\w+))?/is;

/** What a statement does, to which table; never its values. */
interface Summary {
  readonly operation: string;
  readonly collection: string | undefined;
}

/** Watches what goes to databases and Redis: spans only within a trace that is recorded, a measurement always. */
export function observeStores(traces: Traces, meter: Meter): Pick<Observer, "statements" | "redisCommand" | "cacheOpened"> {
  const duration = meter.createHistogram("db.client.operation.duration", {
    unit: "s",
    description: "Round trips to databases and Redis.",
    advice: { explicitBucketBoundaries: STATEMENT_SECONDS },
  });
  const cached = meter.createObservableCounter("souk.cache.reads", { description: "What was looked for in caches." });
  return {
    cacheOpened(name, reads) {
      const of = (result: string) => ({ [ATTRIBUTE.cacheName]: name, [ATTRIBUTE.cacheResult]: result });
      const [hit, miss] = [of("hit"), of("miss")];
      cached.addCallback((result) => {
        result.observe(reads.hits, hit);
        result.observe(reads.misses, miss);
      });
    },
    statements(database, round) {
      const startTime = performance.now();
      const summaries = round.map(({ sql }) => summaryOf(sql));
      const attributes: Attributes = {
        [ATTRIBUTE.dbSystem]: database.system,
        [ATTRIBUTE.dbNamespace]: database.name,
        ...operationOf(summaries),
      };
      const name = () => wordsOf(summaries);
      const span = traces.within(name, SpanKind.CLIENT, attributes);
      span?.setAttribute(ATTRIBUTE.dbSummary, name());
      if (round.length > 1) span?.setAttribute(ATTRIBUTE.dbBatchSize, round.length);
      return (error) => {
        const failed = error === undefined ? undefined : databaseError(error);
        duration.record((performance.now() - startTime) / 1000, failed === undefined ? attributes : { ...attributes, ...failed });
        if (span === undefined) return;
        if (failed !== undefined) {
          span.setAttributes(failed);
          markFailed(span);
        }
        span.end();
      };
    },
    redisCommand(command, client) {
      const startTime = performance.now();
      const attributes: Attributes = {
        [ATTRIBUTE.dbSystem]: "redis",
        [ATTRIBUTE.dbOperation]: command.toUpperCase(),
        [ATTRIBUTE.redisClient]: client,
      };
      const span = traces.within(() => command.toUpperCase(), SpanKind.CLIENT, attributes);
      return (error) => {
        const failed = error === undefined ? undefined : { [ATTRIBUTE.errorType]: redisError(error) };
        duration.record((performance.now() - startTime) / 1000, failed === undefined ? attributes : { ...attributes, ...failed });
        if (span === undefined) return;
        if (failed !== undefined) {
          span.setAttributes(failed);
          markFailed(span);
        }
        span.end();
      };
    },
  };
}

function summaryOf(sql: string): Summary {
  const [, operation = "OTHER", collection] = STATEMENT.exec(sql) ?? [];
  return { operation: operation.toUpperCase(), collection };
}

/** A round of several statements is called a batch, with the operation and the table that all of them share. */
function operationOf(summaries: readonly Summary[]): Attributes {
  const [first] = summaries;
  if (first === undefined) return {};
  const shared = <K extends keyof Summary>(key: K) => summaries.every((each) => each[key] === first[key]);
  const single = summaries.length === 1;
  const operation = shared("operation") ? first.operation : undefined;
  const name = single ? first.operation : operation === undefined ? "BATCH" : `BATCH ${operation}`;
  return {
    [ATTRIBUTE.dbOperation]: name,
    ...(first.collection !== undefined && shared("collection") && { [ATTRIBUTE.dbCollection]: first.collection }),
  };
}

function wordsOf(summaries: readonly Summary[]): string {
  const words = summaries.map(({ operation, collection }) => (collection === undefined ? operation : `${operation} ${collection}`));
  return words.join("; ").slice(0, SUMMARY_MAX);
}

/** The driver's own code: its message may repeat values. */
function databaseError(error: unknown): Attributes {
  const { code, errno, name } = error as { code?: unknown; errno?: unknown; name?: unknown };
  return {
    [ATTRIBUTE.errorType]: String(code ?? name ?? "_OTHER"),
    ...(typeof errno === "number" && { [ATTRIBUTE.dbStatus]: String(errno) }),
  };
}

/** The first word of what Redis answers, such as WRONGTYPE; what is our own has its class. */
function redisError(error: unknown): string {
  const { message, name } = error as { message?: unknown; name?: unknown };
  return /^[A-Z]{2,32}\b/.exec(String(message))?.[0] ?? String(name ?? "_OTHER");
}
