import type { IncomingHttpHeaders } from "node:http";
import type { DescMethod } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { Health } from "#gen/grpc/health/v1/health_pb.ts";
import { SERVICE_TOKEN_HEADER } from "#runtime/access.ts";

/**
 * What a call is when there is too much to do. Reads are refused first: one is cheap to repeat, while a command belongs to a purchase. Health is never
 * refused: a busy process is not a dead one. Streams are counted by themselves, because they stay.
 */
export type CallClass = "read" | "command" | "health" | "stream" | "health stream";

/** The bounds of what is done at once. */
export interface SheddingLimits {
  /** Unary calls at once. */
  readonly maxCalls: number;
  /** Streams at once, over all connections; those of health are counted apart. */
  readonly maxOpenStreams: number;
}

/** The bounds unless told otherwise. */
export const DEFAULT_SHEDDING_LIMITS: SheddingLimits = { maxCalls: 5000, maxOpenStreams: 5000 };

/** Decides which calls are taken. */
export interface Shedding {
  /** Takes a call in and answers undefined, or answers how long its caller is to stay away, in ms. */
  admit(kind: CallClass): number | undefined;
  /** A call that was taken in has been answered. */
  leave(kind: CallClass): void;
  /** Tells how late the event loop was, in ms. Called every `TICK_MS`. */
  tick(lateMs: number): void;
  /** Unary calls under way, those of health left out. */
  readonly calls: number;
  /** Unary calls that are taken at once as things are; reads may be four fifths of them at most. */
  readonly limit: number;
}

/** How often the event loop's delay is looked at, in ms. */
export const TICK_MS = 50;
/** How late the event loop may be. All calls wait that long whenever they wait for something. */
const TARGET_MS = 100;
/** Calls that are taken at once however late it is. */
const FLOOR = 32;
const READS_SHARE = 0.8;
/** What reads keep although commands are refused. */
const LEAST_READS_SHARE = 0.05;
const PUSHBACK_MS = 1000;

/**
 * The decision by itself, without clock and timers. Calls at once are bounded by a number, which shrinks while the event loop is late and grows back: with cheap calls
 * thousands at once are no burden, with dear ones a hundred are seconds of work that nobody waits for any more.
 */
export function createShedding({ maxCalls, maxOpenStreams }: SheddingLimits, random: () => number = Math.random): Shedding {
  const open: Record<CallClass, number> = { read: 0, command: 0, health: 0, stream: 0, "health stream": 0 };
  let limit = maxCalls;
  /** Of them, reads. Fewer while commands are refused. */
  let reads = maxCalls;
  let commandsRefused = false;
  let mostCalls = 0;
  let wasLate = false;
  const isFull = (kind: CallClass): boolean => {
    switch (kind) {
      case "health":
        return false;
      case "stream":
      case "health stream":
        return open[kind] >= maxOpenStreams;
      case "read":
        return open.read >= reads || open.read + open.command >= Math.ceil(limit * READS_SHARE);
      case "command":
        return open.read + open.command >= limit;
    }
  };
  return {
    get calls() {
      return open.read + open.command;
    },
    get limit() {
      return limit;
    },
    admit(kind) {
      if (isFull(kind)) {
        if (kind === "command") commandsRefused = true;
        // Not all at the same moment: those who come back together are refused together.
        return Math.round(PUSHBACK_MS * (0.5 + random()));
      }
      open[kind]++;
      mostCalls = Math.max(mostCalls, open.read + open.command);
      return undefined;
    },
    leave(kind) {
      open[kind]--;
    },
    tick(lateMs) {
      const isLate = lateMs > TARGET_MS;
      // Once is no load: somebody collected garbage.
      if (isLate && wasLate) {
        const share = Math.min(0.9, Math.max(0.5, TARGET_MS / lateMs));
        limit = Math.min(limit, Math.max(Math.min(FLOOR, maxCalls), Math.floor(mostCalls * share)));
      } else if (!isLate) {
        limit = Math.min(maxCalls, Math.ceil(limit * 1.1));
      }
      const next = commandsRefused ? reads * 0.7 : reads * 1.02 + 0.5;
      reads = Math.min(limit, Math.max(limit * LEAST_READS_SHARE, next));
      commandsRefused = false;
      wasLate = isLate;
      mostCalls = open.read + open.command;
    },
  };
}

/** Tells it how late the event loop is, until the returned function is called. */
export function watchEventLoop(shedding: Shedding): () => void {
  let dueTime = performance.now() + TICK_MS;
  const timer = setInterval(() => {
    const now = performance.now();
    shedding.tick(Math.max(0, now - dueTime));
    dueTime = now + TICK_MS;
  }, TICK_MS);
  timer.unref();
  return () => clearInterval(timer);
}

/** What a call is. What a service reads it reads for somebody's command; whoever only says to be one gains no more than any command has. */
export function classOf(method: DescMethod, headers: IncomingHttpHeaders): CallClass {
  const isHealth = method.parent.typeName === Health.typeName;
  if (method.methodKind !== "unary") return isHealth ? "health stream" : "stream";
  if (isHealth) return "health";
  const reads = method.idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS;
  return reads && headers[SERVICE_TOKEN_HEADER] === undefined ? "read" : "command";
}
