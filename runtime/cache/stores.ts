import type { Log } from "#runtime/log.ts";
import type { Observer } from "#runtime/telemetry/observer.ts";
import { MemoryStore } from "./memory-store.ts";
import { NearStore } from "./near-store.ts";
import { RedisStore } from "./redis-store.ts";
import type { CacheStore, Codec } from "./store.ts";

/** What the store in the process holds beside Redis: little, and not for long, because a mark of another process may be lost. */
const NEAR = { maxBytes: 16 * 1024 * 1024, ttlMaxMs: 1_000 };

/** What a cache keeps, and how much of it fits into the process. */
export interface Kept<T> {
  readonly codec: Codec<T>;
  /** What a value takes in memory, about, in bytes. */
  readonly sizeOf: (value: T) => number;
  /** The most that a store in the process may take, in bytes. */
  readonly maxBytes: number;
}

/** Opens the store of a cache; the cache closes it. */
export type OpenCacheStore = <T>(kept: Kept<T>) => CacheStore<T>;

/** What stores are opened with. */
export interface CacheStoresOptions {
  readonly redisUrl?: string | undefined;
  /** The beginning of all keys there; empty unless given. */
  readonly redisPrefix?: string | undefined;
  readonly log: Log;
  readonly observer?: Observer | undefined;
}

/** Stores in Redis, with a small one in the process before each; without a Redis they are in the process alone. */
export function cacheStores({ redisUrl, redisPrefix: prefix, log, observer }: CacheStoresOptions): OpenCacheStore {
  return ({ codec, sizeOf, maxBytes }) =>
    redisUrl === undefined
      ? new MemoryStore({ maxBytes, sizeOf })
      : new NearStore(new MemoryStore({ ...NEAR, sizeOf }), new RedisStore({ url: redisUrl, prefix, log, codec, observer }));
}
