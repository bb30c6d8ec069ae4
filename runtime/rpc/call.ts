import type { IncomingHttpHeaders } from "node:http";
import { create, type DescMethod, type DescService, type Message } from "@bufbuild/protobuf";
import type { ConnectError, ContextKey, ContextValues, HandlerContext } from "@connectrpc/connect";
import { type Call, type Caller, callKey } from "#runtime/call.ts";
import { CANCELLED, DEADLINE_EXCEEDED, failure } from "#runtime/errors.ts";
import type { Log } from "#runtime/log.ts";
import type { UnaryMethod } from "#runtime/rpc/method.ts";
import type { Timed } from "#runtime/rpc/watch.ts";
import type { Carriage, ObservedCall } from "#runtime/telemetry/observer.ts";

const ANONYMOUS: Caller = { kind: "anonymous" };

/**
 * One unary call from arrival to outcome, whatever carries it: the one place where its duties are done in their order. It is the handler's context and the
 * `Call` at once, and makes what a handler seldom asks for (headers, signal, a log of its own) only when asked.
 */
export abstract class UnaryCall implements HandlerContext, ContextValues, Call, Timed {
  readonly rpc: UnaryMethod;
  /** Names in lower case. */
  readonly headers: IncomingHttpHeaders;
  readonly carriage: Carriage;
  /** Milliseconds since the process began. */
  readonly startTime = performance.now();
  deadline = Number.POSITIVE_INFINITY;
  caller: Caller = ANONYMOUS;
  requestId?: string;
  dueTime = Number.POSITIVE_INFINITY;
  slot = -1;
  /** Whether its outcome is decided; what still runs for it is for nothing. */
  over = false;
  #observed: ObservedCall | undefined;
  #why: ConnectError | undefined;
  #controller: AbortController | undefined;
  #log: Log | undefined;
  #requestHeader: Headers | undefined;
  #responseHeader: Headers | undefined;
  #responseTrailer: Headers | undefined;
  #values: Map<symbol, unknown> | undefined;

  constructor(rpc: UnaryMethod, headers: IncomingHttpHeaders, carriage: Carriage) {
    this.rpc = rpc;
    this.headers = headers;
    this.carriage = carriage;
  }

  abstract readonly requestMethod: string;
  abstract readonly url: string;

  /** Gets the message, then calls `handle`. */
  protected abstract receive(): void;
  /** Hands the answer over. What it throws before `end` becomes the outcome instead. */
  protected abstract answer(message: Message): void;
  /** Hands an error over, as its caller may see it. */
  protected abstract refuse(error: ConnectError): void;

  /** Takes the call up: its time begins, then who calls and whether they may. */
  protected arrive(timeoutMs: number | undefined, receiveMs: number): void {
    const { rpc } = this;
    const now = Date.now();
    const boundMs = timeoutMs === undefined || timeoutMs > rpc.timeoutMs ? rpc.timeoutMs : timeoutMs;
    this.deadline = now + boundMs;
    this.dueTime = now + (boundMs < receiveMs ? boundMs : receiveMs);
    rpc.watch.add(this);
    try {
      const admitted = rpc.duties.admit(this);
      if (admitted === undefined) this.receive();
      else admitted.then(() => this.over || this.receive()).catch((error: unknown) => this.fail(error));
    } catch (error) {
      this.fail(error);
    }
  }

  /** Tells who watches that a call arrived. */
  protected observe(): void {
    const { observer, desc } = this.rpc;
    if (observer === undefined) return;
    this.#observed = observer.serverCall({ method: desc, carriage: this.carriage, header: (name) => this.header(name) });
  }

  /** Runs work as a part of the call for who watches: its lines and what it calls belong to it. */
  #within<T>(work: () => T): T {
    return this.#observed === undefined ? work() : this.#observed.run(work);
  }

  /** Serves the message that arrived. Never throws. */
  protected async handle(message: Message): Promise<void> {
    if (this.over) return;
    const { rpc } = this;
    try {
      this.dueTime = this.deadline;
      rpc.duties.check(this, message);
      // Nothing begins after expiry, however long the request took to arrive.
      if (this.deadline <= Date.now()) throw failure(DEADLINE_EXCEEDED);
      const { requestId } = message as { requestId?: unknown };
      if (typeof requestId === "string" && requestId !== "") this.requestId = requestId;
      const output = this.#within(() => rpc.implementation(message, this));
      const answer = create(rpc.desc.output, (isPromise(output) ? await output : output) as Message);
      if (!this.over) this.answer(answer);
    } catch (error) {
      this.fail(error);
    } finally {
      this.handled();
    }
  }

  /** Its handler has ended, whether or not somebody still waited. */
  protected handled(): void {}

  /** Decides the outcome; undefined is success. */
  protected end(error?: ConnectError): void {
    this.over = true;
    this.rpc.watch.remove(this);
    this.#within(() => this.rpc.duties.ended(this, error));
    this.#observed?.end(error);
  }

  /** Ends the call with an error, unless it is over. */
  fail(error: unknown): void {
    if (this.over) return;
    const presentable = this.#within(() => this.rpc.duties.presentable(this, error));
    this.end(presentable);
    this.refuse(presentable);
  }

  /** Its time is over: tells the handler and answers, whatever the handler does. */
  expire(): void {
    const late = this.dueTime < this.deadline ? { message: "The request did not arrive in time." } : {};
    const error = failure(DEADLINE_EXCEEDED, late);
    this.#abort(error);
    this.fail(error);
  }

  /** Its caller went away: tells the handler. There is nobody to answer. */
  leave(cause?: unknown): void {
    if (this.over) return;
    const error = failure(CANCELLED, { cause });
    this.#abort(error);
    this.end(error);
  }

  #abort(why: ConnectError): void {
    this.#why = why;
    const controller = this.#controller;
    if (controller !== undefined) this.#within(() => controller.abort(why));
  }

  /** A header of the request; the name in lower case. */
  header(name: string): string | undefined {
    const value = this.headers[name];
    return Array.isArray(value) ? value.join(", ") : value;
  }

  get method(): DescMethod {
    return this.rpc.desc;
  }
  get service(): DescService {
    return this.rpc.desc.parent;
  }
  get protocolName(): string {
    return this.carriage;
  }
  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController();
      if (this.#why !== undefined) this.#controller.abort(this.#why);
    }
    return this.#controller.signal;
  }
  get log(): Log {
    this.#log ??= this.rpc.duties.logFor(this);
    return this.#log;
  }
  timeoutMs(): number | undefined {
    return this.deadline === Number.POSITIVE_INFINITY ? undefined : this.deadline - Date.now();
  }
  get requestHeader(): Headers {
    this.#requestHeader ??= visibleHeaders(this.headers, this.rpc.duties.hiddenHeaders);
    return this.#requestHeader;
  }
  get responseHeader(): Headers {
    this.#responseHeader ??= new Headers();
    return this.#responseHeader;
  }
  get responseTrailer(): Headers {
    this.#responseTrailer ??= new Headers();
    return this.#responseTrailer;
  }
  /** The headers that the handler set; undefined where it asked for none. */
  get ownHeader(): Headers | undefined {
    return this.#responseHeader;
  }
  /** The trailers that the handler set; undefined where it asked for none. */
  get ownTrailer(): Headers | undefined {
    return this.#responseTrailer;
  }

  get values(): ContextValues {
    return this;
  }
  get<T>(key: ContextKey<T>): T {
    if ((key as unknown) === callKey) return this as unknown as T;
    return this.#values?.has(key.id) === true ? (this.#values.get(key.id) as T) : key.defaultValue;
  }
  set<T>(key: ContextKey<T>, value: T): this {
    this.#values ??= new Map();
    this.#values.set(key.id, value);
    return this;
  }
  delete(key: ContextKey<unknown>): this {
    this.#values?.delete(key.id);
    return this;
  }
}

function isPromise(value: unknown): value is PromiseLike<unknown> {
  return typeof (value as PromiseLike<unknown> | undefined)?.then === "function";
}

function visibleHeaders(from: IncomingHttpHeaders, hidden: ReadonlySet<string>): Headers {
  const visible = new Headers();
  for (const name of Object.keys(from)) {
    const value = from[name];
    if (value === undefined || name.startsWith(":") || hidden.has(name)) continue;
    for (const each of Array.isArray(value) ? value : [value]) visible.append(name, each);
  }
  return visible;
}
