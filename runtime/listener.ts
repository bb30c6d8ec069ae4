import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer as createHttp1Server, type RequestListener, type Server, STATUS_CODES } from "node:http";
import {
  constants,
  createServer as createHttp2Server,
  type Http2Server,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type IncomingHttpHeaders,
  type ServerHttp2Stream,
} from "node:http2";
import { type AddressInfo, createServer, type Server as NetServer, type Socket } from "node:net";
import { errorToJsonBytes } from "@connectrpc/connect/protocol-connect";
import { type ConnectionLimits, createConnections, DEFAULT_CONNECTION_LIMITS } from "#runtime/connections.ts";
import { DEADLINE_EXCEEDED, failure, MALFORMED_REQUEST } from "#runtime/errors.ts";
import type { Log } from "#runtime/log.ts";

/** A request over HTTP/1.1 or HTTP/2. */
export type AnyRequest = IncomingMessage | Http2ServerRequest;
/** Its response. */
export type AnyResponse = ServerResponse<IncomingMessage> | Http2ServerResponse;

/** Serves a stream of HTTP/2 as it is, or leaves it alone and answers false. */
export type TakeStream = (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => boolean;

/** The bounds of a port. */
export interface ListenerLimits extends ConnectionLimits {
  /** Connections at once; more are closed at once. */
  readonly maxConnections: number;
  /** Calls at once on one HTTP/2 connection. */
  readonly maxStreams: number;
  /** All headers of a request together, in bytes. */
  readonly maxHeaderBytes: number;
  /** Headers of a request. */
  readonly maxHeaders: number;
  /** How long a connection may take to say which protocol it speaks, and then a request for its headers, in ms. */
  readonly headersTimeoutMs: number;
  /** How long a request may take to arrive as a whole over HTTP/1.1, in ms. */
  readonly requestTimeoutMs: number;
  /** How long a connection may stay without a call, in ms. */
  readonly idleTimeoutMs: number;
  /** Calls that the peer of one HTTP/2 connection may give up at once, and for how many of them a second is forgiven. */
  readonly resetBurst: number;
  readonly resetsPerSecond: number;
}

/** The bounds of a port unless told otherwise. */
export const DEFAULT_LISTENER_LIMITS: ListenerLimits = {
  maxConnections: 10_000,
  maxStreams: 250,
  maxHeaderBytes: 16 * 1024,
  maxHeaders: 100,
  headersTimeoutMs: 10_000,
  requestTimeoutMs: 60_000,
  idleTimeoutMs: 5 * 60_000,
  resetBurst: 500,
  resetsPerSecond: 100,
  ...DEFAULT_CONNECTION_LIMITS,
};

/** An open port. */
export interface Listener {
  readonly port: number;
  readonly host: string;
  /** How many are open now. */
  readonly connections: number;
  /** Asks clients over HTTP/1.1 to leave with their next answers, before it closes: closing an idle connection can cross a request on its way. */
  announce(): void;
  /** Stops accepting, tells every connection to go (GOAWAY, `connection: close`), waits for calls in flight, then cuts what is left. */
  close(graceMs: number): Promise<void>;
}

/** How long a new connection may take to say something when the port closes. */
const MOMENT_MS = 1000;

/** Requests with too large headers on one HTTP/2 connection, which may carry those of many clients; after that it is ended. */
const MAX_OVERSIZED = 20;

/** What an HTTP/2 connection begins with: "PRI * HTTP/2.0". No HTTP/1.1 method begins like this. */
const PREFACE = Buffer.from("PRI");

/**
 * Opens one cleartext port for HTTP/1.1 and HTTP/2 (prior knowledge). Node's own `allowHTTP1` needs TLS, so the connection's first bytes
 * decide. Port 0 takes any free one.
 */
export async function listen(options: {
  port: number;
  host: string;
  handler: (request: AnyRequest, response: AnyResponse) => void;
  /** Sees the streams of HTTP/2 first and answers whether it serves this one; what it leaves becomes a request and a response. */
  takeStream?: TakeStream;
  log: Log;
  limits?: Partial<ListenerLimits>;
}): Promise<Listener> {
  const limits = { ...DEFAULT_LISTENER_LIMITS, ...options.limits };
  const connections = createConnections(limits, options.log);
  let closing = false;
  const sockets = new Set<Socket>();
  const http1 = http1Server(limits, (request, response) => {
    if (!connections.addRequest(request, response)) return;
    response.once("close", () => closing && http1.closeIdleConnections());
    options.handler(request, response);
  });
  http1.on("connection", connections.addSocket);
  const takeStream = options.takeStream ?? (() => false);
  const http2 = http2Server(limits, options.handler, (stream, headers) => {
    connections.addStream(stream);
    return takeStream(stream, headers);
  });
  let beginning: Socket;
  http2.on("session", (session) => {
    // A peer that breaks the protocol or the connection ends its session, not the process.
    session.on("error", (error) => options.log.debug({ err: error }, "an HTTP/2 connection failed"));
    session.setTimeout(limits.idleTimeoutMs);
    connections.addSession(session, beginning);
  });
  const begin = (socket: Socket, isHttp2: boolean) => {
    beginning = socket;
    (isHttp2 ? http2 : http1).emit("connection", socket);
  };
  const net = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    socket.on("error", (error) => options.log.trace({ err: error }, "a connection failed"));
    sniff(socket, limits.headersTimeoutMs, (isHttp2) => begin(socket, isHttp2));
  });
  net.maxConnections = limits.maxConnections;
  await bindPort(net, options.port, options.host);
  const { port } = net.address() as AddressInfo;
  const cutAll = (which: (socket: Socket) => boolean) => {
    for (const socket of sockets) if (which(socket)) socket.destroy();
  };
  return {
    get connections() {
      return sockets.size;
    },
    port,
    host: options.host,
    announce: connections.announce,
    async close(graceMs) {
      closing = true;
      const closed = new Promise<void>((resolve) => net.close(() => resolve()));
      connections.retire();
      http1.closeIdleConnections();
      // Who has only just connected may have a call on its way.
      const silent = setTimeout(() => cutAll((socket) => undecided.has(socket)), Math.min(graceMs, MOMENT_MS));
      const cut = setTimeout(() => {
        connections.cut();
        cutAll(() => true);
      }, graceMs);
      await closed;
      clearTimeout(silent);
      clearTimeout(cut);
      connections.close();
      // Its clock of connections was started by hand.
      http1.close();
    },
  };
}

const undecided = new WeakSet<Socket>();

/** Reads the first bytes of a connection, decides, and puts them back. */
function sniff(socket: Socket, timeoutMs: number, decide: (isHttp2: boolean) => void): void {
  let seen = Buffer.alloc(0);
  undecided.add(socket);
  const timer = setTimeout(() => socket.destroy(), timeoutMs);
  const forget = () => clearTimeout(timer);
  socket.once("close", forget);
  const onData = (chunk: Buffer) => {
    seen = Buffer.concat([seen, chunk]);
    const length = Math.min(seen.length, PREFACE.length);
    const matches = seen.subarray(0, length).equals(PREFACE.subarray(0, length));
    if (matches && length < PREFACE.length) return;
    forget();
    undecided.delete(socket);
    socket.off("data", onData);
    socket.off("close", forget);
    socket.pause();
    socket.unshift(seen);
    decide(matches);
    // HTTP/2 takes what was put back by itself; resumed, the socket would throw it away.
    if (!matches) socket.resume();
  };
  socket.on("data", onData);
}

function http1Server(limits: ListenerLimits, handler: RequestListener): Server {
  const server = createHttp1Server(
    {
      maxHeaderSize: limits.maxHeaderBytes,
      headersTimeout: limits.headersTimeoutMs,
      requestTimeout: limits.requestTimeoutMs,
      keepAliveTimeout: limits.idleTimeoutMs,
      connectionsCheckingInterval: Math.min(1000, limits.headersTimeoutMs),
    },
    handler,
  );
  server.maxHeadersCount = limits.maxHeaders;
  server.on("clientError", (error: NodeJS.ErrnoException, socket) => {
    if (!socket.writable || (socket as Socket).destroyed) return;
    const status = CLIENT_ERRORS[error.code ?? ""] ?? 400;
    socket.end(
      `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n${malformedJson(status)}`,
    );
  });
  // The server never listens itself; this starts its watch over slow headers and requests.
  server.emit("listening");
  return server;
}

const CLIENT_ERRORS: Readonly<Record<string, number>> = { HPE_HEADER_OVERFLOW: 431, ERR_HTTP_REQUEST_TIMEOUT: 408 };

/** The answer to what is not even a request of HTTP/1.1, in Connect's form. */
function malformedJson(status: number): string {
  const late = failure(DEADLINE_EXCEEDED, { message: "The request did not arrive in time." });
  const unreadable = failure(MALFORMED_REQUEST, { message: "This is not a request of HTTP that can be read." });
  return Buffer.from(errorToJsonBytes(status === 408 ? late : unreadable, undefined)).toString();
}

function http2Server(
  limits: ListenerLimits,
  handler: (request: Http2ServerRequest, response: Http2ServerResponse) => void,
  takeStream: TakeStream,
): Http2Server {
  const server = createHttp2Server(
    {
      settings: { maxConcurrentStreams: limits.maxStreams, maxHeaderListSize: limits.maxHeaderBytes, enablePush: false },
      maxHeaderListPairs: limits.maxHeaders,
      maxSessionInvalidFrames: 100,
      maxSessionRejectedStreams: 100,
      maxSettings: 32,
      maxSessionMemory: 32,
      streamResetBurst: limits.resetBurst,
      streamResetRate: limits.resetsPerSecond,
      unknownProtocolTimeout: limits.headersTimeoutMs,
    },
    handler,
  );
  const oversized = new WeakMap<object, number>();
  // Node's own way from a stream to a request and a response, which costs more than many a call: only where it is needed.
  const toRequest = server.listeners("stream") as ((...args: unknown[]) => void)[];
  server.removeAllListeners("stream");
  server.on("stream", (stream: ServerHttp2Stream, headers: IncomingHttpHeaders, flags: number, raw: string[]) => {
    stream.on("error", ignore);
    // Its peer reset it in the same breath; Node would try to tell it to go on, and end the process over that.
    if (stream.destroyed || stream.closed) return;
    // Node tells its peer of this bound and takes far more.
    let headerBytes = 0;
    for (const text of raw) headerBytes += text.length;
    if (headerBytes > limits.maxHeaderBytes) {
      const { session } = stream;
      const count = (oversized.get(session as object) ?? 0) + 1;
      oversized.set(session as object, count);
      if (count > MAX_OVERSIZED) session?.destroy(undefined, constants.NGHTTP2_ENHANCE_YOUR_CALM);
      else stream.respond({ ":status": 431 }, { endStream: true });
      // At once it could overtake its own answer.
      setImmediate(() => stream.close());
      return;
    }
    if (takeStream(stream, headers)) return;
    for (const listener of toRequest) listener.call(server, stream, headers, flags, raw);
  });
  server.on("sessionError", () => {});
  return server;
}

/** A stream that breaks is told by its other events; an error that nobody listens to would end the process. */
function ignore(): void {}

/** Opens the port, or says in a sentence why not. */
function bindPort(server: NetServer, port: number, host: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      switch (error.code) {
        case "EADDRINUSE":
          return reject(new Error(`Port ${port} on ${host} is in use. Choose another one with --port.`, { cause: error }));
        case "EACCES":
          return reject(
            new Error(`Port ${port} may not be opened by this user. Choose one above 1023 with --port.`, { cause: error }),
          );
        case "EADDRNOTAVAIL":
        case "ENOTFOUND":
          return reject(new Error(`${host} is no address of this machine. Choose another one with --host.`, { cause: error }));
        default:
          return reject(error);
      }
    });
    server.listen({ port, host, exclusive: true }, resolve);
  });
}
