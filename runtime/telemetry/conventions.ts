/**
 * The names of everything a span or a measurement may carry: the semantic conventions 1.45 of OpenTelemetry, and ours under `souk.`. There is no attribute
 * beside these: ids and reasons, never bodies, names, addresses or tokens.
 */
export const ATTRIBUTE = {
  rpcSystem: "rpc.system.name",
  rpcMethod: "rpc.method",
  rpcStatus: "rpc.status_code",
  errorType: "error.type",
  serverAddress: "server.address",
  serverPort: "server.port",
  httpMethod: "http.request.method",
  httpStatus: "http.response.status_code",
  /** How often the request was sent before. */
  httpResends: "http.request.resend_count",
  /** Without the query, which may hold anything. */
  urlFull: "url.full",
  urlTemplate: "url.template",
  dbSystem: "db.system.name",
  dbNamespace: "db.namespace",
  dbOperation: "db.operation.name",
  dbCollection: "db.collection.name",
  dbBatchSize: "db.operation.batch.size",
  dbSummary: "db.query.summary",
  dbStatus: "db.response.status_code",
  messagingSystem: "messaging.system.name",
  messagingOperation: "messaging.operation.name",
  messagingOperationType: "messaging.operation.type",
  messagingDestination: "messaging.destination.name",
  messagingConsumer: "messaging.consumer.group.name",
  messagingMessageId: "messaging.message.id",
  cpuMode: "cpu.mode",
  gcType: "v8js.gc.type",
  /** The machine-readable reason of an error (`google.rpc.ErrorInfo`). */
  reason: "souk.reason",
  /** What a connection to Redis is for. */
  redisClient: "souk.redis.client",
  cacheName: "souk.cache.name",
  /** Whether a cache had it: hit or miss. */
  cacheResult: "souk.cache.result",
  /** The aggregate an event is about. */
  aggregateId: "souk.aggregate.id",
  jobKind: "souk.job.kind",
  jobKey: "souk.job.key",
  jobAttempt: "souk.job.attempt",
  /** The service that a number in `/metrics` is about. */
  service: "souk.service",
} as const;

/** The system of an event that goes from an outbox to the inboxes, whatever carries it. */
export const EVENTS_SYSTEM = "souk";

/**
 * Bounds of the buckets for calls, in seconds. Every 99th percentile that a budget promises is one of them, or alerts could not tell what is slower; below
 * are finer ones for reads that take less than 5 ms.
 */
export const CALL_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 20, 30];
/** The same for statements. */
export const STATEMENT_SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5, 10];
/** The same for requests to servers of others, as the conventions advise. */
export const HTTP_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10];
/** The same for what happens behind a call: events and jobs. */
export const BACKGROUND_SECONDS = [0.001, 0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300];
