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

/** Tells how something that is watched ended; undefined is success. */
export type Ended = (error?: unknown) => void;

/** A request to a server of others, over HTTP. */
export interface HttpRequest {
  readonly method: string;
  /** Where it goes, without a query. */
  readonly url: string;
  /** The number of times the same was sent before. */
  readonly resends: number;
}

/** What came of a request: the answer's status, or why there is none. */
export type HttpOutcome = { readonly status: number } | { readonly error: unknown };

/** A database, as an observer names it. */
export interface ObservedDatabase {
  readonly system: "mariadb" | "mysql" | "sqlite";
  /** The database's name there. */
  readonly name: string;
}

/** An event as it is told. */
export interface ToldEvent {
  readonly eventId: string;
  /** The full name of its message. */
  readonly type: string;
  readonly aggregateId: string;
}

/** An event as it comes to a consumer. */
export interface TakenEvent extends ToldEvent {
  /** The W3C trace context it carries; empty without a trace. */
  readonly traceparent: string;
  /** When the change was made, in ms since the epoch. */
  readonly eventTime: number;
}

/**
 * Watches what a process does. Whoever does it tells of it and knows nothing of spans, meters or exporters. Undefined where nothing watches: that path
 * then costs nothing.
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
  /** A request goes to a server of others. It carries no trace there: what happens here is none of theirs. Gives what is told the outcome, once. */
  httpRequest(request: HttpRequest): (outcome: HttpOutcome) => void;
  /** Statements go to a database, in one round trip. */
  statements(database: ObservedDatabase, round: readonly { readonly sql: string }[]): Ended;
  /** A command goes to Redis; `client` says what the connection is for. */
  redisCommand(command: string, client: string): Ended;
  /** A cache is there. `reads` is what it has found and not found so far, and goes on counting. */
  cacheOpened(name: string, reads: { readonly hits: number; readonly misses: number }): void;
  /** An event is told. Gives the W3C trace context it is to carry; empty without a trace. */
  eventTold(event: ToldEvent): string;
  /** A consumer applies events; `work` does, in the event's own trace where it is one alone. */
  eventsApplied<T>(consumer: string, events: readonly TakenEvent[], work: () => Promise<T>): Promise<T>;
  /** A job runs. */
  jobRun<T>(job: { readonly kind: string; readonly key: string; readonly attempt: number }, work: () => Promise<T>): Promise<T>;
}

/** What the RPC path tells of. */
export type CallObserver = Pick<Observer, "serverCall" | "clientCall">;
