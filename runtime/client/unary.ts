import type { DescMethodUnary, Message } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { getAbortSignalReason } from "@connectrpc/connect/protocol";
import { Channel, connectivityState, type Metadata, type StatusObject, status as statusCode } from "@grpc/grpc-js";
import type { Connection } from "#runtime/client/connection.ts";
import type { Attempts, Method } from "#runtime/client/method.ts";
import { backoffMs, type RetryBudget, retryDelayMs } from "#runtime/client/retry.ts";
import { answerProblem, type Call, type Listener, neverBegan, toError } from "#runtime/client/status.ts";

/** How often a call is sent in all that certainly did not begin. */
const MAX_SENDS = 20;
/** The longest wait between two of those, in ms. */
const MAX_RESEND_WAIT_MS = 250;
/** How often a connection is looked for in all. */
export const MAX_CONNECTS = 3;
/** The longest delay that a timer takes. */
export const MAX_TIMER_MS = 2 ** 31 - 1;
/** Flags of grpc-js for a message. */
export const COMPRESSED = 0;
export const PLAIN = 2;
const COMPRESSED_MESSAGE = { flags: COMPRESSED };
const PLAIN_MESSAGE = { flags: PLAIN };

/** A call that can be ended from outside. */
export interface Ending {
  endWith(error: ConnectError): void;
}

/** What the calls of one client share. */
export interface Shared {
  readonly connection: Connection;
  readonly budget: RetryBudget;
  readonly attempts: Attempts;
  /** Whether nobody above repeats these calls. */
  readonly outermost: boolean;
  /** The calls under way. */
  readonly active: Set<Ending>;
  /** Messages below this size are not compressed. */
  readonly compressMinBytes: number;
}

/** What is sent. */
export interface Sending {
  readonly method: Method<DescMethodUnary>;
  readonly message: Message;
  readonly metadata: Metadata;
  /** In ms since the epoch; Infinity where there is none. */
  readonly deadline: number;
  readonly signal: AbortSignal | undefined;
}

/** What came back. */
export interface Answer {
  readonly message: Message;
  readonly header: Metadata | undefined;
  readonly trailer: Metadata;
}

/** Makes a unary call: one attempt, and more where the method allows it or none has begun. Rejects with a ConnectError. */
export function sendUnary(shared: Shared, sending: Sending): Promise<Answer> {
  return new Promise((resolve, reject) => {
    new UnaryCall(shared, sending, resolve, reject).begin();
  });
}

/** The error of a call whose caller gave up. */
export function aborted(signal: AbortSignal): ConnectError {
  return ConnectError.from(getAbortSignalReason(signal), Code.Canceled);
}

/** The error of a call whose time is over before it was sent. */
export function tooLate(): ConnectError {
  return new ConnectError("the operation timed out", Code.DeadlineExceeded);
}

/** The error of a call for which there is no connection. */
export function unreachable(why: Error): ConnectError {
  return new ConnectError(why.message, Code.Unavailable, undefined, undefined, why);
}

/** The error of a call whose client is closed. */
export function closed(): ConnectError {
  return new ConnectError("This client is closed.", Code.Unavailable);
}

/** Ends a call of grpc-js, which may not have got as far as to hear it the first time. */
export function cancel(call: Call): void {
  call.cancelWithStatus(statusCode.CANCELLED, "");
  setImmediate(() => call.cancelWithStatus(statusCode.CANCELLED, ""));
}

/** A call that is not begun yet; undefined where the channel was closed a moment ago. */
export function startable(channel: Channel, path: string, deadline: number): Call | undefined {
  return channel.getConnectivityState(false) === connectivityState.SHUTDOWN
    ? undefined
    : channel.createCall(path, deadline, null, null, null);
}

/** Tells the server how many attempts came before, as gRPC's own retries do. */
function repeated(metadata: Metadata, attempts: number): Metadata {
  const more = metadata.clone();
  more.set("grpc-previous-rpc-attempts", String(attempts));
  return more;
}

/** One call over all its attempts. It listens to grpc-js and to the caller's signal by itself: few objects are what makes a call cheap. */
class UnaryCall implements Listener, EventListenerObject, Ending {
  readonly #shared: Shared;
  readonly #sending: Sending;
  readonly #resolve: (answer: Answer) => void;
  readonly #reject: (error: ConnectError) => void;
  #bytes: Buffer | undefined;
  #channel: Channel | undefined;
  #call: Call | undefined;
  /** Of the wait for a connection or for the next attempt. */
  #timer: NodeJS.Timeout | undefined;
  #ended = false;
  #connects = 0;
  /** Of the attempts, those that a server may have begun. */
  #begun = 0;
  #refused = 0;
  // Of the attempt under way.
  #header: Metadata | undefined;
  #message: Buffer | undefined;

  constructor(shared: Shared, sending: Sending, resolve: (answer: Answer) => void, reject: (error: ConnectError) => void) {
    this.#shared = shared;
    this.#sending = sending;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  begin(): void {
    const { method, message, signal } = this.#sending;
    this.#shared.attempts.calls++;
    this.#shared.budget.call(Date.now());
    if (signal?.aborted) {
      this.#fail(aborted(signal));
      return;
    }
    try {
      this.#bytes = method.serialize(message);
    } catch (error) {
      this.#fail(error as ConnectError);
      return;
    }
    signal?.addEventListener("abort", this);
    this.#shared.active.add(this);
    this.#connect();
  }

  /** The caller gives up. */
  handleEvent(): void {
    this.endWith(aborted(this.#sending.signal as AbortSignal));
  }

  endWith(error: ConnectError): void {
    this.#fail(error);
    if (this.#call !== undefined) cancel(this.#call);
  }

  onReceiveMetadata(metadata: Metadata): void {
    this.#header = metadata;
  }

  onReceiveMessage(message: Buffer): void {
    if (this.#ended) return;
    if (this.#message !== undefined) {
      this.endWith(new ConnectError("protocol error: received extra output message for unary method", Code.Unimplemented));
      return;
    }
    this.#message = message;
    // A second one would hold back the status until somebody asks for it.
    this.#call?.startRead();
  }

  onReceiveStatus(status: StatusObject): void {
    if (this.#ended) return;
    if (status.code === statusCode.OK) this.#answer(status.metadata);
    else if (neverBegan(status, this.#call as Call, this.#channel as Channel, this.#header)) this.#resend();
    else this.#retry(status);
  }

  #connect(): void {
    this.#timer = undefined;
    const leftMs = this.#sending.deadline - Date.now();
    if (leftMs <= 0) {
      this.#fail(tooLate());
      return;
    }
    const channel = this.#shared.connection.ready();
    if (channel instanceof Channel) {
      this.#send(channel);
      return;
    }
    this.#timer = leftMs === Infinity ? undefined : setTimeout(() => this.#fail(tooLate()), Math.min(leftMs, MAX_TIMER_MS));
    channel.then(
      (connected) => {
        clearTimeout(this.#timer);
        if (!this.#ended) this.#send(connected);
      },
      (error) => {
        clearTimeout(this.#timer);
        if (this.#ended) return;
        if (this.#shared.connection.isClosed) {
          this.#fail(closed());
          return;
        }
        this.#connects++;
        const failed = unreachable(error as Error);
        if (this.#connects >= MAX_CONNECTS) this.#fail(failed);
        else this.#after(backoffMs(this.#connects), failed);
      },
    );
  }

  #send(channel: Channel): void {
    const { method, metadata, deadline } = this.#sending;
    const bytes = this.#bytes as Buffer;
    this.#shared.attempts.sent++;
    this.#header = undefined;
    this.#message = undefined;
    this.#channel = channel;
    this.#call = undefined;
    const call = startable(channel, method.path, deadline);
    if (call === undefined) {
      this.#fail(closed());
      return;
    }
    this.#call = call;
    call.start(this.#begun === 0 ? metadata : repeated(metadata, this.#begun), this);
    call.startRead();
    call.sendMessageWithContext(bytes.length < this.#shared.compressMinBytes ? PLAIN_MESSAGE : COMPRESSED_MESSAGE, bytes);
    call.halfClose();
  }

  /** No handler has seen it: it may be sent again, whatever it is. */
  #resend(): void {
    this.#refused++;
    const refused = new ConnectError("The server did not begin the call.", Code.Unavailable);
    if (this.#refused >= MAX_SENDS) {
      this.#fail(refused);
      return;
    }
    this.#shared.attempts.resent++;
    // At first it just met the end of a connection.
    if (this.#refused === 1) this.#connect();
    else this.#after(Math.min(backoffMs(this.#refused - 1), MAX_RESEND_WAIT_MS), refused);
  }

  #retry(status: StatusObject): void {
    this.#begun++;
    const error = toError(status, this.#header, this.#sending.deadline);
    const now = Date.now();
    const { outermost } = this.#shared;
    const delayMs =
      this.#begun < this.#sending.method.maxAttempts ? retryDelayMs(status, error.code, this.#begun, outermost) : undefined;
    if (delayMs === undefined || now + delayMs >= this.#sending.deadline || !this.#shared.budget.take(now)) {
      this.#fail(error);
      return;
    }
    this.#shared.attempts.retried++;
    this.#after(delayMs, error);
  }

  /** Goes on after a while, or ends with this error when there is no time for it. */
  #after(delayMs: number, otherwise: ConnectError): void {
    if (Date.now() + delayMs >= this.#sending.deadline) {
      this.#fail(otherwise);
      return;
    }
    this.#timer = setTimeout(() => this.#connect(), delayMs);
  }

  #answer(trailer: Metadata): void {
    const { method } = this.#sending;
    const problem = answerProblem(this.#header, this.#message);
    if (problem !== undefined) {
      this.#fail(problem);
      return;
    }
    try {
      const message = method.deserialize(this.#message as Buffer);
      this.#end();
      this.#resolve({ message, header: this.#header, trailer });
    } catch (error) {
      this.#fail(error as ConnectError);
    }
  }

  #fail(error: ConnectError): void {
    if (this.#ended) return;
    this.#end();
    this.#reject(error);
  }

  #end(): void {
    this.#ended = true;
    this.#shared.active.delete(this);
    clearTimeout(this.#timer);
    this.#sending.signal?.removeEventListener("abort", this);
  }
}
