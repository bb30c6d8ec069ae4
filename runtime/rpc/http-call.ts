import type { Message } from "@bufbuild/protobuf";
import type { ConnectError } from "@connectrpc/connect";
import { UnaryCall } from "#runtime/rpc/call.ts";
import type { Codec } from "#runtime/rpc/codec.ts";
import type { Exchange, Receiver, WrittenHeaders } from "#runtime/rpc/exchange.ts";
import { tooLarge } from "#runtime/rpc/gzip.ts";
import type { UnaryMethod } from "#runtime/rpc/method.ts";
import type { Carriage } from "#runtime/telemetry/observer.ts";

/** How one protocol writes a unary call on HTTP. Knows no method and holds nothing. */
export interface Wire {
  readonly carriage: Exclude<Carriage, "memory">;
  readonly codec: Codec;
  /** What the protocol adds around a message, in bytes. */
  readonly overheadBytes: number;
  /** The time the caller gives, in ms; undefined where it gives none. Fails with MALFORMED_REQUEST. */
  timeoutMs(call: HttpCall): number | undefined;
  /** Takes the message out of the body. */
  unwrap(call: HttpCall, body: Buffer): Uint8Array | Promise<Uint8Array>;
  /** Answers with a message. */
  answer(call: HttpCall, message: Uint8Array): void | Promise<void>;
  /** Answers with an error. */
  refuse(call: HttpCall, error: ConnectError): void;
}

/** What a port gives the calls it takes. */
export interface Port {
  /** How long the body of a request may take to arrive, in ms. */
  readonly bodyTimeoutMs: number;
  /** Headers that every answer to this origin carries, for pages of others. */
  corsHeaders(origin: string | undefined): Readonly<Record<string, string>> | undefined;
  /** Nothing is done for a call any more: its handler has ended, and its answer was written, taken or not, or its caller is gone. */
  done(call: HttpCall): void;
}

/** A unary call that came over HTTP. */
export class HttpCall extends UnaryCall implements Receiver {
  readonly exchange: Exchange;
  readonly wire: Wire;
  readonly port: Port;
  #handling = false;
  #written = false;
  #done = false;

  constructor(rpc: UnaryMethod, exchange: Exchange, wire: Wire, port: Port) {
    super(rpc, exchange.headers, wire.carriage);
    this.exchange = exchange;
    this.wire = wire;
    this.port = port;
    exchange.receiver = this;
  }

  get requestMethod(): string {
    return this.exchange.httpMethod;
  }
  get url(): string {
    return `http://${this.exchange.authority ?? "localhost"}${this.exchange.target}`;
  }

  start(): void {
    try {
      this.observe();
      this.arrive(this.wire.timeoutMs(this), this.port.bodyTimeoutMs);
    } catch (error) {
      this.fail(error);
    }
  }

  /** Refuses the call before any of its duties. */
  turnAway(error: ConnectError): void {
    this.over = true;
    this.refuse(error);
  }

  protected receive(): void {
    if (this.exchange.httpMethod === "GET") this.received(EMPTY);
    else this.exchange.read(this.rpc.maxRequestBytes + this.wire.overheadBytes);
  }

  received(body: Buffer): void {
    if (this.over) return;
    try {
      const message = this.wire.unwrap(this, body);
      if (message instanceof Promise) message.then((bytes) => this.#read(bytes)).catch((error: unknown) => this.fail(error));
      else this.#read(message);
    } catch (error) {
      this.fail(error);
    }
  }

  #read(bytes: Uint8Array): void {
    if (bytes.length > this.rpc.maxRequestBytes) throw tooLarge(this.rpc.maxRequestBytes);
    const message = this.wire.codec.parse(this.rpc.desc.input, bytes, this.rpc.types);
    if (this.over) return;
    this.#handling = true;
    void this.handle(message);
  }

  overflowed(): void {
    this.fail(tooLarge(this.rpc.maxRequestBytes));
  }

  closed(): void {
    this.leave();
    this.#wrote();
  }

  protected override handled(): void {
    this.#handling = false;
    if (this.#written) this.#wrote();
  }

  #wrote(): void {
    this.#written = true;
    if (this.#handling || this.#done) return;
    this.#done = true;
    this.port.done(this);
  }

  protected answer(message: Message): void {
    const bytes = this.wire.codec.serialize(this.rpc.desc.output, message, this.rpc.types);
    if (bytes.length > this.rpc.maxResponseBytes) {
      throw new Error(`An answer of ${bytes.length} bytes is larger than the ${this.rpc.maxResponseBytes} that may be sent.`);
    }
    this.end();
    this.#write(() => this.wire.answer(this, bytes));
  }

  protected refuse(error: ConnectError): void {
    this.#write(() => this.wire.refuse(this, error));
  }

  /** What cannot be written, such as a header of a handler that the protocol forbids, ends the exchange: nobody waits for ever. */
  #write(work: () => void | Promise<void>): void {
    const cut = (error: unknown) => {
      this.log.error({ err: error }, "an answer could not be written");
      this.exchange.cut();
    };
    try {
      const written = work();
      if (written === undefined) this.#wrote();
      else written.then(() => this.#wrote()).catch(cut);
    } catch (error) {
      cut(error);
    }
  }

  /** Adds to headers what the handler set and what the caller's origin needs. */
  withOwn(headers: WrittenHeaders): WrittenHeaders {
    this.ownHeader?.forEach((value, name) => {
      if (name === "set-cookie") headers[name] = [...((headers[name] as string[] | undefined) ?? []), value];
      else headers[name] ??= value;
    });
    const { origin } = this.headers;
    // A cache must not give a page what it kept for a caller that is none: the answer lacks what lets the page read it.
    const cors = origin === undefined && this.exchange.httpMethod !== "GET" ? undefined : this.port.corsHeaders(origin);
    if (cors !== undefined) {
      for (const name of Object.keys(cors)) {
        const value = cors[name] as string;
        headers[name] = name === "vary" && headers.vary !== undefined ? `${headers.vary}, ${value}` : value;
      }
    }
    return headers;
  }
}

const EMPTY = Buffer.alloc(0);
