/** Something that must be over by a time. */
export interface Timed {
  /** When it is due, in ms since the epoch; may change while it is watched. */
  dueTime: number;
  /** Its place among the watched; the watch's own. */
  slot: number;
  /** Called once it is due, and again until it is removed. */
  expire(): void;
}

/** How late an expiry may be noticed, in ms. */
const TICK_MS = 5;

/**
 * Ends calls that are due. One timer for all: a timer of Node's own for each call costs more than looking at every call under way 200 times a second,
 * of which there are few at once.
 */
export class Watch {
  readonly #watched: Timed[] = [];
  #timer: NodeJS.Timeout | undefined;

  add(timed: Timed): void {
    timed.slot = this.#watched.length;
    this.#watched.push(timed);
    this.#timer ??= setInterval(() => this.#tick(), TICK_MS);
  }

  remove(timed: Timed): void {
    const { slot } = timed;
    if (slot < 0) return;
    const last = this.#watched.pop() as Timed;
    if (last !== timed) {
      this.#watched[slot] = last;
      last.slot = slot;
    }
    timed.slot = -1;
  }

  #tick(): void {
    const watched = this.#watched;
    if (watched.length === 0) {
      clearInterval(this.#timer);
      this.#timer = undefined;
      return;
    }
    const now = Date.now();
    // From behind: one that is removed gets its place taken by the last.
    for (let slot = watched.length - 1; slot >= 0; slot--) {
      const timed = watched[slot];
      if (timed !== undefined && timed.dueTime <= now) timed.expire();
    }
  }
}
