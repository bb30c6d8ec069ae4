import { setTimeout as sleep } from "node:timers/promises";
import { fromBinary } from "@bufbuild/protobuf";
import { type Event, EventSchema } from "#gen/marketplace/event/v1/event_pb.ts";
import { newId } from "#runtime/ids.ts";
import type { Log } from "#runtime/log.ts";
import { BATCH_SIZE, type Subscription } from "./bus.ts";
import type { Scripts } from "./redis-scripts.ts";

const POLL_MS = 500;
/** How long after the first word others are waited for: events come in bursts. */
const GATHER_MS = 2;
const BACKOFF_MS = 50;
const BACKOFF_MAX_MS = 5_000;

/** What a delivery needs of its bus. */
export interface DeliveryOptions {
  readonly scripts: Scripts;
  readonly subscription: Subscription;
  readonly streams: readonly string[];
  /** The keys of a group: the set of its processes, and its leases, one for each stream. */
  keysOf(group: string): { readonly members: string; readonly leases: readonly string[] };
  /** The sorted set of the replicas that are waited for. */
  readonly replicas: string;
  readonly channel: string;
  readonly leaseMs: number;
  /** Whether commands can be sent. Without that nothing is tried: who holds the connection has told of it. */
  connected(): boolean;
  readonly log: Log;
}

interface Entry {
  readonly stream: string;
  readonly id: string;
  /** Undefined: of a type this consumer does not want. */
  readonly event: Event | undefined;
}

/** One consumer's share of the streams in this process: one batch at a time, in the order of each stream. */
export class RedisDelivery {
  readonly #options: DeliveryOptions;
  readonly #types: ReadonlySet<string>;
  readonly #owner = newId();
  readonly #batchSize: number;
  readonly #timer: NodeJS.Timeout;
  readonly #ended: Promise<void>;
  #stopped = false;
  #rung = false;
  /** The streams in which something may have come. */
  readonly #heard = new Set<string>();
  /** Whether to look into all of them, and for what was handed out and not acknowledged. */
  #all = true;
  #wake: (() => void) | undefined;
  #held = 0;
  #balanceDue = true;
  #handling = false;
  /** The group in the streams: the consumer's name, and for a replica its generation as well. */
  #group: string;
  /** Of a replica: the making that this process has or is at. */
  #generation: string | undefined;
  #heldTime: number | undefined;

  constructor(options: DeliveryOptions) {
    this.#options = options;
    this.#group = options.subscription.consumer;
    this.#types = new Set(options.subscription.types);
    this.#batchSize = options.subscription.batchSize ?? BATCH_SIZE;
    this.#timer = setInterval(() => this.#renew(), options.leaseMs / 3);
    this.#timer.unref();
    this.#ended = this.#run();
  }

  /** Something may have come, in this stream. */
  ring(stream: string): void {
    this.#heard.add(stream);
    this.#rung = true;
    this.#wake?.();
  }

  /** Leases may have become free. */
  ringFree(): void {
    this.#balanceDue = true;
    this.#rung = true;
    this.#wake?.();
  }

  /** Ends after the batch under way, and gives back what it holds. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearInterval(this.#timer);
    this.#wake?.();
    await this.#ended;
    const { scripts, keysOf, channel, log } = this.#options;
    const { members, leases } = keysOf(this.#group);
    const keys = [members, ...leases, this.#holder(this.#group)];
    await scripts.leave(keys.length, ...keys, this.#owner, channel).catch((error: unknown) => {
      log.debug({ err: error }, "leases not given back; they expire");
    });
    await this.#forgetUnfinished().catch((error: unknown) => {
      log.debug({ err: error }, "an unfinished replica is not forgotten; it is dropped when it was silent for long");
    });
  }

  async #run(): Promise<void> {
    const { subscription, log, connected } = this.#options;
    for (let failures = 0; !this.#stopped; ) {
      this.#rung = false;
      if (!connected()) {
        this.#balanceDue = true;
        await this.#pause(POLL_MS);
        continue;
      }
      try {
        if (this.#balanceDue) {
          this.#balanceDue = false;
          this.#all = true;
          await this.#balance(true);
        }
        const entries = this.#held > 0 ? await this.#take() : [];
        await this.#handle(entries);
        failures = 0;
        if (entries.length === 0) {
          await this.#pause(POLL_MS);
          // What comes in one burst is taken at once.
          if (this.#rung && !this.#stopped) await sleep(GATHER_MS);
          else this.#all = true;
        }
      } catch (error) {
        failures++;
        this.#balanceDue = true;
        this.#all = true;
        log.warn({ consumer: subscription.consumer, failures, err: error }, "a consumer could not take events; trying again");
        this.#rung = false;
        const backoff = Math.min(BACKOFF_MAX_MS, BACKOFF_MS * 2 ** failures) * (0.5 + Math.random() / 2);
        for (const until = Date.now() + backoff; !this.#stopped && Date.now() < until; ) {
          this.#rung = false;
          await this.#pause(until - Date.now());
        }
      }
    }
  }

  async #pause(ms: number): Promise<void> {
    if (this.#rung || this.#stopped) {
      return;
    }
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wake = resolve;
    const timer = setTimeout(resolve, Math.max(1, ms));
    await promise;
    clearTimeout(timer);
    this.#wake = undefined;
  }

  /** A long batch keeps its leases, and a quiet consumer notices what became free. */
  #renew(): void {
    if (this.#handling) {
      this.#balance(false).catch((error: unknown) => this.#options.log.debug({ err: error }, "leases not renewed"));
    } else {
      this.ringFree();
    }
  }

  async #balance(mayGiveBack: boolean): Promise<void> {
    const { scripts, keysOf, leaseMs, channel } = this.#options;
    if (!(await this.#beat())) {
      this.#held = 0;
      return;
    }
    const { members, leases } = keysOf(this.#group);
    const flag = mayGiveBack ? 1 : 0;
    // Whatever is taken after this may be of a stream that another held: one connection keeps the order.
    this.#all = true;
    const held = await scripts.balance(leases.length + 1, members, ...leases, this.#owner, leaseMs, flag, channel);
    this.#held = (held as number[]).length;
  }

  /**
   * Says that this process' replica lives. Where that is not known any more, or never was, it joins as a new one and has it made anew: only who
   * makes its groups knows that everything after them comes, so nobody else ever makes them. False: another process has this one, for now.
   */
  async #beat(): Promise<boolean> {
    const { scripts, subscription, streams, replicas, leaseMs, log } = this.#options;
    const { consumer, replica } = subscription;
    if (replica === undefined) return true;
    const keysFor = (group: string) => [replicas, this.#holder(group), ...streams];
    this.#generation ??= await replica.generation();
    if (this.#generation !== undefined) {
      const group = `${consumer}@${this.#generation}`;
      const keys = keysFor(group);
      const reply = String(await scripts.beat(keys.length, ...keys, group, this.#owner, leaseMs));
      if (reply === "OK") {
        this.#group = group;
        this.#heldTime = undefined;
        return true;
      }
      this.#heldTime ??= Date.now();
      // A predecessor that died has it for this long. Longer: another one lives on a copy of our files.
      if (reply === "HELD" && Date.now() - this.#heldTime < 2 * leaseMs) return false;
    }
    this.#heldTime = undefined;
    await this.#forgetUnfinished();
    const generation = newId();
    const group = `${consumer}@${generation}`;
    const keys = keysFor(group);
    await scripts.join(keys.length, ...keys, group, this.#owner, leaseMs);
    this.#generation = generation;
    this.#group = group;
    log.info({ consumer, generation }, "events may have passed unseen: what is made of them is made anew");
    replica.rebuild(generation).catch((error: unknown) => log.error({ consumer, err: error }, "it was not made anew"));
    return true;
  }

  /** A making that was interrupted is never gone on with: its groups would hold everybody's rows until it was silent for long enough. */
  async #forgetUnfinished(): Promise<void> {
    const { scripts, subscription, streams, replicas } = this.#options;
    const unfinished = await subscription.replica?.unfinished?.();
    if (unfinished === undefined) return;
    await scripts.forget(1 + streams.length, replicas, ...streams, `${subscription.consumer}@${unfinished}`);
  }

  /** The key that names the process which has a replica. */
  #holder(group: string): string {
    return `${this.#options.replicas}:${group}`;
  }

  /**
   * Takes what came into the streams it heard of; now and then, after leases changed hands and after a failure from all of them, and then first what was handed out
   * and not acknowledged.
   */
  async #take(): Promise<Entry[]> {
    const { scripts, keysOf } = this.#options;
    const all = this.#all;
    this.#all = false;
    const leases = keysOf(this.#group).leases;
    const heard = this.#options.streams.map((stream, index) => ({ stream, lease: leases[index] as string }));
    const from = all ? heard : heard.filter(({ stream }) => this.#heard.has(stream));
    this.#heard.clear();
    if (from.length === 0) return [];
    const streams = from.map(({ stream }) => stream);
    const keys = [...streams, ...from.map(({ lease }) => lease)];
    const reply = await scripts.take(keys.length, ...keys, this.#group, this.#owner, this.#batchSize, all ? 1 : 0);
    const flat = reply as (number | [Buffer, Buffer[]][])[];
    const entries: Entry[] = [];
    for (let i = 0; i < flat.length; i += 2) {
      const stream = streams[(flat[i] as number) - 1] as string;
      const found = flat[i + 1] as [Buffer, Buffer[]][];
      if (found.length >= this.#batchSize) this.#heard.add(stream);
      for (const [id, fields] of found) {
        const [, type, , event] = fields as [Buffer, Buffer, Buffer, Buffer];
        const wanted = this.#types.has(type.toString());
        entries.push({ stream, id: id.toString(), event: wanted ? fromBinary(EventSchema, event) : undefined });
      }
    }
    if (all && entries.length > 0) this.#all = true;
    return entries;
  }

  /** Handles in batches and acknowledges each; what fails is handed out again, to this process or the next holder. */
  async #handle(entries: readonly Entry[]): Promise<void> {
    this.#handling = true;
    const group = this.#group;
    try {
      for (let start = 0; start < entries.length && !this.#stopped; start += this.#batchSize) {
        const batch = entries.slice(start, start + this.#batchSize);
        const events = batch.flatMap(({ event }) => event ?? []);
        if (events.length > 0) {
          await this.#options.subscription.handle(events);
        }
        const streams = Map.groupBy(batch, ({ stream }) => stream);
        const counted = [...streams.values()].flatMap((list) => [list.length, ...list.map(({ id }) => id)]);
        await this.#options.scripts.acknowledge(streams.size, ...streams.keys(), group, ...counted);
      }
    } finally {
      this.#handling = false;
    }
  }
}
