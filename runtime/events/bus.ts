import { setTimeout as sleep } from "node:timers/promises";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { Event } from "#gen/marketplace/event/v1/event_pb.ts";
import type { Log } from "#runtime/log.ts";
import type { Observer, TakenEvent } from "#runtime/telemetry/observer.ts";

/** Events handed to a consumer at once, unless it says otherwise. */
export const BATCH_SIZE = 100;
const BACKOFF_MS = 50;
const BACKOFF_MAX_MS = 5_000;

/** What one consumer wants of the bus. Made by `inboxConsumer`, or by hand where the effect is not in a database. */
export interface Subscription {
  /** The consumer's name, unique on the platform, such as "search.index"; without a slash, at most 64 characters. */
  readonly consumer: string;
  /** The service it belongs to. */
  readonly service: string;
  /** Type names of the events it wants, such as "marketplace.catalog.v1.ListingPublished". */
  readonly types: readonly string[];
  /** At most so many events at once; 100 unless given. */
  readonly batchSize?: number;
  /**
   * Applies the events, in order; the events of one aggregate come in their sequence. Resolves when each is durably applied or put aside; an event may come
   * again after that. If it rejects, the same events come again after a while, for ever: an event that can never be applied is to be put aside.
   */
  handle(events: readonly Event[]): Promise<void>;
  /** Goes on with an aggregate whose events were put aside; called by the job runner of the service. */
  resume?(subject: string): Promise<void>;
  /** Whether it tells an observer of each event by itself; else `watched` tells of each batch. */
  readonly watchesItself?: boolean;
  /** For a consumer whose effect is in the process itself: every process that runs it gets all events, not a share of them. */
  readonly replica?: Replica;
}

/**
 * What a process has made of all events for itself, such as an index in its own files. It is made anew from the source when the bus may have kept an
 * event from it: at first, after the process was away for too long, and after the bus lost what it held.
 */
export interface Replica {
  /** Which making it is, as it was noted; undefined when there is none. */
  generation(): Promise<string | undefined>;
  /** The making that was begun last and never noted as done, also by a predecessor that died at it; undefined when there is none. Nobody waits for it then. */
  unfinished?(): Promise<string | undefined>;
  /** Makes it anew and then notes this generation with it, durably. Events that come meanwhile are handled as ever. Tries until it is done or the process ends. */
  rebuild(generation: string): Promise<void>;
}

/** An event as the outbox keeps it. */
export interface StoredEvent {
  /** The full name of its message. */
  readonly type: string;
  /** The whole `marketplace.event.v1.Event`, serialized. */
  readonly event: Uint8Array;
}

/**
 * The way into a bus for one partition of one outbox. It has no gap: after the first failure everything that is under way fails and nothing more
 * gets in, so its user opens another one and begins again with the first event that was not confirmed.
 */
export interface Lane {
  /** True after the first failure. */
  readonly broken: boolean;
  /** Sends events behind what was sent before. Resolves when every consumer has passed them; rejects when they must be sent again. */
  send(events: readonly StoredEvent[]): Promise<void>;
  /** Ends it: what is under way fails here, though it may still arrive. */
  close(): void;
}

/**
 * Carries events from the relays to the consumers. At least once, in order within an aggregate. It may lose what it holds: the outbox
 * is the log, and what was not confirmed is published again.
 */
export interface Bus {
  /** For a bus whose events may be under way for long: relays then send ahead without waiting for the slowest consumer. */
  lane?(source: string, partition: number): Lane;
  /** Resolves when the events are safe beyond the outbox; rejects when they must be published again. */
  publish(events: readonly Event[]): Promise<void>;
  /** Starts delivery, for as long as the bus is open: events published without a consumer would count as taken by it. */
  subscribe(subscription: Subscription): void;
  /** Ends all delivery, after the batches under way; what was not taken by then is not confirmed. */
  close(): Promise<void>;
}

/**
 * The bus within one process. `publish` resolves when every consumer has applied the events or put them aside, so that the outbox row stays
 * unpublished until then and a crash in between only publishes again. Subscribe everybody before a relay starts: who comes later misses what was.
 */
export function inProcessBus(options: { log: Log }): Bus {
  const deliveries = new Set<Delivery>();
  let closed = false;
  return {
    async publish(events) {
      if (closed) {
        throw new Error("the bus is closed.");
      }
      await Promise.all([...deliveries].map((delivery) => delivery.deliver(events)));
    },
    subscribe(subscription) {
      if ([...deliveries].some((delivery) => delivery.consumer === subscription.consumer)) {
        throw new Error(`two consumers are called "${subscription.consumer}".`);
      }
      deliveries.add(new Delivery(subscription, options.log));
    },
    async close() {
      closed = true;
      await Promise.all([...deliveries].map((delivery) => delivery.stop()));
      deliveries.clear();
    },
  };
}

/** One consumer's queue: one batch at a time, in the order of publishing. */
class Delivery {
  readonly #subscription: Subscription;
  readonly #types: ReadonlySet<string>;
  readonly #log: Log;
  readonly #stopped = new AbortController();
  #tail: Promise<unknown> = Promise.resolve();

  constructor(subscription: Subscription, log: Log) {
    this.#subscription = subscription;
    this.#types = new Set(subscription.types);
    this.#log = log;
  }

  get consumer(): string {
    return this.#subscription.consumer;
  }

  deliver(events: readonly Event[]): Promise<void> {
    const wanted = events.filter((event) => this.#types.has(typeOf(event)));
    if (wanted.length === 0) {
      return Promise.resolve();
    }
    const size = this.#subscription.batchSize ?? BATCH_SIZE;
    const done = this.#tail.then(async () => {
      for (let start = 0; start < wanted.length; start += size) {
        await this.#handle(wanted.slice(start, start + size));
      }
    });
    this.#tail = done.catch(() => {});
    return done;
  }

  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#tail;
  }

  async #handle(batch: readonly Event[]): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      if (this.#stopped.signal.aborted) {
        throw new Error(`the consumer "${this.consumer}" has stopped.`);
      }
      try {
        return await this.#subscription.handle(batch);
      } catch (error) {
        this.#log.warn({ consumer: this.consumer, attempt, err: error }, "a consumer could not take events; trying again");
        const backoff = Math.min(BACKOFF_MAX_MS, BACKOFF_MS * 2 ** attempt);
        await sleep(backoff * (0.5 + Math.random() / 2), undefined, { signal: this.#stopped.signal }).catch(() => {});
      }
    }
  }
}

/** A consumer of whose work an observer is told. */
export function watched(subscription: Subscription, observer: Observer | undefined): Subscription {
  if (observer === undefined || subscription.watchesItself) return subscription;
  return {
    ...subscription,
    handle: (events) => observer.eventsApplied(subscription.consumer, events.map(takenEvent), () => subscription.handle(events)),
  };
}

/** An event as an observer is told of it. */
export function takenEvent(event: Event): TakenEvent {
  const { eventId, aggregateId, traceparent, eventTime } = event;
  return {
    eventId,
    aggregateId,
    traceparent,
    type: typeOf(event),
    eventTime: eventTime === undefined ? 0 : timestampMs(eventTime),
  };
}

/** The full name of the event's message, such as "marketplace.catalog.v1.ListingPublished". */
export function typeOf(event: Event): string {
  const url = event.payload?.typeUrl ?? "";
  return url.slice(url.lastIndexOf("/") + 1);
}
