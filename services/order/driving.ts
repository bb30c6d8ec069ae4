import { fail, OVERLOADED } from "#runtime/errors.ts";
import type { JobHandler } from "#runtime/jobs/jobs.ts";
import type { Log } from "#runtime/log.ts";
import type { OrderDatabase } from "./entities.ts";
import { leaseEnd } from "./lease.ts";
import { changeState, DUE_JOB, lockOrder } from "./orders.ts";
import { type Lease, SAGA_JOB, type Sagas } from "./saga.ts";
import { motionStates, whenDue } from "./states.ts";
import { settleWaiting } from "./waiting.ts";

/** Sagas that calls may have under way at once in one process. */
export const MAX_RUNNING = 500;
/** How long a stopping process waits for what calls have started; jobs of the next process go on with the rest. */
const STOP_GRACE_MS = 10_000;
/** Tries of the job before it becomes a dead letter; with the pauses below about a quarter of an hour. */
export const SAGA_ATTEMPTS = 20;
const BACKOFF_MS = 200;
const BACKOFF_MAX_MS = 60_000;

/** What makes orders move: calls, jobs, and the clock. */
export interface Driving {
  /** Drives an order from a call, and goes on when the call has ended. Never rejects: what goes wrong is left to the job. */
  start(orderId: string, lease: Lease): Promise<void>;
  /** @throws ConnectError OVERLOADED when there is no room for another saga. */
  checkRoom(): void;
  readonly jobs: readonly JobHandler[];
  /** Waits, up to 10 s, for what calls have started. */
  stop(): Promise<void>;
}

/** Drives sagas from calls and from jobs. */
export function createDriving(deps: { database: OrderDatabase; sagas: Sagas; log: Log }): Driving {
  const { database, sagas, log } = deps;
  const running = new Set<Promise<void>>();
  return {
    start(orderId, lease) {
      const run = sagas
        .drive(orderId, lease)
        .then(() => {})
        .catch((error: unknown) => log.error({ orderId, err: error }, "a saga broke off; its job goes on with it"))
        .finally(() => running.delete(run));
      running.add(run);
      return run;
    },
    checkRoom() {
      if (running.size >= MAX_RUNNING) {
        fail(OVERLOADED, { retryAfterMs: 1_000 });
      }
    },
    jobs: [sagaJob(database, sagas), dueJob(database)],
    async stop() {
      const { promise, resolve } = Promise.withResolvers<void>();
      const timer = setTimeout(resolve, STOP_GRACE_MS);
      await Promise.race([Promise.all(running), promise]);
      clearTimeout(timer);
    },
  };
}

/** Goes on with a saga that nobody drives: its process died, or a step is tried again. */
function sagaJob(database: OrderDatabase, sagas: Sagas): JobHandler {
  return {
    kind: SAGA_JOB,
    maxAttempts: SAGA_ATTEMPTS,
    backoffMs: (attempt) => Math.min(BACKOFF_MAX_MS, BACKOFF_MS * 2 ** (attempt - 1)),
    async run({ key }) {
      if (await sagas.drive(key)) {
        return;
      }
      const end = await leaseEnd(database, key);
      if (end !== undefined) {
        // Somebody drives it. If that process dies, its lease ends then.
        await database.transaction(async (tx) => tx.schedule({ kind: SAGA_JOB, key, dueTime: end }));
      }
    },
  };
}

/**
 * Looks after an order at its watch time. Ends the wait for a buyer or a seller: what the other side did at the same moment decides by the order's state. And where
 * a saga moves it, sees to it that somebody drives that.
 */
function dueJob(database: OrderDatabase): JobHandler {
  return {
    kind: DUE_JOB,
    watches: { table: "orders", key: "order_id", time: "watch_time" },
    run: ({ key }) =>
      database.transaction(async (tx) => {
        const order = await lockOrder(tx, key);
        const then = order && whenDue[order.state];
        if (then === undefined || order?.due_time == null) {
          if (order && motionStates.includes(order.state)) {
            tx.schedule({ kind: SAGA_JOB, key, dueTime: tx.now });
          }
          return;
        }
        if (order.due_time > tx.now) {
          tx.schedule({ kind: DUE_JOB, key, dueTime: order.due_time });
          return;
        }
        const changed = await changeState(tx, order, then.to, {
          cancel_reason: then.cancelReason,
          lease_owner: null,
          lease_expire_time: null,
        });
        await settleWaiting(tx, changed);
        tx.schedule({ kind: SAGA_JOB, key, dueTime: tx.now });
      }),
  };
}
