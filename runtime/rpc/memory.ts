import type { IncomingHttpHeaders } from "node:http";
import { create, type DescMethod, type DescMethodUnary, fromBinary, type Message, toBinary } from "@bufbuild/protobuf";
import {
  type CallOptions,
  Code,
  ConnectError,
  createContextValues,
  type Interceptor,
  type Transport,
  type UnaryRequest,
  type UnaryResponse,
} from "@connectrpc/connect";
import { UnaryCall } from "#runtime/rpc/call.ts";
import { bytesOf, messageOf } from "#runtime/rpc/encoded.ts";
import { tooLarge } from "#runtime/rpc/gzip.ts";
import type { UnaryMethod } from "#runtime/rpc/method.ts";
import type { CallObserver } from "#runtime/telemetry/observer.ts";

/** What a transport in memory is made of. */
export interface MemoryTransportOptions {
  /** Names who is called, for those who watch. */
  readonly target: string;
  find(method: DescMethod): UnaryMethod;
  /** Carries streams. */
  readonly streams: Transport["stream"];
  /** See each call as its caller makes it. */
  readonly interceptors: readonly Interceptor[];
  /** Gives the headers that each call carries besides its own. */
  ownHeaders?(): Promise<Record<string, string>>;
  /** Lets others have a turn; undefined where it is nobody's. */
  breathe(): Promise<void> | undefined;
  readonly observer: CallObserver | undefined;
}

/**
 * Calls methods in the same process. Messages and errors are copied and all duties done as for a call from outside; what is saved is HTTP.
 */
export function createMemoryTransport(options: MemoryTransportOptions): Transport {
  const { interceptors } = options;
  const send = async (request: Outgoing): Promise<UnaryResponse> => {
    const own = options.ownHeaders === undefined ? undefined : await options.ownHeaders();
    if (own !== undefined) Object.assign(request.headers, own);
    const breath = options.breathe();
    if (breath !== undefined) await breath;
    return observed(options, request);
  };
  return {
    stream: options.streams,
    unary(method, signal, timeoutMs, header, input, contextValues) {
      const message = create(method.input, input);
      // To a transport a timeout of 0 means none. It counts from here, whatever the call waits for before it is sent.
      const deadline = timeoutMs === undefined || timeoutMs <= 0 ? undefined : Date.now() + timeoutMs;
      const outgoing = { method, signal, deadline, message };
      if (interceptors.length === 0) {
        return send({ ...outgoing, headers: plainHeaders(header) }) as Promise<never>;
      }
      const seen: UnaryRequest = {
        method,
        message,
        stream: false,
        service: method.parent,
        requestMethod: "POST",
        url: `memory://${options.target}/${method.parent.typeName}/${method.name}`,
        header: new Headers(header),
        signal: signal ?? new AbortController().signal,
        contextValues: contextValues ?? createContextValues(),
      };
      const last = (request: UnaryRequest) =>
        send({ ...outgoing, message: request.message, signal: request.signal, headers: plainHeaders(request.header) });
      const chain = interceptors.reduceRight<(request: UnaryRequest) => Promise<UnaryResponse>>(
        (next, interceptor) => interceptor(next as never) as never,
        last,
      );
      return chain(seen) as Promise<never>;
    },
  };
}

interface Outgoing {
  readonly method: DescMethodUnary;
  readonly signal: AbortSignal | undefined;
  /** In ms since the epoch. */
  readonly deadline: number | undefined;
  readonly headers: Record<string, string>;
  readonly message: Message;
}

function observed(options: MemoryTransportOptions, request: Outgoing): Promise<UnaryResponse> {
  const { observer, target } = options;
  const rpc = options.find(request.method);
  if (observer === undefined) return sent(rpc, request);
  const watched = observer.clientCall({
    method: request.method,
    carriage: "memory",
    target,
    setHeader: (name, value) => {
      request.headers[name] = value;
    },
  });
  return watched
    .run(() => sent(rpc, request))
    .then(
      (response) => {
        watched.end();
        return response;
      },
      (error: unknown) => {
        watched.end(ConnectError.from(error));
        throw error;
      },
    );
}

function sent(rpc: UnaryMethod, request: Outgoing): Promise<UnaryResponse> {
  return new Promise((resolve, reject) => {
    if (request.signal?.aborted === true) throw ConnectError.from(request.signal.reason, Code.Canceled);
    new MemoryCall(rpc, request, toBinary(rpc.desc.input, request.message), resolve, reject).start();
  });
}

class MemoryCall extends UnaryCall {
  readonly #request: Outgoing;
  readonly #bytes: Uint8Array;
  readonly #resolve: (response: UnaryResponse) => void;
  readonly #reject: (error: unknown) => void;

  constructor(
    rpc: UnaryMethod,
    request: Outgoing,
    bytes: Uint8Array,
    resolve: (response: UnaryResponse) => void,
    reject: (error: unknown) => void,
  ) {
    super(rpc, request.headers as IncomingHttpHeaders, "memory");
    this.#request = request;
    this.#bytes = bytes;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  get requestMethod(): string {
    return "POST";
  }
  get url(): string {
    return `memory://${this.rpc.desc.parent.typeName}/${this.rpc.desc.name}`;
  }

  start(): void {
    const { deadline, signal } = this.#request;
    signal?.addEventListener("abort", this);
    this.observe();
    this.arrive(deadline === undefined ? undefined : deadline - Date.now(), Number.POSITIVE_INFINITY);
  }

  /** The caller's signal was aborted. */
  handleEvent(): void {
    const { reason } = this.#request.signal as AbortSignal;
    this.leave(reason);
    this.#reject(ConnectError.from(reason, Code.Canceled));
  }

  protected override end(error?: ConnectError): void {
    this.#request.signal?.removeEventListener("abort", this);
    super.end(error);
  }

  protected receive(): void {
    const { desc, maxRequestBytes } = this.rpc;
    if (this.#bytes.length > maxRequestBytes) throw tooLarge(maxRequestBytes);
    void this.handle(messageOf(desc.input, this.#bytes));
  }

  protected answer(message: Message): void {
    const { desc, maxResponseBytes } = this.rpc;
    const bytes = bytesOf(desc.output, message);
    if (bytes.length > maxResponseBytes) {
      throw new Error(`An answer of ${bytes.length} bytes is larger than the ${maxResponseBytes} that may be sent.`);
    }
    const copy = fromBinary(desc.output, bytes);
    this.end();
    this.#resolve({
      stream: false,
      service: desc.parent,
      method: desc,
      header: this.ownHeader ?? new Headers(),
      trailer: this.ownTrailer ?? new Headers(),
      message: copy,
    });
  }

  protected refuse(error: ConnectError): void {
    this.#reject(asFromElsewhere(error));
  }
}

/** An error as it arrives from another service: its details as bytes, and nothing of what led to it but the given cause. */
export function asFromElsewhere(error: ConnectError, cause?: unknown): ConnectError {
  const copy = new ConnectError(error.rawMessage, error.code, undefined, undefined, cause);
  copy.details = error.details.map((detail) =>
    "desc" in detail
      ? { type: detail.desc.typeName, value: toBinary(detail.desc, create(detail.desc, detail.value)) }
      : { type: detail.type, value: detail.value },
  );
  return copy;
}

function plainHeaders(from: CallOptions["headers"]): Record<string, string> {
  const headers: Record<string, string> = {};
  if (from === undefined) return headers;
  if (from instanceof Headers) {
    from.forEach((value, name) => {
      headers[name] = value;
    });
    return headers;
  }
  for (const [name, value] of Array.isArray(from) ? from : Object.entries(from)) headers[name.toLowerCase()] = String(value);
  return headers;
}
