import { type Clock, systemClock } from "#runtime/clock.ts";
import type { Observer } from "#runtime/telemetry/observer.ts";
import { type CacheStore, type Change, type Entry, LOAD_MAX_MS } from "./store.ts";

/** What a load found. What is not there is found, too: as a value that says so. */
export interface Loaded<T> {
  readonly value: T;
  /** Grows with every change. */
  readonly version: number;
  /** How long it may be kept, in ms. */
  readonly ttlMs: number;
}

/** What a cache is made of. */
export interface CacheOptions<T> {
  /** Unique in the service's stores, such as "listing". */
  readonly name: string;
  /** The number of the values' format: another one finds nothing that was stored under the first, so that two versions of the program do not meet. */
  readonly format: number;
  readonly store: CacheStore<T>;
  /** Reads where the truth is; one result for each id. */
  load(ids: readonly string[]): Promise<ReadonlyMap<string, Loaded<T>>>;
  readonly clock?: Clock;
  readonly observer?: Observer | undefined;
}

/** A load under way. */
type Flight<T> = Promise<ReadonlyMap<string, Loaded<T>>>;

// A change leaves a mark with its version, and nothing older is stored over a mark: a reader that read the old row before the change and
// stores it after is refused. What neither commit nor event could mark (the process died, Redis was away) ends with its ttl.
//
// Many who miss at once share one load in each process. Between processes no lock is taken: a load is one read by primary keys, which costs little more
// than to wait for another process that may have died; and what many ask for is loaded anew a little before its end by one of them, chosen by chance and
// by the cost of the load ("Optimal Probabilistic Cache Stampede Prevention", Vattani, Chierichetti, Lowenstein, VLDB 2015), while the others still have it.

/** Remembers what was read, for a while. No failure of its store is seen: without it, everything is loaded. Values are shared: nobody changes them. */
export class Cache<T> {
  readonly #options: CacheOptions<T>;
  readonly #clock: Clock;
  readonly #prefix: string;
  readonly #flights = new Map<string, Flight<T>>();
  readonly #reads = { hits: 0, misses: 0 };

  constructor(options: CacheOptions<T>) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#prefix = `souk.cache:${options.name}:${options.format}:`;
    options.store.onMark((changes) => this.#forgetFlights(changes));
    options.observer?.cacheOpened(options.name, this.#reads);
  }

  /** The values in the order of the ids. Fails as the load fails. */
  async get(ids: readonly string[]): Promise<T[]> {
    const keys = ids.map((id) => this.#prefix + id);
    const entries = await this.#options.store.get(keys);
    const now = this.#clock.now();
    const missing: string[] = [];
    const early: string[] = [];
    for (const [index, id] of ids.entries()) {
      const entry = entries[index];
      if (entry?.value === undefined || entry.expireTime <= now) missing.push(id);
      else if (endsSoon(entry, now)) early.push(id);
    }
    this.#reads.misses += missing.length;
    this.#reads.hits += ids.length - missing.length;
    if (early.length > 0) {
      this.#load(early).catch(() => {});
    }
    const loaded = missing.length === 0 ? undefined : await this.#shared(missing, marksOf(ids, entries));
    return ids.map((id, index) => loaded?.get(id)?.value ?? (entries[index]?.value as T));
  }

  /** Tells of changes, after their commit. False when it is not certain that every process will see them: tell again then. */
  async changed(changes: readonly { readonly id: string; readonly version: number }[]): Promise<boolean> {
    if (changes.length === 0) {
      return true;
    }
    const marks = changes.map(({ id, version }) => ({ key: this.#prefix + id, version }));
    this.#forgetFlights(marks);
    return this.#options.store.mark(marks);
  }

  close(): void {
    this.#options.store.close();
  }

  /** Loads, or waits for the loads that are under way; one that began before a change that is known by now is not good enough. */
  async #shared(ids: readonly string[], marks: ReadonlyMap<string, number>): Promise<Map<string, Loaded<T>>> {
    const loaded = new Map<string, Loaded<T>>();
    const fresh = new Set(ids.filter((id) => !this.#flights.has(id)));
    const flights = new Set(ids.flatMap((id) => this.#flights.get(id) ?? []));
    if (fresh.size > 0) flights.add(this.#load([...fresh]));
    const wanted = new Set(ids);
    for (const found of await Promise.all(flights)) {
      for (const [id, each] of found) {
        if (wanted.has(id)) loaded.set(id, each);
      }
    }
    const old = ids.filter((id) => !fresh.has(id) && (loaded.get(id)?.version ?? 0) < (marks.get(id) ?? 0));
    if (old.length > 0) {
      for (const [id, each] of await this.#load(old)) loaded.set(id, each);
    }
    return loaded;
  }

  async #load(ids: readonly string[]): Promise<ReadonlyMap<string, Loaded<T>>> {
    const startTime = this.#clock.now();
    const start = performance.now();
    const flight = this.#options.load(ids);
    for (const id of ids) this.#flights.set(id, flight);
    try {
      const loaded = await flight;
      const loadMs = performance.now() - start;
      if (loadMs < LOAD_MAX_MS) {
        const entries = [...loaded].map(([id, { value, version, ttlMs }]) => {
          const entry: Entry<T> = { value, version, loadMs, expireTime: startTime + ttlMs };
          return { key: this.#prefix + id, entry };
        });
        // Nobody waits for the store to have it.
        void this.#options.store.put(entries);
      }
      return loaded;
    } finally {
      for (const id of ids) {
        if (this.#flights.get(id) === flight) this.#flights.delete(id);
      }
    }
  }

  #forgetFlights(changes: readonly Change[]): void {
    for (const { key } of changes) {
      if (key.startsWith(this.#prefix)) this.#flights.delete(key.slice(this.#prefix.length));
    }
  }
}

/** Whether this reader is the one to load it anew before its end: the nearer the end and the costlier the load, the likelier. */
function endsSoon({ expireTime, loadMs }: Entry<unknown>, now: number): boolean {
  return now - loadMs * Math.log(Math.random()) >= expireTime;
}

function marksOf(ids: readonly string[], entries: readonly (Entry<unknown> | undefined)[]): Map<string, number> {
  const marks = new Map<string, number>();
  for (const [index, id] of ids.entries()) {
    const entry = entries[index];
    if (entry !== undefined) marks.set(id, entry.version);
  }
  return marks;
}
