// What the process measures of the calls it serves, by OpenTelemetry's conventions for RPC as Prometheus names them.

/** The histogram of the calls' durations in seconds. */
export const DURATION = "rpc_server_call_duration_seconds";
/** The label that holds a method's full name. */
export const METHOD = "rpc_method";
/** The label that holds the status code's name. */
export const STATUS = "rpc_status_code";
/** The codes that say it was our fault: a call that ends so eats of the budget. */
export const OUR_FAULT = ["UNKNOWN", "DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"] as const;
/** What series are told apart by, beside the method: releases stand in namespaces. */
export const WHERE = "namespace";
