import { setTimeout as sleep } from "node:timers/promises";
import type { DescMethodStreaming, Message } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import type { Channel, Metadata, StatusObject } from "@grpc/grpc-js";
import { status as statusCode } from "@grpc/grpc-js";
import type { Method } from "#runtime/client/method.ts";
import { backoffMs } from "#runtime/client/retry.ts";
import { type Call, contentTypeProblem, type Listener, neverBegan, toError } from "#runtime/client/status.ts";
import {
  aborted,
  COMPRESSED,
  cancel,
  closed,
  type Ending,
  MAX_CONNECTS,
  MAX_TIMER_MS,
  PLAIN,
  type Shared,
  startable,
  tooLate,
  unreachable,
} from "#runtime/client/unary.ts";

/** Messages that were read and nobody took yet; then reading waits. */
const READ_AHEAD = 16;
/** How often a stream is opened in all that certainly did not begin. */
const MAX_SENDS = 3;

/** A stream to be opened. */
export interface Opening {
  readonly method: Method<DescMethodStreaming>;
  readonly input: AsyncIterable<Message>;
  readonly metadata: Metadata;
  /** In ms since the epoch; Infinity where there is none. */
  readonly deadline: number;
  readonly signal: AbortSignal;
  /** Told once, when the stream has ended: with its error, and with its trailer where there was one. */
  onEnd(error: ConnectError | undefined, trailer: Metadata | undefined): void;
}

/** An open stream. */
export interface Opened {
  /** What the answer began with; undefined where it ended at once. */
  readonly header: Metadata | undefined;
  readonly messages: AsyncIterable<Message>;
}

/** Opens a stream; resolves when its answer begins. Only one whose whole request is known is opened again where none has begun. */
export async function openStream(shared: Shared, opening: Opening): Promise<Opened> {
  shared.attempts.calls++;
  try {
    const input = opening.input[Symbol.asyncIterator]();
    const only = opening.method.desc.methodKind === "server_streaming" ? await input.next() : undefined;
    for (let sends = 1; ; sends++) {
      const channel = await connected(shared, opening);
      shared.attempts.sent++;
      const stream = new StreamCall(shared, opening, channel);
      stream.send(only === undefined ? input : repeated(only));
      if (await stream.begun) return stream;
      if (only === undefined || sends >= MAX_SENDS) throw new ConnectError("The server did not begin the call.", Code.Unavailable);
      shared.attempts.resent++;
    }
  } catch (error) {
    const failed = ConnectError.from(error);
    opening.onEnd(failed, undefined);
    throw failed;
  }
}

async function* repeated(first: IteratorResult<Message>): AsyncGenerator<Message> {
  if (first.done !== true) yield first.value;
}

/** A connected channel, within the time of the stream. */
async function connected({ connection }: Shared, { deadline, signal }: Opening): Promise<Channel> {
  if (signal.aborted) throw aborted(signal);
  const leftMs = deadline - Date.now();
  if (leftMs <= 0) throw tooLate();
  const over = Promise.withResolvers<never>();
  const timer = leftMs === Infinity ? undefined : setTimeout(() => over.reject(tooLate()), Math.min(leftMs, MAX_TIMER_MS));
  const abort = () => over.reject(aborted(signal));
  signal.addEventListener("abort", abort);
  try {
    for (let connects = 1; ; connects++) {
      try {
        return await Promise.race([connection.ready(), over.promise]);
      } catch (error) {
        if (error instanceof ConnectError) throw error;
        if (connection.isClosed) throw closed();
        if (connects >= MAX_CONNECTS) throw unreachable(error as Error);
      }
      await Promise.race([sleep(backoffMs(connects)), over.promise]);
    }
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", abort);
  }
}

/** One attempt. What was read waits here until it is asked for, so that a status that follows at once overtakes no message. */
class StreamCall implements Listener, Opened, Ending {
  readonly #shared: Shared;
  readonly #opening: Opening;
  readonly #channel: Channel;
  readonly #call: Call | undefined;
  readonly #began = Promise.withResolvers<boolean>();
  readonly #read: Message[] = [];
  /** Whether a message is on its way. */
  #reading = true;
  #end: { readonly error?: ConnectError } | undefined;
  #wake: (() => void) | undefined;
  #written: (() => void) | undefined;
  header: Metadata | undefined;

  constructor(shared: Shared, opening: Opening, channel: Channel) {
    this.#shared = shared;
    this.#opening = opening;
    this.#channel = channel;
    this.#call = startable(channel, opening.method.path, opening.deadline);
    if (this.#call === undefined) {
      this.#finish(closed());
      return;
    }
    opening.signal.addEventListener("abort", this.#abort);
    shared.active.add(this);
    this.#call.start(opening.metadata, this);
    this.#call.startRead();
  }

  /** True when the answer begins, false when no server began the call. Rejects when it is refused. */
  get begun(): Promise<boolean> {
    return this.#began.promise;
  }

  readonly #abort = () => this.endWith(aborted(this.#opening.signal));

  endWith(error: ConnectError): void {
    this.#finish(error);
    if (this.#call !== undefined) cancel(this.#call);
  }

  /** Sends the messages of the request as fast as the connection takes them. */
  send(input: AsyncIterator<Message> | AsyncGenerator<Message>): void {
    const all = async () => {
      for (;;) {
        const item = await input.next();
        if (this.#end !== undefined) return;
        if (item.done === true) break;
        await this.#write(this.#opening.method.serialize(item.value));
        if (this.#end !== undefined) return;
      }
      this.#call?.halfClose();
    };
    all().catch((error: unknown) => {
      if (this.#end === undefined) this.endWith(ConnectError.from(error));
    });
  }

  #write(bytes: Buffer): Promise<void> {
    const flags = bytes.length < this.#shared.compressMinBytes ? PLAIN : COMPRESSED;
    return new Promise((resolve) => {
      this.#written = resolve;
      this.#call?.sendMessageWithContext({ flags, callback: () => resolve() }, bytes);
    });
  }

  onReceiveMetadata(metadata: Metadata): void {
    this.header = metadata;
    const problem = contentTypeProblem(metadata);
    // Of an answer that is not gRPC the status says more.
    if (problem === undefined) this.#began.resolve(true);
  }

  onReceiveMessage(bytes: Buffer): void {
    if (this.#end !== undefined) return;
    this.#reading = false;
    try {
      this.#read.push(this.#opening.method.deserialize(bytes));
    } catch (error) {
      this.endWith(error as ConnectError);
      return;
    }
    if (this.#read.length < READ_AHEAD) this.#readOn();
    this.#wake?.();
  }

  onReceiveStatus(status: StatusObject): void {
    if (this.#end !== undefined) return;
    if (status.code === statusCode.OK) {
      this.#finish(contentTypeProblem(this.header), status.metadata);
      return;
    }
    if (neverBegan(status, this.#call as Call, this.#channel, this.header)) this.#began.resolve(false);
    this.#finish(toError(status, this.header, this.#opening.deadline), status.metadata);
  }

  #readOn(): void {
    this.#reading = true;
    this.#call?.startRead();
  }

  #finish(error: ConnectError | undefined, trailer?: Metadata): void {
    if (this.#end !== undefined) return;
    this.#end = error === undefined ? {} : { error };
    this.#shared.active.delete(this);
    this.#opening.signal.removeEventListener("abort", this.#abort);
    if (error === undefined) this.#began.resolve(true);
    // Where it is not settled yet, whoever opens the stream tells of its end.
    else this.#began.reject(error);
    this.#began.promise.then(
      (begun) => begun && this.#opening.onEnd(error, trailer),
      () => {},
    );
    this.#wake?.();
    this.#written?.();
  }

  get messages(): AsyncIterable<Message> {
    return { [Symbol.asyncIterator]: () => ({ next: () => this.#next() }) };
  }

  async #next(): Promise<IteratorResult<Message>> {
    for (;;) {
      const message = this.#read.shift();
      if (message !== undefined) {
        if (!this.#reading && this.#end === undefined) this.#readOn();
        return { done: false, value: message };
      }
      if (this.#end?.error !== undefined) throw this.#end.error;
      if (this.#end !== undefined) return { done: true, value: undefined };
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}
