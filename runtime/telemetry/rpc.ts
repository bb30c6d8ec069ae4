import type { DescMethod } from "@bufbuild/protobuf";
import { Code, type ConnectError } from "@connectrpc/connect";
import { type Attributes, context, type Histogram, type Meter, SpanKind } from "@opentelemetry/api";
import { reasonOf } from "#runtime/errors.ts";
import { methodName } from "#runtime/policy.ts";
import { ATTRIBUTE, CALL_SECONDS } from "./conventions.ts";
import type { Carriage, ObservedCall, Observer } from "./observer.ts";
import { contextOf, markFailed, type Scope, type Traces, traceparentOf, tracestateOf } from "./traces.ts";

/** gRPC-Web is gRPC in another envelope. What goes through memory is no system of the conventions, which allow for that. */
const SYSTEMS: Readonly<Record<Carriage, string>> = { connect: "connectrpc", grpc: "grpc", "grpc-web": "grpc", memory: "memory" };

const OK = "OK";

/** The codes as gRPC writes them, whatever the protocol. */
const STATUS: ReadonlyMap<Code, string> = new Map(
  Object.entries(Code)
    .filter((entry): entry is [string, Code] => typeof entry[1] === "number")
    .map(([name, code]) => [code, code === Code.Canceled ? "CANCELLED" : name.replace(/(?<=[a-z])(?=[A-Z])/g, "_").toUpperCase()]),
);

/** What is the server's fault rather than its caller's. */
const SERVER_FAULTS: ReadonlySet<Code> = new Set([
  Code.Unknown,
  Code.DeadlineExceeded,
  Code.Unimplemented,
  Code.Internal,
  Code.Unavailable,
  Code.DataLoss,
]);

/** The outcomes of one method as attributes of a measurement: made once each, not for each call. */
class Outcomes {
  readonly name: string;
  /** What is known before the outcome. */
  readonly begun: Attributes;
  readonly #isFault: (code: Code) => boolean;
  readonly #ok: Attributes;
  readonly #failed = new Map<string, Attributes>();

  constructor(name: string, begun: Attributes, isFault: (code: Code) => boolean) {
    this.name = name;
    this.begun = begun;
    this.#isFault = isFault;
    this.#ok = { ...begun, [ATTRIBUTE.rpcStatus]: OK };
  }

  of(error: ConnectError | undefined): Attributes {
    if (error === undefined) return this.#ok;
    const reason = reasonOf(error) ?? "";
    const key = `${error.code} ${reason}`;
    const known = this.#failed.get(key);
    if (known !== undefined) return known;
    const status = STATUS.get(error.code) ?? String(error.code);
    const made: Attributes = { ...this.begun, [ATTRIBUTE.rpcStatus]: status };
    if (reason !== "") made[ATTRIBUTE.reason] = reason;
    if (this.#isFault(error.code)) made[ATTRIBUTE.errorType] = status;
    this.#failed.set(key, made);
    return made;
  }

  isFault(error: ConnectError): boolean {
    return this.#isFault(error.code);
  }
}

/** One call: its scope, and what is measured at its end. */
class Call implements ObservedCall {
  readonly #scope: Scope;
  readonly #outcomes: Outcomes;
  readonly #duration: Histogram;
  readonly #startTime = performance.now();
  #ended = false;

  constructor(scope: Scope, outcomes: Outcomes, duration: Histogram) {
    this.#scope = scope;
    this.#outcomes = outcomes;
    this.#duration = duration;
  }

  run<T>(work: () => T): T {
    return context.with(this.#scope.context, work);
  }

  end(error?: ConnectError): void {
    if (this.#ended) return;
    this.#ended = true;
    const outcome = this.#outcomes.of(error);
    this.#duration.record((performance.now() - this.#startTime) / 1000, outcome);
    const { span } = this.#scope;
    if (span === undefined) return;
    if (error === undefined) {
      span.setAttribute(ATTRIBUTE.rpcStatus, OK);
    } else {
      span.setAttributes(outcome);
      if (this.#outcomes.isFault(error)) markFailed(span);
    }
    span.end();
  }
}

/** A call in memory as its caller sees it: the callee's span and measurement tell of it, within the same trace. */
const LEFT_TO_CALLEE: ObservedCall = { run: (work) => work(), end() {} };

/** Watches calls: a span where the trace is sampled, a measurement always. */
export function observeCalls(traces: Traces, meter: Meter): Pick<Observer, "serverCall" | "clientCall"> {
  const advice = { explicitBucketBoundaries: CALL_SECONDS };
  const served = meter.createHistogram("rpc.server.call.duration", { unit: "s", description: "Calls that arrived.", advice });
  const made = meter.createHistogram("rpc.client.call.duration", { unit: "s", description: "Calls to other processes.", advice });
  const ofServer = remembered((method, carriage: Carriage) => {
    const name = methodName(method);
    const begun = { [ATTRIBUTE.rpcSystem]: SYSTEMS[carriage], [ATTRIBUTE.rpcMethod]: name };
    return new Outcomes(name, begun, (code) => SERVER_FAULTS.has(code));
  });
  const ofClient = remembered((method, target: string) => {
    const name = methodName(method);
    const [, address = target, port] = /^(.*?)(?::(\d+))?$/.exec(target) ?? [];
    const begun: Attributes = { [ATTRIBUTE.rpcSystem]: "grpc", [ATTRIBUTE.rpcMethod]: name, [ATTRIBUTE.serverAddress]: address };
    if (port !== undefined) begun[ATTRIBUTE.serverPort] = Number(port);
    return new Outcomes(name, begun, () => true);
  });
  return {
    serverCall({ method, carriage, header }) {
      const outcomes = ofServer(method, carriage);
      const inside = carriage === "memory";
      const parent = inside ? context.active() : parentOf(header);
      // Within a process there is no second span that this one would be the other end of.
      const kind = inside ? SpanKind.INTERNAL : SpanKind.SERVER;
      return new Call(traces.begin(parent, outcomes.name, kind, outcomes.begun), outcomes, served);
    },
    clientCall({ method, carriage, target, setHeader }) {
      if (carriage === "memory") return LEFT_TO_CALLEE;
      const outcomes = ofClient(method, target);
      const scope = traces.begin(context.active(), outcomes.name, SpanKind.CLIENT, outcomes.begun);
      const traceparent = traceparentOf(scope.context);
      if (traceparent !== undefined) setHeader("traceparent", traceparent);
      const tracestate = tracestateOf(scope.context);
      if (tracestate) setHeader("tracestate", tracestate);
      return new Call(scope, outcomes, made);
    },
  };
}

function parentOf(header: (name: string) => string | undefined) {
  const traceparent = header("traceparent");
  return contextOf(traceparent, traceparent === undefined ? undefined : header("tracestate"));
}

/** Makes what belongs to a method and one more thing once. There are as many as methods times carriages, or peers. */
function remembered<K extends string>(make: (method: DescMethod, key: K) => Outcomes) {
  const known = new Map<DescMethod, Map<K, Outcomes>>();
  return (method: DescMethod, key: K): Outcomes => {
    const found = known.get(method)?.get(key);
    if (found !== undefined) return found;
    const made = make(method, key);
    known.set(method, (known.get(method) ?? new Map<K, Outcomes>()).set(key, made));
    return made;
  };
}
