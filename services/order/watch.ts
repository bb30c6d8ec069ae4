import type { MessageInitShape } from "@bufbuild/protobuf";
import type { WatchOrderRequest, WatchOrderResponseSchema } from "#gen/marketplace/order/v1/order_pb.ts";
import { accountOf, type Call } from "#runtime/call.ts";
import { fail, OVERLOADED, UNAVAILABLE } from "#runtime/errors.ts";
import type { Log } from "#runtime/log.ts";
import type { OrderDatabase } from "./entities.ts";
import { SEQUENCE_AHEAD, TOO_MANY_WATCHES } from "./errors.ts";
import { orderMessage } from "./orders.ts";
import { viewerIn } from "./reads.ts";
import { finalStates } from "./states.ts";
import { watchedOrders } from "./watched.ts";

/** The times and bounds of watching in one process. */
export interface WatchOptions {
  /** How long a stream is silent before it says that nothing has changed. */
  readonly heartbeatMs: number;
  /** How often is looked for what other processes changed. */
  readonly pollMs: number;
  /** Streams at once. */
  readonly watchersMax: number;
  /** Streams of one account at once. */
  readonly watchersOfAccountMax: number;
}

/** As the contract says. */
export const WATCH_OPTIONS: WatchOptions = { heartbeatMs: 15_000, pollMs: 300, watchersMax: 10_000, watchersOfAccountMax: 20 };

/** What a watcher is told to wait when there is no room. */
const ROOM_AGAIN_MS = 5_000;

/** The streams of orders. */
export interface Watching {
  watch(request: WatchOrderRequest, call: Call): AsyncGenerator<MessageInitShape<typeof WatchOrderResponseSchema>>;
  /** Ends all streams well. */
  stop(): Promise<void>;
}

/** Streams orders to those who watch them. A stream holds nothing but the sequence it has shown: a slow reader gets the latest when it reads on. */
export function createWatching(deps: { database: OrderDatabase; log: Log; options: WatchOptions }): Watching {
  const { heartbeatMs, pollMs, ...bounds } = deps.options;
  const watched = watchedOrders({ ...deps, pollMs });
  const enter = createRoom(bounds);
  const bells = new Set<Bell>();
  let stopping = false;

  return {
    async *watch({ orderId, afterSequence }, call) {
      const leave = enter(accountOf(call));
      const bell = createBell();
      bells.add(bell);
      call.signal.addEventListener("abort", bell.ring);
      const order = watched.follow(orderId, bell.ring);
      try {
        const { order: found, viewer } = viewerIn(await order.read(), call, ["buyer", "seller", "operator"]);
        if (Number(afterSequence) > found.version) {
          fail(SEQUENCE_AHEAD, { metadata: { sequence: String(found.version) } });
        }
        let shown = Number(afterSequence);
        let silentSince = Number.NEGATIVE_INFINITY;
        while (!stopping && !call.signal.aborted) {
          const { latest = found } = order;
          const silentMs = performance.now() - silentSince;
          if (latest.version > shown) {
            shown = latest.version;
            yield { order: orderMessage(latest, viewer) };
          } else if (finalStates.includes(latest.state)) {
            return;
          } else if (silentMs >= heartbeatMs && watched.currentTime >= silentSince) {
            yield {};
          } else if (silentMs >= 2 * heartbeatMs) {
            // Whether something has changed cannot be read here; somebody else may know.
            fail(UNAVAILABLE);
          } else {
            await bell.rung(silentMs < heartbeatMs ? heartbeatMs - silentMs : Math.min(pollMs, 2 * heartbeatMs - silentMs));
            continue;
          }
          silentSince = performance.now();
        }
      } finally {
        order.end();
        call.signal.removeEventListener("abort", bell.ring);
        bells.delete(bell);
        leave();
      }
    },
    async stop() {
      stopping = true;
      for (const bell of bells) bell.ring();
      await watched.stop();
    },
  };
}

/** Counts the streams of all and of each account. Gives the function that takes one in, or refuses it, and gives the one that lets it go. */
function createRoom(bounds: Pick<WatchOptions, "watchersMax" | "watchersOfAccountMax">): (accountId: string) => () => void {
  const ofAccount = new Map<string, number>();
  let all = 0;
  return (accountId) => {
    const before = ofAccount.get(accountId) ?? 0;
    if (before >= bounds.watchersOfAccountMax) fail(TOO_MANY_WATCHES, { retryAfterMs: ROOM_AGAIN_MS });
    if (all >= bounds.watchersMax) fail(OVERLOADED, { retryAfterMs: ROOM_AGAIN_MS });
    ofAccount.set(accountId, before + 1);
    all++;
    return () => {
      all--;
      const left = (ofAccount.get(accountId) ?? 0) - 1;
      if (left > 0) ofAccount.set(accountId, left);
      else ofAccount.delete(accountId);
    };
  };
}

/** What a stream sleeps by. A ring while nobody sleeps is heard by the next who wants to. */
interface Bell {
  readonly ring: () => void;
  /** Sleeps until it rings, at most so long. */
  rung(maxMs: number): Promise<void>;
}

function createBell(): Bell {
  let rang = false;
  let wake = () => {};
  return {
    ring() {
      rang = true;
      wake();
    },
    async rung(maxMs) {
      if (!rang) {
        const { promise, resolve } = Promise.withResolvers<void>();
        wake = resolve;
        const timer = setTimeout(resolve, maxMs);
        await promise;
        clearTimeout(timer);
      }
      rang = false;
    },
  };
}
