import type { DescMethod } from "@bufbuild/protobuf";
import type { ConnectError } from "@connectrpc/connect";

/** What carried a call: the protocol on the wire, or memory between services of one process. */
export type Carriage = "connect" | "grpc" | "grpc-web" | "memory";

/** One call that is watched, from its arrival (or its first attempt) to its outcome. */
export interface ObservedCall {
  /** Runs work with the call as the active one, so that what it calls and asks of the stores belongs to it. */
  run<T>(work: () => T): T;
  /** The outcome, once; undefined is success. */
  end(error?: ConnectError): void;
}

/**
 * Watches calls. The RPC path tells it of each call and knows nothing of spans, meters or exporters. Undefined where nothing watches: that path then
 * costs nothing.
 */
export interface Observer {
  /** A call arrived. `header` reads the request's headers by their lower-case name. */
  serverCall(call: {
    readonly method: DescMethod;
    readonly carriage: Carriage;
    readonly header: (name: string) => string | undefined;
  }): ObservedCall;
  /** A call is made. `setHeader` adds what carries the trace along. */
  clientCall(call: {
    readonly method: DescMethod;
    readonly carriage: Carriage;
    /** Where it goes, such as `souk-payment:8080`. */
    readonly target: string;
    readonly setHeader: (name: string, value: string) => void;
  }): ObservedCall;
}
