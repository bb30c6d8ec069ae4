import { toBinary } from "@bufbuild/protobuf";
import { type Event, EventSchema } from "#gen/marketplace/event/v1/event_pb.ts";
import { PARTITIONS, partitionOf } from "#runtime/database/transaction.ts";
import type { Log } from "#runtime/log.ts";
import { openRedis } from "#runtime/redis.ts";
import { type Bus, type Lane, type Subscription, typeOf } from "./bus.ts";
import { RedisDelivery } from "./redis-delivery.ts";
import { RedisLane } from "./redis-lane.ts";
import { scriptsOf } from "./redis-scripts.ts";

const LEASE_MS = 10_000;
const MAX_LENGTH = 100_000;

// The protocol. Redis may lose everything, or its last seconds, at any moment; the outbox is the log.
//
// There is a stream for each of the 16 partitions, and on it a consumer group for each consumer of the platform. All keys share one hash tag: in a
// Cluster the events live on one node, so that each script below is one atomic step.
//
// Sending. A relay sends through a lane: the way of one source into one stream. Beside the stream stands a token for each source. Opening a lane makes
// stream and groups where they are missing and sets a new token; each append names the token it expects and sets the next one, in one step with the
// entries. So an append succeeds only if everything this lane sent is still there and nobody else writes for its source: after a flush, a restart
// from an older file, a failover to a replica that lagged, or with a second relay, the token is another. Then the lane breaks, and the relay opens a new
// one and begins with its first unconfirmed row. A source's events in a stream may come doubled, but never with a gap.
//
// Confirming. The lane asks how far the slowest group has passed (delivered and acknowledged), under the same token. Only then the relay marks the
// rows; so a row stays open until every consumer applied it or put it aside, whatever Redis loses. What all passed is trimmed. A stream that is full
// refuses appends: a consumer that is away for long makes the outbox grow, not Redis.
//
// Receiving. The processes of a consumer share its partitions by leases, fairly. A script hands entries out to the holder of the lease only, and first
// those that were handed out before and never acknowledged (XAUTOCLAIM), whoever held them: a blocking read could not be fenced so. A published
// word wakes the processes; a poll covers a word that was lost. Two that both believe they hold a lease apply the same events in the same
// order, and the inbox drops the doubles.

/** What a bus on Redis is opened with. */
export interface RedisBusOptions {
  /** See `openRedis`. */
  readonly url: string;
  readonly log: Log;
  /**
   * Every consumer of the platform, in whichever process it runs: an event is confirmed when all of these passed it. Not learned from Redis, which may
   * forget it. A process that names one too few lets its relays forget events that one has not seen.
   */
  readonly consumers: readonly string[];
  /** The beginning of all keys, with a hash tag; "{souk.events}" unless given. */
  readonly prefix?: string;
  /** How long a dead process holds its partitions; 10 s unless given. */
  readonly leaseMs?: number;
  /** Entries a stream may hold before it refuses more; 100,000 unless given. */
  readonly maxLength?: number;
}

/** The bus between processes, on Redis Streams. Without Redis nothing fails but the delivery, which goes on when it is back. */
export function redisBus(options: RedisBusOptions): Bus {
  return new RedisBus(options);
}

class RedisBus implements Bus {
  readonly #options: RedisBusOptions;
  readonly #prefix: string;
  readonly #client;
  readonly #ear;
  readonly #scripts;
  readonly #deliveries = new Map<string, RedisDelivery>();
  readonly #lanes = new Map<string, Lane>();

  constructor(options: RedisBusOptions) {
    this.#options = options;
    this.#prefix = options.prefix ?? "{souk.events}";
    this.#client = openRedis({ ...options, name: "events" });
    this.#scripts = scriptsOf(this.#client);
    // A connection that listens can do nothing else.
    this.#ear = openRedis({ ...options, name: "events-ear" });
    this.#ear.on("ready", () => {
      this.#ear.subscribe(this.#channel).catch((error: unknown) => options.log.debug({ err: error }, "not listening; polling"));
      for (const delivery of this.#deliveries.values()) delivery.ringFree();
    });
    this.#ear.on("message", (_channel: string, word: string) => {
      for (const delivery of this.#deliveries.values()) word === "free" ? delivery.ringFree() : delivery.ring();
    });
  }

  lane(source: string, partition: number): Lane {
    const { log, consumers, maxLength = MAX_LENGTH } = this.#options;
    const stream = this.#stream(partition);
    const writers = `${stream}:writers`;
    return new RedisLane({
      scripts: this.#scripts,
      source,
      stream,
      writers,
      channel: this.#channel,
      consumers,
      maxLength,
      log,
    });
  }

  async publish(events: readonly Event[]): Promise<void> {
    const groups = Map.groupBy(events, (event) => `${event.source}/${partitionOf(event.aggregateId)}`);
    const sent = [...groups].map(([name, group]) => {
      const known = this.#lanes.get(name);
      const [first] = group as [Event, ...Event[]];
      const lane = known && !known.broken ? known : this.lane(first.source, partitionOf(first.aggregateId));
      this.#lanes.set(name, lane);
      return lane.send(group.map((event) => ({ type: typeOf(event), event: toBinary(EventSchema, event) })));
    });
    await Promise.all(sent);
  }

  subscribe(subscription: Subscription): () => Promise<void> {
    const { consumer } = subscription;
    if (this.#deliveries.has(consumer)) {
      throw new Error(`two consumers are called "${consumer}".`);
    }
    if (!this.#options.consumers.includes(consumer)) {
      throw new Error(`the bus was not told of the consumer "${consumer}": events would be forgotten before it has seen them.`);
    }
    const partitions = Array.from({ length: PARTITIONS }, (_, partition) => partition);
    const delivery = new RedisDelivery({
      scripts: this.#scripts,
      subscription,
      streams: partitions.map((partition) => this.#stream(partition)),
      members: `${this.#prefix}:members:${consumer}`,
      leases: partitions.map((partition) => `${this.#stream(partition)}:lease:${consumer}`),
      channel: this.#channel,
      leaseMs: this.#options.leaseMs ?? LEASE_MS,
      acknowledge: (stream, ids) => this.#client.xack(stream, consumer, ...ids),
      log: this.#options.log,
    });
    this.#deliveries.set(consumer, delivery);
    return async () => {
      await delivery.stop();
      this.#deliveries.delete(consumer);
    };
  }

  async close(): Promise<void> {
    for (const lane of this.#lanes.values()) lane.close();
    await Promise.all([...this.#deliveries.values()].map((delivery) => delivery.stop()));
    this.#deliveries.clear();
    this.#ear.disconnect();
    this.#client.disconnect();
  }

  #stream(partition: number): string {
    return `${this.#prefix}:${partition}`;
  }

  get #channel(): string {
    return `${this.#prefix}:bell`;
  }
}
