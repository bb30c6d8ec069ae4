import { type Clock, systemClock } from "#runtime/clock.ts";
import { type CacheStore, type Change, type Entry, holdMs, MARK_TTL_MS } from "./store.ts";

/** What an entry takes beside its value, about, in bytes. */
const ENTRY_BYTES = 200;

/** The bounds of a store in the process. */
export interface MemoryStoreOptions<T> {
  /** The most that all entries may take, about, in bytes; what was not asked for the longest goes first. */
  readonly maxBytes: number;
  /** What a value takes, about, in bytes. */
  readonly sizeOf: (value: T) => number;
  /** The longest a value stays, whatever it says itself, in ms. Its own time unless given. */
  readonly ttlMaxMs?: number;
  readonly clock?: Clock;
}

interface Held<T> {
  entry: Entry<T>;
  /** When the value ends; from then on it is a mark. */
  readonly valueUntil: number;
  readonly until: number;
  readonly bytes: number;
}

/** A store in this process. It hands out the values themselves, not copies. */
export class MemoryStore<T> implements CacheStore<T> {
  /** In the order of the last use. */
  readonly #held = new Map<string, Held<T>>();
  readonly #options: MemoryStoreOptions<T>;
  readonly #clock: Clock;
  #bytes = 0;

  constructor(options: MemoryStoreOptions<T>) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
  }

  /** What all entries take, about, in bytes. */
  get bytes(): number {
    return this.#bytes;
  }

  async get(keys: readonly string[]): Promise<readonly (Entry<T> | undefined)[]> {
    return keys.map((key) => this.look(key));
  }

  /** The entry, at once. */
  look(key: string): Entry<T> | undefined {
    const held = this.#held.get(key);
    if (held === undefined) {
      return undefined;
    }
    const now = this.#clock.now();
    this.#held.delete(key);
    if (held.until <= now) {
      this.#bytes -= held.bytes;
      return undefined;
    }
    this.#held.set(key, held);
    if (held.valueUntil <= now && held.entry.value !== undefined) {
      held.entry = { ...held.entry, value: undefined };
    }
    return held.entry;
  }

  async put(entries: readonly { readonly key: string; readonly entry: Entry<T> }[]): Promise<void> {
    const now = this.#clock.now();
    const { ttlMaxMs } = this.#options;
    for (const { key, entry } of entries) {
      const there = this.look(key);
      if (there === undefined || there.version <= entry.version) {
        const valueUntil = Math.min(entry.expireTime, now + (ttlMaxMs ?? Number.POSITIVE_INFINITY));
        this.#set(key, entry, valueUntil, now + holdMs(entry, now));
      }
    }
  }

  async mark(changes: readonly Change[]): Promise<boolean> {
    const expireTime = this.#clock.now() + MARK_TTL_MS;
    for (const { key, version } of changes) {
      const there = this.look(key);
      if (there === undefined || there.version < version) {
        this.#set(key, { version, expireTime, loadMs: 0, value: undefined }, expireTime, expireTime);
      }
    }
    return true;
  }

  onMark(): void {}

  /** Forgets everything. */
  clear(): void {
    this.#held.clear();
    this.#bytes = 0;
  }

  close(): void {
    this.clear();
  }

  #set(key: string, entry: Entry<T>, valueUntil: number, until: number): void {
    const { sizeOf, maxBytes } = this.#options;
    const bytes = ENTRY_BYTES + 2 * key.length + (entry.value === undefined ? 0 : sizeOf(entry.value));
    this.#drop(key);
    this.#held.set(key, { entry, valueUntil, until, bytes });
    this.#bytes += bytes;
    for (const oldest of this.#held.keys()) {
      if (this.#bytes <= maxBytes) break;
      this.#drop(oldest);
    }
  }

  #drop(key: string): void {
    const held = this.#held.get(key);
    if (held !== undefined) {
      this.#held.delete(key);
      this.#bytes -= held.bytes;
    }
  }
}
