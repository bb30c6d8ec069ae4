import { Cluster } from "ioredis";
import type { Log } from "#runtime/log.ts";
import { openRedis, type RedisClient } from "#runtime/redis.ts";
import type { Observer } from "#runtime/telemetry/observer.ts";
import { Breaker } from "./breaker.ts";
import { type CacheStore, type Change, type Codec, type Entry, holdMs, MARK_TTL_MS } from "./store.ts";

/** The longest that anybody waits for Redis, in ms; after that it is as if nothing were there. */
const TIMEOUT_MS = 50;
/** The most keys in one command. */
const KEYS_MAX = 200;
/** Version and expire time as doubles, the load's ms as a float, and whether a value follows. */
const HEADER_BYTES = 21;

/** KEYS; ARGV (ttl in ms, entry)… Stores each entry unless a later version is there. */
const PUT = `
for i = 1, #KEYS do
  local there, new = redis.call('GETRANGE', KEYS[i], 0, 7), ARGV[2 * i]
  if #there < 8 or struct.unpack('>d', there) <= struct.unpack('>d', new) then
    redis.call('SET', KEYS[i], new, 'PX', ARGV[2 * i - 1])
  end
end
return #KEYS`;

/** KEYS; ARGV channel, message, ttl in ms, marks… Puts each mark in the place of an older version or of nothing, and tells the listeners. */
const MARK = `
for i = 1, #KEYS do
  local there, new = redis.call('GETRANGE', KEYS[i], 0, 7), ARGV[i + 3]
  if #there < 8 or struct.unpack('>d', there) < struct.unpack('>d', new) then
    redis.call('SET', KEYS[i], new, 'PX', ARGV[3])
  end
end
redis.call('PUBLISH', ARGV[1], ARGV[2])
return #KEYS`;

/** One command for the keys of several calls. */
interface Question<T> {
  readonly asked: string[];
  readonly entries: Promise<readonly (Entry<T> | undefined)[]>;
  /** The place of each key, once there is more than one call. */
  places?: Map<string, number>;
}

type Script = (keyCount: number, ...args: (string | number | Uint8Array)[]) => Promise<unknown>;

/** What a store in Redis is opened with. */
export interface RedisStoreOptions<T> {
  /** See `openRedis`. */
  readonly url: string;
  readonly log: Log;
  readonly codec: Codec<T>;
  /** The longest that anybody waits for Redis, in ms; 50 unless given. */
  readonly timeoutMs?: number;
  /** The beginning of all keys and of the channel; empty unless given. */
  readonly prefix?: string | undefined;
  /** Where marks are told; "souk.cache" unless given. */
  readonly channel?: string;
  readonly observer?: Observer | undefined;
}

/**
 * A store in Redis, which all processes share. Calls of one turn of the event loop go as one command. When Redis is lost or slow nobody waits longer than
 * the timeout, and after a few failures nobody waits at all until it answers again.
 */
export class RedisStore<T> implements CacheStore<T> {
  readonly #options: RedisStoreOptions<T>;
  readonly #client: RedisClient;
  readonly #ear: RedisClient;
  readonly #prefix: string;
  readonly #channel: string;
  readonly #put: Script;
  readonly #mark: Script;
  readonly #breaker = new Breaker();
  /** What the calls of this turn of the event loop ask for. */
  #question: Question<T> | undefined;
  #listener: ((changes: readonly Change[]) => void) | undefined;
  #hearing: ((hears: boolean) => void) | undefined;
  #hears = false;

  constructor(options: RedisStoreOptions<T>) {
    const { url, log, observer } = options;
    this.#options = options;
    this.#prefix = options.prefix ?? "";
    this.#channel = `${this.#prefix}${options.channel ?? "souk.cache"}`;
    this.#client = openRedis({ url, log, name: "cache", observer });
    this.#put = scriptOf(this.#client, "soukCachePut", PUT);
    this.#mark = scriptOf(this.#client, "soukCacheMark", MARK);
    // A connection that listens can do nothing else.
    this.#ear = openRedis({ url, log, name: "cache-ear", observer });
    this.#ear.on("ready", () => {
      this.#ear.subscribe(this.#channel).then(
        () => this.#hear(true),
        (error: unknown) => log.debug({ err: error }, "marks of others are not heard"),
      );
    });
    this.#ear.on("close", () => this.#hear(false));
    this.#ear.on("message", (_channel: string, message: string) => this.#listener?.(readChanges(message)));
  }

  async get(keys: readonly string[]): Promise<readonly (Entry<T> | undefined)[]> {
    if (keys.length > KEYS_MAX) {
      return (await Promise.all([this.get(keys.slice(0, KEYS_MAX)), this.get(keys.slice(KEYS_MAX))])).flat();
    }
    const question = this.#questionFor(keys.length);
    const { asked, entries } = question;
    if (asked.length === 0) {
      asked.push(...keys);
      return (await entries).slice(0, keys.length);
    }
    // Only who comes along looks for what is asked already: most come alone.
    question.places ??= new Map(asked.map((key, place) => [key, place]));
    const { places } = question;
    const mine = keys.map((key) => {
      const place = places.get(key) ?? asked.push(key) - 1;
      places.set(key, place);
      return place;
    });
    const found = await entries;
    return mine.map((place) => found[place]);
  }

  /** The question of this turn of the event loop, if it has room for so many keys; else another one. */
  #questionFor(count: number): Question<T> {
    const open = this.#question;
    if (open !== undefined && open.asked.length + count <= KEYS_MAX) {
      return open;
    }
    const asked: string[] = [];
    const { promise: entries, resolve } = Promise.withResolvers<readonly (Entry<T> | undefined)[]>();
    const question: Question<T> = { asked, entries };
    this.#question = question;
    // After the calls that arrived together with this one.
    setImmediate(async () => {
      if (this.#question === question) this.#question = undefined;
      const found = await this.#within(this.#read(asked));
      resolve(asked.map((_, place) => this.#decode(found?.[place])));
    });
    return question;
  }

  /** A function, so that nothing is sent while the breaker is open. */
  #read(asked: string[]): () => Promise<(Buffer | null)[]> {
    const client = this.#client;
    const keys = this.#named(asked);
    return client instanceof Cluster ? () => Promise.all(keys.map((key) => client.getBuffer(key))) : () => client.mgetBuffer(keys);
  }

  /** Keys as they are there. */
  #named(keys: string[]): string[] {
    return this.#prefix === "" ? keys : keys.map((key) => this.#prefix + key);
  }

  async put(entries: readonly { readonly key: string; readonly entry: Entry<T> }[]): Promise<void> {
    const now = Date.now();
    const lasting = entries.filter(({ entry }) => holdMs(entry, now) > 0);
    await this.#each(lasting, (part) => {
      const values = part.flatMap(({ entry }) => [Math.ceil(holdMs(entry, now)), this.#encode(entry)]);
      return this.#put(part.length, ...this.#named(part.map(({ key }) => key)), ...values);
    });
  }

  async mark(changes: readonly Change[]): Promise<boolean> {
    const expireTime = Date.now() + MARK_TTL_MS;
    return this.#each(changes, (part) => {
      const marks = part.map(({ version }) => this.#encode({ version, expireTime, loadMs: 0, value: undefined }));
      const keys = this.#named(part.map(({ key }) => key));
      return this.#mark(part.length, ...keys, this.#channel, writeChanges(part), MARK_TTL_MS, ...marks);
    });
  }

  onMark(listener: (changes: readonly Change[]) => void): void {
    this.#listener = listener;
  }

  /** Hears whether the marks of others are heard from now on. */
  onHearing(listener: (hears: boolean) => void): void {
    this.#hearing = listener;
    listener(this.#hears);
  }

  #hear(hears: boolean): void {
    this.#hears = hears;
    this.#hearing?.(hears);
  }

  close(): void {
    this.#hearing = undefined;
    this.#ear.disconnect();
    this.#client.disconnect();
  }

  /** Sends all, in parts; in a Cluster each key alone, because they are on different nodes. */
  async #each<E>(all: readonly E[], send: (part: readonly E[]) => Promise<unknown>): Promise<boolean> {
    const size = this.#client instanceof Cluster ? 1 : KEYS_MAX;
    const parts = Array.from({ length: Math.ceil(all.length / size) }, (_, index) => all.slice(index * size, (index + 1) * size));
    const sent = await Promise.all(parts.map((part) => this.#within(() => send(part))));
    return sent.every((result) => result !== undefined);
  }

  /** The result; undefined when it failed, when it is too late, or when it was not even tried. */
  async #within<R>(work: () => Promise<R>): Promise<R | undefined> {
    if (!this.#breaker.allows) {
      return undefined;
    }
    const { promise, resolve } = Promise.withResolvers<undefined>();
    // An answer that came while this process was busy with something else is taken before the time is called up.
    const timer = setTimeout(() => setImmediate(resolve, undefined), this.#options.timeoutMs ?? TIMEOUT_MS);
    try {
      const result = await Promise.race([work(), promise]);
      if (result === undefined) this.#breaker.failed();
      else this.#breaker.succeeded();
      return result;
    } catch (error) {
      this.#breaker.failed();
      this.#options.log.debug({ err: error }, "the cache in Redis cannot be used");
      return undefined;
    } finally {
      clearTimeout(timer);
    }
  }

  #encode({ version, expireTime, loadMs, value }: Entry<T>): Uint8Array {
    const bytes = value === undefined ? undefined : this.#options.codec.encode(value);
    const buffer = Buffer.allocUnsafe(HEADER_BYTES + (bytes?.length ?? 0));
    buffer.writeDoubleBE(version, 0);
    buffer.writeDoubleBE(expireTime, 8);
    buffer.writeFloatBE(loadMs, 16);
    buffer.writeUInt8(bytes === undefined ? 0 : 1, 20);
    if (bytes !== undefined) buffer.set(bytes, HEADER_BYTES);
    return buffer;
  }

  #decode(buffer: Buffer | null | undefined): Entry<T> | undefined {
    if (buffer == null || buffer.length < HEADER_BYTES) {
      return undefined;
    }
    try {
      return {
        version: buffer.readDoubleBE(0),
        expireTime: buffer.readDoubleBE(8),
        loadMs: buffer.readFloatBE(16),
        value: buffer[20] === 0 ? undefined : this.#options.codec.decode(buffer.subarray(HEADER_BYTES)),
      };
    } catch (error) {
      this.#options.log.warn({ err: error }, "a cached value is not understood");
      return undefined;
    }
  }
}

function scriptOf(client: RedisClient, name: string, lua: string): Script {
  client.defineCommand(name, { lua });
  const command = (client as unknown as Record<string, Script>)[name] as Script;
  return async (...args) => command.apply(client, args);
}

function writeChanges(changes: readonly Change[]): string {
  return JSON.stringify(changes.map(({ key, version }) => [key, version]));
}

function readChanges(message: string): Change[] {
  return (JSON.parse(message) as [string, number][]).map(([key, version]) => ({ key, version }));
}
