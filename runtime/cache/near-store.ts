import type { MemoryStore } from "./memory-store.ts";
import type { RedisStore } from "./redis-store.ts";
import type { CacheStore, Change, Entry } from "./store.ts";

/**
 * A small store in the process in front of the one in Redis: what is asked for again and again is neither fetched nor decoded each time. It hears of
 * the marks that other processes set, and is empty and unused while it cannot hear; should one be lost all the same, its entries stay no longer than
 * `near` lets them, which is about a second.
 */
export class NearStore<T> implements CacheStore<T> {
  readonly #near: MemoryStore<T>;
  readonly #far: RedisStore<T>;
  #hears = false;
  #listener: ((changes: readonly Change[]) => void) | undefined;

  constructor(near: MemoryStore<T>, far: RedisStore<T>) {
    this.#near = near;
    this.#far = far;
    far.onHearing((hears) => {
      near.clear();
      this.#hears = hears;
    });
    far.onMark((changes) => {
      void near.mark(changes);
      this.#listener?.(changes);
    });
  }

  async get(keys: readonly string[]): Promise<readonly (Entry<T> | undefined)[]> {
    if (!this.#hears) {
      return this.#far.get(keys);
    }
    const found = keys.map((key) => this.#near.look(key));
    const missing = keys.filter((_, index) => found[index]?.value === undefined);
    if (missing.length === 0) {
      return found;
    }
    const fetched = new Map<string, Entry<T> | undefined>();
    for (const [index, entry] of (await this.#far.get(missing)).entries()) {
      fetched.set(missing[index] as string, entry);
    }
    if (this.#hears) {
      const values = [...fetched].flatMap(([key, entry]) => (entry?.value === undefined ? [] : [{ key, entry }]));
      void this.#near.put(values);
    }
    // What is known here of a change holds, even where Redis could not be told of it.
    return keys.map((key, index) => {
      const near = found[index];
      const far = fetched.get(key);
      return far === undefined || (near !== undefined && far.version < near.version) ? near : far;
    });
  }

  async put(entries: readonly { readonly key: string; readonly entry: Entry<T> }[]): Promise<void> {
    if (this.#hears) {
      void this.#near.put(entries);
    }
    await this.#far.put(entries);
  }

  async mark(changes: readonly Change[]): Promise<boolean> {
    void this.#near.mark(changes);
    return this.#far.mark(changes);
  }

  onMark(listener: (changes: readonly Change[]) => void): void {
    this.#listener = listener;
  }

  close(): void {
    this.#near.close();
    this.#far.close();
  }
}
