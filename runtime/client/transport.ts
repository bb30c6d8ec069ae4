import {
  create,
  type DescMessage,
  type DescMethod,
  type DescMethodStreaming,
  type DescMethodUnary,
  type Message,
  type MessageInitShape,
} from "@bufbuild/protobuf";
import {
  type ConnectError,
  type ContextValues,
  createContextValues,
  type Interceptor,
  type StreamRequest,
  type StreamResponse,
  type Transport,
  type UnaryRequest,
  type UnaryResponse,
} from "@connectrpc/connect";
import { runStreamingCall } from "@connectrpc/connect/protocol";
import { Metadata } from "@grpc/grpc-js";
import { Connection, type ConnectionOptions } from "#runtime/client/connection.ts";
import { CallLife } from "#runtime/client/life.ts";
import { type HeadersInit, setHeader, toHeaders, toMetadata } from "#runtime/client/metadata.ts";

export type { Attempts } from "#runtime/client/method.ts";

import { type Attempts, type Method, type MethodBounds, methodOf } from "#runtime/client/method.ts";
import { RetryBudget } from "#runtime/client/retry.ts";
import { openStream } from "#runtime/client/stream.ts";
import { type Answer, closed, type Shared, sendUnary } from "#runtime/client/unary.ts";
import type { Observer } from "#runtime/telemetry/observer.ts";

/** What hears of calls that are made. */
type ClientObserver = Pick<Observer, "clientCall">;

/** How a client reaches its server. */
export interface GrpcClientOptions extends ConnectionOptions {
  /** What is allowed of each method; nothing but the caller's deadline bounds one, and each is tried once, unless given. */
  readonly boundsOf?: (method: DescMethod) => MethodBounds;
  /**
   * Whether the calling code is no service that is itself called: then a call is also repeated after a service that it needs behind its server did not
   * answer. False unless given.
   */
  readonly outermost?: boolean;
  /** With `sendCompression`: messages below this size, in bytes, are sent as they are; 1024 unless given. */
  readonly compressMinBytes?: number;
  /** Hears of each call. */
  readonly observer?: ClientObserver | undefined;
}

/** A server that is called over gRPC: one set of connections, and as many transports as there are kinds of callers. */
export interface GrpcClient {
  /** A transport for `createClient`, whose calls pass these interceptors and carry these headers. */
  transport(options?: { readonly interceptors?: readonly Interceptor[]; readonly headers?: HeadersInit }): Transport;
  /** What became of the calls so far. */
  readonly attempts: Readonly<Attempts>;
  /** Ends all connections, and the calls on them. */
  close(): void;
}

const COMPRESS_MIN_BYTES = 1024;

/**
 * Opens a client of gRPC services. Its transports serve Connect's typed clients, so that calling code is the same as in memory or in a browser; beneath is
 * grpc-js. Failed calls are tried again here and nowhere else, as `boundsOf` allows, within the caller's deadline and a budget. Whatever ends a connection
 * (GOAWAY, a reset, silence) is no error of a call that no server has begun: it is sent again.
 */
export function openGrpcClient(options: GrpcClientOptions): GrpcClient {
  const connection = new Connection(options);
  const shared: Shared = {
    connection,
    budget: new RetryBudget(),
    attempts: { calls: 0, sent: 0, retried: 0, resent: 0 },
    outermost: options.outermost ?? false,
    active: new Set(),
    compressMinBytes:
      options.sendCompression === undefined ? Number.POSITIVE_INFINITY : (options.compressMinBytes ?? COMPRESS_MIN_BYTES),
  };
  const methods = new Map<DescMethod, Method>();
  const known = <M extends DescMethod>(desc: M): Method<M> => {
    let method = methods.get(desc);
    if (method === undefined) {
      method = methodOf(desc, options.boundsOf?.(desc) ?? {});
      methods.set(desc, method);
    }
    return method as Method<M>;
  };
  return {
    transport: ({ interceptors = [], headers } = {}) =>
      new GrpcTransport(shared, known, interceptors, toMetadata(headers, new Metadata()), options.observer),
    attempts: shared.attempts,
    close() {
      connection.close();
      for (const call of shared.active) call.endWith(closed());
    },
  };
}

type Known = <M extends DescMethod>(desc: M) => Method<M>;

class GrpcTransport implements Transport {
  readonly #shared: Shared;
  readonly #known: Known;
  readonly #interceptors: readonly Interceptor[];
  readonly #base: Metadata;
  readonly #observer: ClientObserver | undefined;

  constructor(
    shared: Shared,
    known: Known,
    interceptors: readonly Interceptor[],
    base: Metadata,
    observer: ClientObserver | undefined,
  ) {
    this.#shared = shared;
    this.#known = known;
    this.#interceptors = interceptors;
    this.#base = base;
    this.#observer = observer;
  }

  async unary<I extends DescMessage, O extends DescMessage>(
    desc: DescMethodUnary<I, O>,
    signal: AbortSignal | undefined,
    timeoutMs: number | undefined,
    header: HeadersInit | undefined,
    input: MessageInitShape<I>,
    contextValues?: ContextValues,
  ): Promise<UnaryResponse<I, O>> {
    const method = this.#known(desc);
    const deadline = deadlineOf(method, timeoutMs);
    const message = create(desc.input, input) as Message;
    if (this.#interceptors.length > 0) {
      const call = { method, deadline, signal, header, message, contextValues };
      return this.#intercepted(call) as Promise<UnaryResponse<I, O>>;
    }
    const metadata = toMetadata(header, this.#base);
    return unaryResponse(desc, await this.#send(method, message, metadata, deadline, signal)) as UnaryResponse<I, O>;
  }

  #send(
    method: Method<DescMethodUnary>,
    message: Message,
    metadata: Metadata,
    deadline: number,
    signal: AbortSignal | undefined,
  ): Promise<Answer> {
    if (this.#observer === undefined) return sendUnary(this.#shared, { method, message, metadata, deadline, signal });
    const observed = this.#observe(this.#observer, method, metadata);
    const sent = sendUnary(this.#shared, { method, message, metadata: observed.metadata, deadline, signal });
    sent.then(
      () => observed.end(),
      (error: ConnectError) => observed.end(error),
    );
    return sent;
  }

  /** One call through the interceptors. They see a signal that ends with the call; it is made only where one looks. */
  async #intercepted(call: Intercepted): Promise<UnaryResponse> {
    const { method, deadline, header, message, contextValues } = call;
    const { desc } = method;
    const life = new CallLife(call.signal, deadline);
    const request: UnaryRequest = {
      stream: false,
      service: desc.parent,
      method: desc,
      requestMethod: "POST",
      url: `${this.#shared.connection.origin}${method.path}`,
      header: new Headers(header),
      contextValues: contextValues ?? createContextValues(),
      message,
      get signal() {
        return life.signal;
      },
    };
    const last = async (passed: UnaryRequest | StreamRequest): Promise<UnaryResponse> => {
      // One that was replaced carries what its interceptor wants.
      const signal = passed === request ? call.signal : passed.signal;
      const metadata = toMetadata(passed.header, this.#base);
      return unaryResponse(desc, await this.#send(method, passed.message as Message, metadata, deadline, signal));
    };
    const next = this.#interceptors.reduceRight((inner, interceptor) => interceptor(inner), last as ReturnType<Interceptor>);
    try {
      return (await next(request)) as UnaryResponse;
    } catch (error) {
      throw life.errorOf(error);
    } finally {
      life.end();
    }
  }

  async stream<I extends DescMessage, O extends DescMessage>(
    desc: DescMethodStreaming<I, O>,
    signal: AbortSignal | undefined,
    timeoutMs: number | undefined,
    header: HeadersInit | undefined,
    input: AsyncIterable<MessageInitShape<I>>,
    contextValues?: ContextValues,
  ): Promise<StreamResponse<I, O>> {
    const method = this.#known(desc);
    const deadline = deadlineOf(method, timeoutMs);
    return runStreamingCall<I, O>({
      interceptors: [...this.#interceptors],
      ...(signal === undefined ? {} : { signal }),
      ...(deadline === Number.POSITIVE_INFINITY ? {} : { timeoutMs: deadline - Date.now() }),
      req: {
        stream: true,
        service: desc.parent,
        method: desc,
        requestMethod: "POST",
        url: `${this.#shared.connection.origin}${method.path}`,
        header: new Headers(header),
        contextValues: contextValues ?? createContextValues(),
        message: input,
      },
      next: (request) => this.#open(method, request, deadline),
    });
  }

  async #open<I extends DescMessage, O extends DescMessage>(
    method: Method<DescMethodStreaming<I, O>>,
    request: StreamRequest<I, O>,
    deadline: number,
  ): Promise<StreamResponse<I, O>> {
    const metadata = toMetadata(request.header, this.#base);
    const observed = this.#observer && this.#observe(this.#observer, method, metadata);
    const trailer = new Headers();
    const opened = await openStream(this.#shared, {
      method,
      input: request.message as AsyncIterable<Message>,
      metadata: observed?.metadata ?? metadata,
      deadline,
      signal: request.signal,
      onEnd(error, ended) {
        if (ended !== undefined) for (const [name, value] of toHeaders(ended)) trailer.append(name, value);
        observed?.end(error);
      },
    });
    return {
      stream: true,
      service: method.desc.parent,
      method: method.desc,
      header: toHeaders(opened.header),
      trailer,
      message: opened.messages as StreamResponse<I, O>["message"],
    };
  }

  #observe(observer: ClientObserver, method: Method, base: Metadata): { metadata: Metadata; end(error?: ConnectError): void } {
    const metadata = base.clone();
    const call = observer.clientCall({
      method: method.desc,
      carriage: "grpc",
      target: this.#shared.connection.name,
      setHeader: (name, value) => setHeader(metadata, name, value),
    });
    return { metadata, end: (error) => call.end(error) };
  }
}

interface Intercepted {
  readonly method: Method<DescMethodUnary>;
  readonly deadline: number;
  readonly signal: AbortSignal | undefined;
  readonly header: HeadersInit | undefined;
  readonly message: Message;
  readonly contextValues: ContextValues | undefined;
}

/** A timeout of 0 or less is none, as in Connect's own transports. */
function deadlineOf({ timeoutMs: boundMs }: Method, timeoutMs: number | undefined): number {
  const ms = timeoutMs === undefined || timeoutMs <= 0 ? boundMs : Math.min(timeoutMs, boundMs);
  return ms === Number.POSITIVE_INFINITY ? ms : Date.now() + ms;
}

/** Headers are made where somebody looks at them. */
function unaryResponse(method: DescMethodUnary, answer: Answer): UnaryResponse {
  let header: Headers | undefined;
  let trailer: Headers | undefined;
  return {
    stream: false,
    service: method.parent,
    method,
    message: answer.message,
    get header() {
      header ??= toHeaders(answer.header);
      return header;
    },
    get trailer() {
      trailer ??= toHeaders(answer.trailer);
      return trailer;
    },
  };
}
