import { fromBinary } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import type { Metadata, StatusObject } from "@grpc/grpc-js";
import { RetryInfoSchema } from "#gen/google/rpc/error_details_pb.ts";
import { isCutOff, richStatus } from "#runtime/client/status.ts";

/** The wait before a second attempt, in ms; it doubles with each one. Callers outside the mesh wait as long, by the service configs in `mesh/generated`. */
const BACKOFF_MS = 100;
const MAX_BACKOFF_MS = 2_000;
/** A server that asks for a longer wait than this is asked no more. */
const MAX_PUSHBACK_MS = 30_000;

const BUCKET_MS = 1_000;
const BUCKETS = 10;
const SHARE = 0.1;
const MINIMUM = 3;

/**
 * How many attempts may be made beside the calls themselves: a tenth of the calls of the last 10 s, or 3 where there were few. So a server that is in
 * trouble gets hardly more to do for it.
 */
export class RetryBudget {
  readonly #calls: number[] = new Array(BUCKETS).fill(0);
  readonly #extra: number[] = new Array(BUCKETS).fill(0);
  #bucket = 0;

  /** Counts a call. */
  call(now: number): void {
    add(this.#calls, this.#turn(now));
  }

  /** Takes one more attempt; false when there is none left. */
  take(now: number): boolean {
    const index = this.#turn(now);
    if (sum(this.#extra) >= Math.max(MINIMUM, Math.floor(sum(this.#calls) * SHARE))) return false;
    add(this.#extra, index);
    return true;
  }

  #turn(now: number): number {
    const bucket = Math.floor(now / BUCKET_MS);
    if (bucket !== this.#bucket) {
      for (let old = Math.max(this.#bucket, bucket - BUCKETS) + 1; old <= bucket; old++) {
        this.#calls[old % BUCKETS] = 0;
        this.#extra[old % BUCKETS] = 0;
      }
      this.#bucket = Math.max(bucket, this.#bucket);
    }
    return this.#bucket % BUCKETS;
  }
}

function add(numbers: number[], index: number): void {
  numbers[index] = (numbers[index] ?? 0) + 1;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, each) => total + each, 0);
}

/** The wait before attempt number `attempt + 1`, in ms: exponential, half of it by chance. */
export function backoffMs(attempt: number): number {
  const most = Math.min(BACKOFF_MS * 2 ** (attempt - 1), MAX_BACKOFF_MS);
  return most * (0.5 + Math.random() / 2);
}

/**
 * The wait before a failed call may be tried again, in ms; undefined when it may not. What the server says goes before our own wait.
 *
 * - UNAVAILABLE, and an answer that was cut off, so that nobody knows what became of the call.
 * - DEADLINE_EXCEEDED: the caller still has time, so it was an attempt's share of it that ran out.
 * - RESOURCE_EXHAUSTED where the server says when.
 * - Anything else for which the server says when, such as a service of its own that did not answer: only `outermost`. Between services each layer
 *   above would do so as well.
 */
export function retryDelayMs(status: StatusObject, code: Code, attempt: number, outermost: boolean): number | undefined {
  const ours = code === Code.Unavailable || code === Code.DeadlineExceeded || isCutOff(status);
  if (!ours && code !== Code.ResourceExhausted && !outermost) return undefined;
  const pushback = pushbackMs(status.metadata);
  if (pushback === undefined) return ours ? backoffMs(attempt) : undefined;
  if (!(pushback >= 0 && pushback <= MAX_PUSHBACK_MS)) return undefined;
  // Those who were sent away together do not come back together.
  return pushback + Math.random() * backoffMs(attempt);
}

/** What the server says of another attempt: the wait in ms, or NaN for none at all; undefined when it says nothing. */
function pushbackMs(metadata: Metadata): number | undefined {
  const [header] = metadata.get("grpc-retry-pushback-ms");
  if (header !== undefined) return /^\d{1,9}$/.test(String(header)) ? Number(header) : Number.NaN;
  const info = richStatus(metadata)?.details.find(({ typeUrl }) => typeUrl.endsWith("/google.rpc.RetryInfo"));
  if (info === undefined) return undefined;
  try {
    const { retryDelay } = fromBinary(RetryInfoSchema, info.value);
    return retryDelay && Number(retryDelay.seconds) * 1000 + retryDelay.nanos / 1_000_000;
  } catch {
    return undefined;
  }
}
