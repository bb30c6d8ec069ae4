import { Worker } from "node:worker_threads";
import type { ConnectError } from "@connectrpc/connect";
import { failure } from "#runtime/errors.ts";
import type { Log } from "#runtime/log.ts";
import { INDEX_UNAVAILABLE } from "../errors.ts";
import type { ThreadAnswer, ThreadCall } from "./thread.ts";

const RESTART_MS = 50;
const RESTART_MAX_MS = 5_000;
const RETRY_AFTER_MS = 200;

/** What a thread is started with. */
export interface ThreadOptions {
  /** The module that the thread runs; it calls `serve`. */
  readonly module: URL;
  /** For the log. */
  readonly name: string;
  /** Calls that may wait; more are refused with INDEX_UNAVAILABLE. */
  readonly queueMax: number;
  /** Calls given to the thread at once. Those that wait outside can still be taken back when their caller goes away. */
  readonly inFlightMax: number;
  /** A call that takes longer has hung, and the thread is ended; none unless given. */
  readonly callMaxMs?: number;
  /** What a new thread is told first, before any call that waits; `call` bypasses the queue. */
  prepare(call: (method: string, ...args: unknown[]) => Promise<unknown>): Promise<void>;
  /** The thread found its file broken. */
  onCorrupt?(): void;
  readonly log: Log;
}

interface Waiting {
  readonly method: string;
  readonly args: readonly unknown[];
  resolve(result: unknown): void;
  reject(error: unknown): void;
  timer?: NodeJS.Timeout;
}

/**
 * A worker thread and the calls to it. When the thread dies, the calls it had are rejected with INDEX_UNAVAILABLE, and another thread is started after a
 * pause that grows; calls that wait meanwhile are served by that one, or rejected if it cannot start.
 */
export class ThreadCalls {
  readonly #options: ThreadOptions;
  readonly #queue: Waiting[] = [];
  readonly #inFlight = new Map<number, Waiting>();
  #worker: Worker | undefined;
  #ready = false;
  #closed = false;
  #failures = 0;
  #nextId = 1;
  #restart: NodeJS.Timeout | undefined;

  constructor(options: ThreadOptions) {
    this.#options = options;
  }

  /** Starts the first thread. Rejects when it cannot start. */
  async start(): Promise<void> {
    const worker = this.#spawn();
    try {
      await this.#options.prepare((method, ...args) => this.#direct(worker, method, args));
    } catch (error) {
      this.#closed = true;
      await worker.terminate();
      throw error;
    }
    this.#ready = true;
    this.#pump();
  }

  /** Calls a method in the thread. Rejects with INDEX_UNAVAILABLE when the queue is full or the thread fails, with the signal's reason when it is aborted. */
  call(method: string, args: readonly unknown[], signal?: AbortSignal): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (this.#closed || this.#queue.length >= this.#options.queueMax) {
        reject(unavailable(this.#closed ? "closed" : "too many calls wait"));
        return;
      }
      if (signal?.aborted) {
        reject(signal.reason);
        return;
      }
      const giveUp = () => {
        const place = this.#queue.indexOf(waiting);
        if (place >= 0) {
          this.#queue.splice(place, 1);
        }
        reject(signal?.reason);
      };
      const done = <T>(settle: (value: T) => void) => {
        return (value: T) => {
          signal?.removeEventListener("abort", giveUp);
          settle(value);
        };
      };
      const waiting: Waiting = { method, args, resolve: done(resolve), reject: done(reject) };
      signal?.addEventListener("abort", giveUp, { once: true });
      this.#queue.push(waiting);
      this.#pump();
    });
  }

  /** Ends the thread; another one takes its place. */
  restart(): void {
    this.#worker?.terminate().catch(() => {});
  }

  /** Ends the thread after the calls it has, and rejects those that wait. */
  async close(lastCall?: string): Promise<void> {
    if (this.#closed) {
      return;
    }
    this.#closed = true;
    clearTimeout(this.#restart);
    this.#rejectAll(this.#queue.splice(0), "closed");
    const worker = this.#worker;
    if (worker !== undefined) {
      if (lastCall !== undefined && this.#ready) {
        await this.#direct(worker, lastCall, []).catch(() => {});
      }
      await worker.terminate();
    }
    this.#rejectAll(this.#takeInFlight(), "closed");
  }

  #pump(): void {
    while (this.#ready && this.#worker !== undefined && this.#inFlight.size < this.#options.inFlightMax) {
      const next = this.#queue.shift();
      if (next === undefined) {
        return;
      }
      this.#send(this.#worker, next);
    }
  }

  #send(worker: Worker, waiting: Waiting): void {
    const id = this.#nextId++;
    this.#inFlight.set(id, waiting);
    if (this.#options.callMaxMs !== undefined) {
      waiting.timer = setTimeout(() => {
        this.#options.log.error({ thread: this.#options.name, method: waiting.method }, "a call hangs; ending the thread");
        worker.terminate().catch(() => {});
      }, this.#options.callMaxMs);
    }
    worker.postMessage({ id, method: waiting.method, args: waiting.args } satisfies ThreadCall);
  }

  #direct(worker: Worker, method: string, args: readonly unknown[]): Promise<unknown> {
    return new Promise((resolve, reject) => this.#send(worker, { method, args, resolve, reject }));
  }

  #spawn(): Worker {
    const worker = new Worker(this.#options.module, { name: this.#options.name });
    this.#worker = worker;
    worker.on("message", (answer: ThreadAnswer) => this.#take(answer));
    worker.on("error", (error) => {
      this.#options.log.error({ thread: this.#options.name, err: error }, "a thread of the index failed");
    });
    worker.on("exit", () => this.#exited(worker));
    return worker;
  }

  #take(answer: ThreadAnswer): void {
    const waiting = this.#inFlight.get(answer.id);
    if (waiting === undefined) {
      return;
    }
    this.#inFlight.delete(answer.id);
    clearTimeout(waiting.timer);
    if ("failure" in answer) {
      this.#options.log.error(
        { thread: this.#options.name, method: waiting.method, failure: answer.failure },
        "a call of the index failed",
      );
      waiting.reject(unavailable(answer.failure));
      if (answer.corrupt) {
        this.#options.onCorrupt?.();
      }
    } else {
      this.#failures = 0;
      waiting.resolve(answer.result);
    }
    this.#pump();
  }

  #exited(worker: Worker): void {
    if (this.#worker !== worker || this.#closed) {
      return;
    }
    this.#worker = undefined;
    this.#ready = false;
    this.#rejectAll(this.#takeInFlight(), "the thread ended");
    const pause = Math.min(RESTART_MAX_MS, RESTART_MS * 2 ** this.#failures++);
    this.#options.log.error({ thread: this.#options.name, pauseMs: pause }, "a thread of the index ended; starting another");
    this.#restart = setTimeout(() => this.#restarted(), pause);
  }

  #restarted(): void {
    const worker = this.#spawn();
    this.#options
      .prepare((method, ...args) => this.#direct(worker, method, args))
      .then(
        () => {
          this.#ready = true;
          this.#pump();
        },
        () => {
          this.#rejectAll(this.#queue.splice(0), "the thread cannot start");
          return worker.terminate();
        },
      )
      .catch(() => {});
  }

  #takeInFlight(): Waiting[] {
    const all = [...this.#inFlight.values()];
    this.#inFlight.clear();
    return all;
  }

  #rejectAll(calls: readonly Waiting[], why: string): void {
    for (const waiting of calls) {
      clearTimeout(waiting.timer);
      waiting.reject(unavailable(why));
    }
  }
}

function unavailable(why: string): ConnectError {
  return failure(INDEX_UNAVAILABLE, { retryAfterMs: RETRY_AFTER_MS, cause: new Error(why) });
}
