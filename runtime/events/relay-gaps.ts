/** How many gaps, of how many positions in all, are looked for, and how long. Transactions have up to some hundred events each. */
const GAPS_MAX = 64;
const POSITIONS_MAX = 2_000;
const GAP_MS = 2_000;

/** Positions without a row, both ends included. */
export interface Gap {
  readonly from: number;
  readonly to: number;
  /** When it was passed over. */
  readonly since: number;
}

/**
 * Positions of an outbox that were passed over. Positions are given before the commit: who has one is late, or was undone, or was published before. The first look tells
 * which have a row, and only the others are looked for any longer. Where numbers are given in steps there are more gaps than are kept: then the newest are.
 */
export class Gaps {
  /** In the order of positions. */
  #gaps: readonly Gap[] = [];

  /** What was passed over from `after` to the last of these rows, which are in order; `now` in milliseconds of any clock. */
  note(after: number, rows: readonly { readonly position: number }[], now: number): void {
    const gaps = new Map(this.#gaps.map((gap) => [gap.from, gap]));
    let last = after;
    for (const { position } of rows) {
      const from = Math.max(last + 1, position - POSITIONS_MAX);
      if (from < position) gaps.set(from, { from, to: position - 1, since: now });
      last = position;
    }
    this.#gaps = bounded([...gaps.values()].sort((a, b) => a.from - b.from));
  }

  /** What is still looked for. */
  open(now: number): readonly Gap[] {
    this.#gaps = this.#gaps.filter(({ since }) => now - since < GAP_MS);
    return this.#gaps;
  }

  /** Of all that is looked for these have rows, in order. */
  filled(rows: readonly { readonly position: number }[]): void {
    if (rows.length === 0) return;
    this.#gaps = this.#gaps.flatMap((gap) => {
      const left: Gap[] = [];
      let { from } = gap;
      for (const { position } of rows) {
        if (position < from) continue;
        if (position > gap.to) break;
        if (position > from) left.push({ ...gap, from, to: position - 1 });
        from = position + 1;
      }
      return from <= gap.to ? [...left, { ...gap, from }] : left;
    });
  }
}

/** No more than are kept: neighbours become one, with the rows between them, and the eldest are left out. */
function bounded(gaps: readonly Gap[]): readonly Gap[] {
  const size = Math.ceil(gaps.length / GAPS_MAX);
  const joined = Array.from({ length: Math.ceil(gaps.length / Math.max(1, size)) }, (_, index) => {
    const group = gaps.slice(index * size, (index + 1) * size);
    return {
      from: group[0]?.from ?? 0,
      to: Math.max(...group.map(({ to }) => to)),
      since: Math.max(...group.map(({ since }) => since)),
    };
  });
  const kept: Gap[] = [];
  let room = POSITIONS_MAX;
  for (const gap of joined.reverse()) {
    if (room <= 0) break;
    const from = Math.max(gap.from, gap.to - room + 1);
    kept.unshift({ ...gap, from });
    room -= gap.to - from + 1;
  }
  return kept;
}
