import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http";
import { constants, type ServerHttp2Stream } from "node:http2";

/** Headers as they are written; names in lower case. */
export type WrittenHeaders = Record<string, string | number | string[]>;

/** Who takes a request's body, and learns that nobody waits for the answer any more. */
export interface Receiver {
  received(body: Buffer): void;
  /** More than was allowed came, or was announced. */
  overflowed(): void;
  /** The exchange is over: everything was sent, or its caller is gone. */
  closed(): void;
}

/** One request and its answer over HTTP/1.1 or HTTP/2. */
export interface Exchange {
  readonly headers: IncomingHttpHeaders;
  readonly httpMethod: string;
  /** Path and query. */
  readonly target: string;
  readonly authority: string | undefined;
  /** Set before anything is read. */
  receiver: Receiver;
  /** Reads the whole body, at most so many bytes of it. */
  read(maxBytes: number): void;
  /** Answers at once; the last word. Trailers, if any, follow the body. */
  respond(status: number, headers: WrittenHeaders, body?: Uint8Array, trailers?: WrittenHeaders): void;
  /** Ends it without an answer. */
  cut(): void;
}

const EMPTY = Buffer.alloc(0);

/** Puts the pieces of a body together, in room that doubles: a body of single bytes costs no more than one of large pieces. */
class Body {
  #bytes: Buffer = EMPTY;
  length = 0;

  add(chunk: Buffer): void {
    const length = this.length + chunk.length;
    if (this.length === 0) {
      this.#bytes = chunk;
    } else {
      if (length > this.#bytes.length) {
        const room = Buffer.allocUnsafe(2 * length);
        this.#bytes.copy(room, 0, 0, this.length);
        this.#bytes = room;
      }
      chunk.copy(this.#bytes, this.length);
    }
    this.length = length;
  }
  whole(): Buffer {
    return this.#bytes.length === this.length ? this.#bytes : this.#bytes.subarray(0, this.length);
  }
}

const WITH_TRAILERS = { waitForTrailers: true };
const WITHOUT_BODY = { endStream: true };

/** Where a stream finds its exchange: its listeners are the same functions for all streams, none is made for a call. */
const EXCHANGE = Symbol("exchange");
type Bound<T> = T & { [EXCHANGE]?: Http2Exchange | undefined };

/** An exchange on a stream of HTTP/2, without Node's layer of requests and responses. */
export class Http2Exchange implements Exchange {
  readonly headers: IncomingHttpHeaders;
  readonly stream: ServerHttp2Stream;
  receiver!: Receiver;
  readonly body = new Body();
  maxBytes = 0;
  reading = false;
  trailers: WrittenHeaders | undefined;

  constructor(stream: ServerHttp2Stream, headers: IncomingHttpHeaders) {
    this.stream = stream;
    this.headers = headers;
    (stream as Bound<ServerHttp2Stream>)[EXCHANGE] = this;
    stream.on("close", onStreamClose);
  }

  get httpMethod(): string {
    return this.headers[":method"] as string;
  }
  get target(): string {
    return this.headers[":path"] as string;
  }
  get authority(): string | undefined {
    return (this.headers[":authority"] as string | undefined) ?? this.headers.host;
  }

  read(maxBytes: number): void {
    this.maxBytes = maxBytes;
    if (Number(this.headers["content-length"]) > maxBytes) {
      this.receiver.overflowed();
      return;
    }
    // A stream without a body may have ended while its token was verified.
    if (this.stream.readableEnded) {
      this.receiver.received(EMPTY);
      return;
    }
    this.reading = true;
    this.stream.on("data", onStreamData);
    this.stream.on("end", onStreamEnd);
  }

  respond(status: number, headers: WrittenHeaders, body?: Uint8Array, trailers?: WrittenHeaders): void {
    const { stream } = this;
    if (stream.destroyed || stream.closed) return;
    headers[":status"] = status;
    if (body === undefined) {
      stream.respond(headers, WITHOUT_BODY);
    } else if (trailers === undefined) {
      stream.respond(headers);
      stream.end(body);
    } else {
      this.trailers = trailers;
      stream.on("wantTrailers", onStreamWantTrailers);
      stream.respond(headers, WITH_TRAILERS);
      stream.end(body);
    }
    // Of a request that is answered while it is read nothing more is wanted. One that was never read Node ends by itself.
    if (this.reading && !stream.readableEnded) setImmediate(closeStream, stream);
  }

  cut(): void {
    this.stream.close(constants.NGHTTP2_INTERNAL_ERROR);
  }
}

/** Later, so that the answer goes out before the RST_STREAM(NO_ERROR) that says the rest is not wanted (RFC 9113, 8.1). */
function closeStream(stream: ServerHttp2Stream): void {
  stream.close();
}

function onStreamData(this: Bound<ServerHttp2Stream>, chunk: Buffer): void {
  const { body, maxBytes, receiver } = this[EXCHANGE] as Http2Exchange;
  body.add(chunk);
  if (body.length <= maxBytes) return;
  this.off("data", onStreamData);
  this.off("end", onStreamEnd);
  receiver.overflowed();
}

function onStreamEnd(this: Bound<ServerHttp2Stream>): void {
  const { body, receiver } = this[EXCHANGE] as Http2Exchange;
  receiver.received(body.whole());
}

function onStreamClose(this: Bound<ServerHttp2Stream>): void {
  const exchange = this[EXCHANGE];
  // Node's handles keep closed streams until the old generation is collected; what we know of the call need not wait for that.
  this[EXCHANGE] = undefined;
  exchange?.receiver.closed();
}

function onStreamWantTrailers(this: Bound<ServerHttp2Stream>): void {
  try {
    this.sendTrailers((this[EXCHANGE] as Http2Exchange).trailers as WrittenHeaders);
  } catch {
    // A handler set one that HTTP/2 forbids. Nobody above would catch this.
    this.close(constants.NGHTTP2_INTERNAL_ERROR);
  }
}

/** An exchange over HTTP/1.1. */
export class Http1Exchange implements Exchange {
  readonly headers: IncomingHttpHeaders;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  receiver!: Receiver;

  constructor(request: IncomingMessage, response: ServerResponse) {
    this.request = request;
    this.response = response;
    this.headers = request.headers;
    response.on("close", () => this.receiver.closed());
    // What breaks closes, too; an error that nobody listens to would end the process.
    response.on("error", () => {});
  }

  get httpMethod(): string {
    return this.request.method as string;
  }
  get target(): string {
    return this.request.url as string;
  }
  get authority(): string | undefined {
    return this.headers.host;
  }

  read(maxBytes: number): void {
    const { request, receiver } = this;
    if (Number(this.headers["content-length"]) > maxBytes) {
      receiver.overflowed();
      return;
    }
    const body = new Body();
    const onData = (chunk: Buffer) => {
      body.add(chunk);
      if (body.length <= maxBytes) return;
      request.off("data", onData);
      request.off("end", onEnd);
      receiver.overflowed();
    };
    const onEnd = () => receiver.received(body.whole());
    request.on("data", onData);
    request.on("end", onEnd);
  }

  respond(status: number, headers: WrittenHeaders, body?: Uint8Array, trailers?: WrittenHeaders): void {
    const { response } = this;
    if (response.destroyed || response.headersSent) return;
    if (body === undefined && status !== 304) headers["content-length"] = 0;
    response.writeHead(status, headers as Record<string, string>);
    if (trailers !== undefined) response.addTrailers(trailers as Record<string, string>);
    if (body === undefined) response.end();
    else response.end(body);
  }

  cut(): void {
    this.response.destroy();
  }
}
