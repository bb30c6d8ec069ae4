/** How many positions are looked for, and how long. */
const GAPS_MAX = 100;
const GAP_MS = 1_000;

/**
 * Positions of an outbox that had no row when they were passed over. Positions are given before the commit: who has one is late, or was undone. (Or numbers are given
 * in steps, or the row is of a partition that another process serves: after a second nobody looks for it any more.)
 */
export class Gaps {
  readonly #sinceTimes = new Map<number, number>();

  /** What was passed over from `after` to the last of these rows, at `now`, in milliseconds of any clock. */
  note(after: number, rows: readonly { readonly position: number }[], now: number): void {
    let last = after;
    for (const { position } of rows) {
      for (let gap = Math.max(last + 1, position - GAPS_MAX); gap < position; gap++) this.#sinceTimes.set(gap, now);
      last = position;
    }
    for (const [gap] of this.#sinceTimes) {
      if (this.#sinceTimes.size <= GAPS_MAX) break;
      this.#sinceTimes.delete(gap);
    }
  }

  /** What is still looked for. */
  open(now: number): readonly number[] {
    for (const [gap, since] of this.#sinceTimes) {
      if (now - since >= GAP_MS) this.#sinceTimes.delete(gap);
    }
    return [...this.#sinceTimes.keys()];
  }

  /** These have rows now. */
  filled(rows: readonly { readonly position: number }[]): void {
    for (const { position } of rows) this.#sinceTimes.delete(position);
  }

  clear(): void {
    this.#sinceTimes.clear();
  }
}
