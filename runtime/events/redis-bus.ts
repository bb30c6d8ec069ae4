import { toBinary } from "@bufbuild/protobuf";
import { type Event, EventSchema } from "#gen/marketplace/event/v1/event_pb.ts";
import { PARTITIONS, partitionOf } from "#runtime/database/transaction.ts";
import type { Log } from "#runtime/log.ts";
import { openRedis } from "#runtime/redis.ts";
import type { Observer } from "#runtime/telemetry/observer.ts";
import { type Bus, type Lane, type Subscription, typeOf } from "./bus.ts";
import { RedisDelivery } from "./redis-delivery.ts";
import { RedisLane } from "./redis-lane.ts";
import { scriptsOf } from "./redis-scripts.ts";

const LEASE_MS = 10_000;
const MAX_LENGTH = 100_000;
/** How long a replica that is silent is waited for. */
const REPLICA_MS = 120_000;

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
// word wakes the processes; a poll covers a word that was lost.
//
// A replica (a process whose effect is in itself, such as an index in its files) reads everything and has groups of its own, named after the making of its
// effect. It says every few seconds that it lives; lanes wait for those that do. One that is silent for two minutes is dropped with its groups, so
// that what is gone for good holds nobody's rows. Only a replica itself makes its groups, and whenever it does, because it is new, was dropped, or Redis lost
// them, it has its effect made anew from the source, after that: everything older is in the source, everything newer comes. The new making is noted
// when it is done, so one that was interrupted is unknown to the next start, which begins another and drops the groups of that one.
//
// Two that both believe they hold a lease apply the same events in the same
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
  /** Those of the platform's consumers that are replicas: each process that runs one reads everything. None unless given. */
  readonly replicated?: readonly string[];
  /** The beginning of all keys, with a hash tag; "{souk.events}" unless given. */
  readonly prefix?: string;
  /** How long a dead process holds its partitions; 10 s unless given. */
  readonly leaseMs?: number;
  /** Entries a stream may hold before it refuses more; 100,000 unless given. */
  readonly maxLength?: number;
  /** How long a replica that is silent is waited for; 2 min unless given. */
  readonly replicaMs?: number;
  readonly observer?: Observer | undefined;
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
  readonly #dropping: NodeJS.Timeout;
  #readyTime = Infinity;

  constructor(options: RedisBusOptions) {
    this.#options = options;
    this.#prefix = options.prefix ?? "{souk.events}";
    this.#client = openRedis({ ...options, name: "events" });
    this.#scripts = scriptsOf(this.#client);
    this.#client.on("ready", () => {
      this.#readyTime = Date.now();
      for (const delivery of this.#deliveries.values()) delivery.ringFree();
    });
    this.#dropping = setInterval(() => this.#dropSilent(), (options.leaseMs ?? LEASE_MS) / 2);
    this.#dropping.unref();
    // A connection that listens can do nothing else.
    this.#ear = openRedis({ ...options, name: "events-ear" });
    this.#ear.on("ready", () => {
      this.#ear.subscribe(this.#channel).catch((error: unknown) => options.log.debug({ err: error }, "not listening; polling"));
      for (const delivery of this.#deliveries.values()) delivery.ringFree();
    });
    this.#ear.on("message", (_channel: string, word: string) => {
      for (const delivery of this.#deliveries.values()) word === "free" ? delivery.ringFree() : delivery.ring(word);
    });
  }

  lane(source: string, partition: number): Lane {
    const { log, consumers, replicated = [], maxLength = MAX_LENGTH } = this.#options;
    const stream = this.#stream(partition);
    const writers = `${stream}:writers`;
    return new RedisLane({
      scripts: this.#scripts,
      source,
      stream,
      writers,
      replicas: this.#replicas,
      channel: this.#channel,
      consumers: consumers.filter((consumer) => !replicated.includes(consumer)),
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
    const { consumer, replica } = subscription;
    const { consumers, replicated = [] } = this.#options;
    if (this.#deliveries.has(consumer)) {
      throw new Error(`two consumers are called "${consumer}".`);
    }
    if (!consumers.includes(consumer) || replicated.includes(consumer) !== (replica !== undefined)) {
      throw new Error(`the bus was not told of the consumer "${consumer}": events would be forgotten before it has seen them.`);
    }
    const delivery = new RedisDelivery({
      scripts: this.#scripts,
      subscription,
      streams: this.#streams,
      keysOf: (group) => ({
        members: `${this.#prefix}:members:${group}`,
        leases: this.#streams.map((stream) => `${stream}:lease:${group}`),
      }),
      replicas: this.#replicas,
      channel: this.#channel,
      leaseMs: this.#options.leaseMs ?? LEASE_MS,
      connected: () => this.#client.status === "ready",
      log: this.#options.log,
    });
    this.#deliveries.set(consumer, delivery);
    return async () => {
      await delivery.stop();
      this.#deliveries.delete(consumer);
    };
  }

  /** Not soon after Redis was away: nobody could say then that it lives. */
  #dropSilent(): void {
    const { replicaMs = REPLICA_MS, log } = this.#options;
    if (this.#client.status !== "ready" || Date.now() - this.#readyTime < replicaMs) return;
    this.#scripts.drop(1 + PARTITIONS, this.#replicas, ...this.#streams, replicaMs).then(
      (gone) => {
        if ((gone as string[]).length > 0) log.warn({ gone }, "replicas that were silent for long are no longer waited for");
      },
      (error: unknown) => log.debug({ err: error }, "silent replicas not looked for"),
    );
  }

  async close(): Promise<void> {
    clearInterval(this.#dropping);
    for (const lane of this.#lanes.values()) lane.close();
    await Promise.all([...this.#deliveries.values()].map((delivery) => delivery.stop()));
    this.#deliveries.clear();
    this.#ear.disconnect();
    this.#client.disconnect();
  }

  get #streams(): string[] {
    return Array.from({ length: PARTITIONS }, (_, partition) => this.#stream(partition));
  }

  get #replicas(): string {
    return `${this.#prefix}:replicas`;
  }

  #stream(partition: number): string {
    return `${this.#prefix}:${partition}`;
  }

  get #channel(): string {
    return `${this.#prefix}:bell`;
  }
}
