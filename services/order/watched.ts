import { setTimeout as sleep } from "node:timers/promises";
import type { Log } from "#runtime/log.ts";
import type { OrderDatabase } from "./entities.ts";
import { type OrderRecord, readOrder, withLines } from "./orders.ts";

/** How many orders one statement asks about. */
const ORDERS_OF_ONE_QUERY = 1_000;

/** One watcher's view of an order. */
export interface Following {
  /** Reads the order as it is now. */
  read(): Promise<OrderRecord | undefined>;
  /** The newest that is known of the order; undefined while nothing is. */
  readonly latest: OrderRecord | undefined;
  end(): void;
}

/** The orders that somebody watches in this process, each kept once however many watch it. */
export interface WatchedOrders {
  /** Keeps an order up to date from now on, and calls `onChange` when it has changed. */
  follow(orderId: string, onChange: () => void): Following;
  /** Until when every change is known, in milliseconds since the process began. */
  readonly currentTime: number;
  stop(): Promise<void>;
}

interface Watched {
  record: OrderRecord | undefined;
  readonly listeners: Set<() => void>;
}

/**
 * Hears of changes in two ways. What this process commits is read right after the commit. What others commit is found by asking for the versions of
 * all watched orders every `pollMs`, by one statement however many watch: so what is found depends on the table alone, on no event that may
 * come late or be lost. Nothing is asked while nobody watches.
 */
export function watchedOrders({ database, log, pollMs }: { database: OrderDatabase; log: Log; pollMs: number }): WatchedOrders {
  const watched = new Map<string, Watched>();
  const committed = new Set<string>();
  const stopping = new AbortController();
  let currentTime = 0;
  let polling: Promise<void> | undefined;
  let reading: Promise<void> | undefined;

  /** Keeps what was read if it is newer: reads may overtake each other. */
  function keep(record: OrderRecord): void {
    const known = watched.get(record.order_id);
    if (known === undefined || record.version <= (known.record?.version ?? 0)) {
      return;
    }
    known.record = record;
    for (const tell of known.listeners) tell();
  }

  async function readAll(orderIds: readonly string[]): Promise<void> {
    for (const ids of portions(orderIds)) {
      const rows = await database.sql.selectFrom("orders").selectAll().where("order_id", "in", ids).execute();
      for (const record of await withLines(database.sql, rows)) keep(record);
    }
  }

  async function lookAtAll(): Promise<void> {
    const startTime = performance.now();
    for (const ids of portions([...watched.keys()])) {
      const rows = await database.sql.selectFrom("orders").select(["order_id", "version"]).where("order_id", "in", ids).execute();
      const isNew = (row: (typeof rows)[number]) => row.version > (watched.get(row.order_id)?.record?.version ?? 0);
      await readAll(rows.filter(isNew).map((row) => row.order_id));
    }
    currentTime = startTime;
  }

  async function poll(): Promise<void> {
    currentTime = performance.now();
    for (let failures = 0; ; ) {
      await sleep(pollMs, undefined, { signal: stopping.signal }).catch(() => {});
      if (stopping.signal.aborted || watched.size === 0) {
        polling = undefined;
        return;
      }
      try {
        await lookAtAll();
        failures = 0;
      } catch (error) {
        if (failures++ === 0) log.warn({ err: error }, "the watched orders cannot be read; their streams end if that lasts");
      }
    }
  }

  async function readCommitted(): Promise<void> {
    while (committed.size > 0) {
      const ids = [...committed];
      committed.clear();
      // What fails here the next poll finds.
      await readAll(ids).catch((error: unknown) => log.debug({ err: error }, "a watched order could not be read"));
    }
    reading = undefined;
  }

  const unhear = database.onCommit(({ changes }) => {
    for (const { kind, id } of changes) if (kind === "order" && watched.has(id)) committed.add(id);
    if (committed.size > 0) reading ??= readCommitted();
  });

  return {
    follow(orderId, onChange) {
      const known = watched.get(orderId) ?? { record: undefined, listeners: new Set() };
      watched.set(orderId, known);
      known.listeners.add(onChange);
      polling ??= poll();
      return {
        async read() {
          const record = await readOrder(database.sql, orderId);
          if (record !== undefined) keep(record);
          return known.record;
        },
        get latest() {
          return known.record;
        },
        end() {
          known.listeners.delete(onChange);
          if (known.listeners.size === 0) watched.delete(orderId);
        },
      };
    },
    get currentTime() {
      return currentTime;
    },
    async stop() {
      stopping.abort();
      unhear();
      await Promise.all([polling, reading]);
    },
  };
}

function* portions(orderIds: readonly string[]): Generator<readonly string[]> {
  for (let begin = 0; begin < orderIds.length; begin += ORDERS_OF_ONE_QUERY) {
    yield orderIds.slice(begin, begin + ORDERS_OF_ONE_QUERY);
  }
}
