import { type ClientHttp2Session, type ClientHttp2Stream, connect, type OutgoingHttpHeaders } from "node:http2";
import type { DescMethod } from "@bufbuild/protobuf";
import { Code, ConnectError, type Interceptor, type Transport } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { DEADLINE_EXCEEDED, failure, UNAVAILABLE } from "#runtime/errors.ts";
import type { Log } from "#runtime/log.ts";
import { MAX_REQUEST_BYTES, policyOf } from "#runtime/policy.ts";

/** Names the service a call is for, where a port serves several that implement the same contract. It decides nothing else. */
export const SERVICE_HEADER = "x-souk-service";

/** The largest answer that is read, in bytes; what a server sends at most. */
const MAX_RESPONSE_BYTES = 16 * 1024 * 1024;
const CONNECT_TIMEOUT_MS = 2_000;
/** How often a connection with calls under way is asked whether it lives, and how long it may take to answer. */
const PING_INTERVAL_MS = 10_000;
const PING_TIMEOUT_MS = 5_000;
/** How often a call is sent in all that its peer certainly did not begin, because it was going down. */
const MAX_SENDS = 3;

/** The services that other processes run. */
export interface Peers {
  /** The way to one of them; it is connected to when it is called. */
  open(service: string, interceptors: Interceptor[]): Transport;
  /** Ends all connections, and the calls on them. */
  close(): void;
}

/**
 * Reaches services over HTTP/2, one connection to each URL. An answer keeps its reason; whatever goes wrong on the way is UNAVAILABLE, which says nothing
 * about whether the call took effect. A call takes at most what its method's policy allows, also when the peer is gone without a word.
 *
 * @param urlOf where a service is reached, such as "http://souk-order:8080"
 */
export function openPeers({ urlOf, log }: { urlOf: (service: string) => string; log: Log }): Peers {
  const connections = new Map<string, Connection>();
  let closed = false;
  const connectionTo = (url: string) => {
    if (closed) throw failure(UNAVAILABLE, { message: "This process is going down." });
    const connection = connections.get(url) ?? new Connection(url, log);
    connections.set(url, connection);
    return connection;
  };
  return {
    open(service, interceptors) {
      const url = urlOf(service);
      const named: Interceptor = (next) => (request) => {
        request.header.set(SERVICE_HEADER, service);
        return next(request);
      };
      const sent = createConnectTransport({
        baseUrl: url,
        httpVersion: "2",
        useBinaryFormat: true,
        sessionManager: {
          authority: new URL(url).origin,
          request: (method, path, headers) => connectionTo(url).request(method, path, headers),
          notifyResponseByteRead() {},
        },
        interceptors: [...interceptors, named],
        acceptCompression: [],
        readMaxBytes: MAX_RESPONSE_BYTES,
        writeMaxBytes: MAX_REQUEST_BYTES,
      });
      return bounded(sent, service);
    },
    close() {
      closed = true;
      for (const connection of connections.values()) connection.close();
    },
  };
}

/** Gives every call its time, sends again what was not begun, and names what went wrong between the processes. */
function bounded(transport: Transport, service: string): Transport {
  const timeouts = new Map<DescMethod, number>();
  const timeoutOf = (method: DescMethod) => {
    const known = timeouts.get(method) ?? policyOf(method).timeoutMs ?? Infinity;
    timeouts.set(method, known);
    return known;
  };
  return {
    async unary(method, signal, timeoutMs, ...rest) {
      const boundMs = Math.min(timeoutMs ?? Infinity, timeoutOf(method));
      const deadline = Date.now() + boundMs;
      for (let send = 1; ; send++) {
        const leftMs = Math.ceil(deadline - Date.now());
        if (leftMs <= 0) throw failure(DEADLINE_EXCEEDED);
        try {
          return await transport.unary(method, signal, leftMs === Infinity ? undefined : leftMs, ...rest);
        } catch (error) {
          const failed = ConnectError.from(error);
          if (send === MAX_SENDS || !wasNotBegun(failed) || signal?.aborted) throw onTheWay(failed, service, signal);
        }
      }
    },
    async stream(method, signal, timeoutMs, ...rest) {
      try {
        return await transport.stream(method, signal, timeoutMs, ...rest);
      } catch (error) {
        throw onTheWay(ConnectError.from(error), service, signal);
      }
    },
  };
}

/** A stream that the peer refused after its GOAWAY: no handler has seen it (RFC 9113, 8.7). */
function wasNotBegun(error: ConnectError): boolean {
  return error.details.length === 0 && error.rawMessage.includes("REFUSED_STREAM");
}

const CODES_OF_THE_WAY = new Set([Code.Aborted, Code.Canceled, Code.Internal, Code.Unavailable, Code.Unknown]);

/** Every answer of a peer carries a reason; an error without one arose between us. A connection that breaks looks like a cancelled call to the library. */
function onTheWay(error: ConnectError, service: string, signal: AbortSignal | undefined): ConnectError {
  if (error.details.length > 0 || signal?.aborted || !CODES_OF_THE_WAY.has(error.code)) return error;
  return failure(UNAVAILABLE, { message: `The service ${service} is out of reach. Try again.`, cause: error });
}

/**
 * One HTTP/2 connection at a time to one place. A peer that says it is going down (GOAWAY) keeps the calls it has begun, and the next call connects anew.
 * Listens to the errors of each connection from its first moment to its last: the library's own manager does not, and an error that nobody
 * listens to ends the process.
 */
class Connection {
  readonly #url: string;
  readonly #log: Log;
  readonly #sessions = new Set<ClientHttp2Session>();
  #current: Promise<ClientHttp2Session> | undefined;

  constructor(url: string, log: Log) {
    this.#url = url;
    this.#log = log;
  }

  async request(method: string, path: string, headers: OutgoingHttpHeaders): Promise<ClientHttp2Stream> {
    for (let attempt = 1; ; attempt++) {
      this.#current ??= this.#connect();
      const current = this.#current;
      try {
        return (await current).request({ ...headers, ":method": method, ":path": path });
      } catch (error) {
        // It ended just before: nothing was sent, another connection may do.
        if (this.#current === current) this.#current = undefined;
        if (attempt === MAX_SENDS || !isGone(error)) throw error;
      }
    }
  }

  close(): void {
    for (const session of this.#sessions) session.destroy();
  }

  #connect(): Promise<ClientHttp2Session> {
    const { promise, resolve, reject } = Promise.withResolvers<ClientHttp2Session>();
    const session = connect(this.#url, { settings: { enablePush: false } });
    this.#sessions.add(session);
    const tooLate = setTimeout(() => session.destroy(failure(UNAVAILABLE)), CONNECT_TIMEOUT_MS);
    const pings = setInterval(() => ping(session), PING_INTERVAL_MS);
    pings.unref();
    const forget = () => {
      if (this.#current === promise) this.#current = undefined;
    };
    session.on("error", (error) => {
      this.#log.debug({ url: this.#url, err: error }, "a connection to a peer failed");
      reject(error);
      forget();
    });
    session.on("connect", () => {
      clearTimeout(tooLate);
      resolve(session);
    });
    session.on("goaway", forget);
    session.on("close", () => {
      clearTimeout(tooLate);
      clearInterval(pings);
      this.#sessions.delete(session);
      reject(failure(UNAVAILABLE));
      forget();
    });
    return promise;
  }
}

function isGone(error: unknown): boolean {
  const code = (error as NodeJS.ErrnoException).code;
  return code === "ERR_HTTP2_GOAWAY_SESSION" || code === "ERR_HTTP2_INVALID_SESSION";
}

/** A peer that vanished without closing its connections is noticed, rather than waited for by each call in turn. */
function ping(session: ClientHttp2Session): void {
  if (session.closed || session.destroyed) return;
  const timer = setTimeout(() => session.destroy(failure(UNAVAILABLE)), PING_TIMEOUT_MS);
  timer.unref();
  session.ping((error) => {
    clearTimeout(timer);
    if (error) session.destroy();
  });
}
