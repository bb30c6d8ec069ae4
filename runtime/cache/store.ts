/** What a store holds under a key. */
export interface Entry<T> {
  /** The version of what was read: a later change has a higher one. */
  readonly version: number;
  /** When it ends, in ms since the epoch by the clock of the process that stored it. */
  readonly expireTime: number;
  /** How long it took to load, in ms: the costlier, the earlier it is loaded anew. */
  readonly loadMs: number;
  /**
   * Undefined in a mark: there is this version or a later one, and whoever has read an older one must not store it. It is what a change leaves behind, for
   * as long as a load may take.
   */
  readonly value: T | undefined;
}

/** The version that a change made, of what is cached under a key. */
export interface Change {
  readonly key: string;
  readonly version: number;
}

/**
 * Where a cache keeps its entries. None of its functions rejects, and none waits for long: an entry that cannot be had is one that is not there.
 * Values are shared by all readers and never changed.
 */
export interface CacheStore<T> {
  /** The entries in the order of the keys, ended ones perhaps too; undefined where there is none. */
  get(keys: readonly string[]): Promise<readonly (Entry<T> | undefined)[]>;
  /** Keeps entries, each unless there is a later version. */
  put(entries: readonly { readonly key: string; readonly entry: Entry<T> }[]): Promise<void>;
  /** Puts marks in the place of entries with an older version, and where there is none. False when it is not certain that all are there. */
  mark(changes: readonly Change[]): Promise<boolean>;
  /** Hears of the marks that others set; one listener. Never called by a store that nobody else writes to. */
  onMark(listener: (changes: readonly Change[]) => void): void;
  close(): void;
}

/** How long a mark stays, in ms: longer than any load whose result may be stored. */
export const MARK_TTL_MS = 60_000;
/** Loads that took longer are not stored, in ms: the mark that would refuse them may be gone. */
export const LOAD_MAX_MS = 20_000;

/** How long a store holds an entry, in ms: a short-lived value stands in the way of older ones for as long as a load may take, too. */
export function holdMs({ version, expireTime }: Entry<unknown>, now: number): number {
  const ttlMs = expireTime - now;
  return ttlMs <= 0 || version === 0 ? ttlMs : Math.max(ttlMs, 2 * LOAD_MAX_MS);
}

/** How values become bytes. */
export interface Codec<T> {
  encode(value: T): Uint8Array;
  /** Throws on bytes that it does not understand: then there is no entry. */
  decode(bytes: Uint8Array): T;
}
