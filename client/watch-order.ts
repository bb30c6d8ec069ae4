import { type Client, Code, ConnectError } from "@connectrpc/connect";
import { type Order, type OrderService, OrderState } from "#gen/marketplace/order/v1/order_pb.ts";
import { retryAfterMsOf } from "./errors.ts";

/** What a watcher may set. */
export interface WatchOrderOptions {
  /** Ends the watch. */
  readonly signal?: AbortSignal;
  /**
   * After how much silence the stream is taken for dead, in ms: 45,000, three heartbeats, unless given. Where one connection carries many calls (HTTP/2) the
   * transport must notice, too, that it is dead, by pings: the next call takes it again otherwise.
   */
  readonly silenceMs?: number;
}

const SILENCE_MS = 45_000;
const BACKOFF_MS = 250;
const BACKOFF_MAX_MS = 30_000;

/** Errors that calling again does not mend. */
const FINAL_CODES: ReadonlySet<Code> = new Set([
  Code.InvalidArgument,
  Code.NotFound,
  Code.AlreadyExists,
  Code.PermissionDenied,
  Code.FailedPrecondition,
  Code.OutOfRange,
  Code.Unimplemented,
  Code.Unauthenticated,
]);

/**
 * Watches an order until it is in a final state: gives its state now, then every change. Resumes by itself, after the last change that it gave, when the
 * server ends the stream, the connection breaks or nothing is heard any more. What changes faster than it is taken is given as the latest state.
 *
 * ```ts
 * for await (const order of watchOrder(client, orderId, { signal })) show(order);
 * ```
 *
 * Ends, too, when `signal` aborts. Throws a `ConnectError` when the order cannot be watched: there is none, the token has expired.
 */
export async function* watchOrder(
  client: Pick<Client<typeof OrderService>, "watchOrder">,
  orderId: string,
  { signal, silenceMs = SILENCE_MS }: WatchOrderOptions = {},
): AsyncGenerator<Order, void, undefined> {
  const ended = () => signal?.aborted === true;
  let sequence = 0n;
  for (let failures = 0; !ended(); ) {
    const attempt = startAttempt(signal, silenceMs);
    let pauseMs = 0;
    try {
      for await (const { order } of client.watchOrder({ orderId, afterSequence: sequence }, { signal: attempt.signal })) {
        attempt.rest();
        failures = 0;
        if (order !== undefined && order.sequence > sequence) {
          sequence = order.sequence;
          yield order;
          if (order.state === OrderState.COMPLETED || order.state === OrderState.CANCELLED) return;
        }
        attempt.listen();
      }
      failures++;
    } catch (error) {
      const failure = ConnectError.from(error);
      if (!ended() && FINAL_CODES.has(failure.code)) throw failure;
      failures++;
      pauseMs = retryAfterMsOf(failure) ?? 0;
    } finally {
      attempt.end();
    }
    const backoffMs = Math.min(BACKOFF_MAX_MS, BACKOFF_MS * 2 ** (failures - 1));
    // At random, so that those whom one server has left do not come to the next at the same moment.
    await pause(Math.max(pauseMs, backoffMs * Math.random()), signal);
  }
}

/** One call: its signal aborts with the watch's, and when nothing is heard for too long. */
function startAttempt(outer: AbortSignal | undefined, silenceMs: number) {
  const controller = new AbortController();
  const abort = () => controller.abort();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const rest = () => clearTimeout(timer);
  const listen = () => {
    rest();
    timer = setTimeout(abort, silenceMs);
  };
  outer?.addEventListener("abort", abort);
  listen();
  return {
    signal: controller.signal,
    /** The reader is busy: its own time is not the server's silence. */
    rest,
    listen,
    end() {
      rest();
      outer?.removeEventListener("abort", abort);
      controller.abort();
    },
  };
}

function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", done);
    if (signal?.aborted) done();
  });
}
