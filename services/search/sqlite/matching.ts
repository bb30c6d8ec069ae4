import type { DatabaseSync, StatementSync } from "node:sqlite";
import type { TextQuery } from "../query.ts";

/**
 * Below so many listings with every word, listings with some follow. Decided before filters, so that a facet's count is what one gets
 * by choosing it.
 */
const RELAX_BELOW = 5;

// The weights were measured by bench/relevance.ts; they are flat around these values.
/** bm25 over title, brand, description, spellings, heading. */
const WORD_WEIGHTS = "2, 1, 1, 1, 0";
/** What the same words in a short title add. */
const TITLE_SHARE = 0.5;
/** The thing itself before its accessories. */
const HEADING_FACTOR = 1.3;
/** Higher than any score within a tier: every word, then every word in a wider sense, then some words. */
const TIER = 10_000;

/** A score costs a microsecond a row. Above so many listings with the very words, the order of those found in a wider sense, which come after, is by time. */
const WIDENED_SCORED_BELOW = 500;

/** Of so many listings, those with the words in the title fill all pages that anybody reads: only titles are scored. */
const BROAD_FROM = 5_000;

/** Rows with the words of a query. */
export interface TextMatches {
  readonly rows: number[];
  /** Higher is better; zeros unless asked for. */
  readonly scores: number[];
  readonly relaxed: boolean;
}

/** Finds and scores rows by their words in one index file. */
export class Matching {
  readonly #find: StatementSync;
  readonly #count: StatementSync;
  readonly #score: StatementSync;
  readonly #scoreTitles: StatementSync;

  constructor(db: DatabaseSync) {
    this.#find = prepare(db, "select rowid from words where words match ?");
    this.#count = prepare(db, "select count(*) from words where words match ?");
    this.#score = prepare(db, `select rowid, -bm25(words, ${WORD_WEIGHTS}) from words where words match ?`);
    this.#scoreTitles = prepare(db, "select rowid, -bm25(titles, 1, 1) from titles where titles match ?");
  }

  /** Unscored, listings with some words follow only when none has all: any other order would put them first. */
  match(query: TextQuery, scored: boolean): TextMatches {
    const found = new Map<number, number>();
    const broad = scored && this.#counts(query.exact) > BROAD_FROM;
    this.#add(found, query.exact, scored && !broad, 2 * TIER);
    if (query.widened !== query.exact) {
      this.#add(found, query.widened, scored && found.size < WIDENED_SCORED_BELOW, TIER);
    }
    const relaxed = query.relaxed !== undefined && found.size < (scored ? RELAX_BELOW : 1);
    if (relaxed) {
      this.#add(found, query.relaxed as string, scored, 0);
    }
    if (scored && found.size > 0) {
      this.#addTitles(found, relaxed ? (query.relaxed as string) : query.exact);
      this.#raiseHeadings(found, query.exact);
    }
    return { rows: [...found.keys()], scores: [...found.values()], relaxed: relaxed && found.size > 0 };
  }

  #counts(expression: string): number {
    return (this.#count.get(expression) as unknown as [number])[0];
  }

  #add(found: Map<number, number>, expression: string, scored: boolean, tier: number): void {
    for (const [row, score] of (scored ? this.#score : this.#find).all(expression) as unknown as [number, number?][]) {
      if (!found.has(row)) {
        found.set(row, tier + (score ?? 0));
      }
    }
  }

  #addTitles(found: Map<number, number>, expression: string): void {
    for (const [row, score] of this.#scoreTitles.all(expression) as unknown as [number, number][]) {
      const before = found.get(row);
      if (before !== undefined) {
        found.set(row, before + TITLE_SHARE * score);
      }
    }
  }

  #raiseHeadings(found: Map<number, number>, expression: string): void {
    for (const [row] of this.#find.all(`{heading} : (${expression})`) as unknown as [number][]) {
      const before = found.get(row);
      if (before !== undefined) {
        const tier = Math.floor(before / TIER) * TIER;
        found.set(row, tier + (before - tier) * HEADING_FACTOR);
      }
    }
  }
}

function prepare(db: DatabaseSync, sql: string): StatementSync {
  const statement = db.prepare(sql);
  statement.setReturnArrays(true);
  return statement;
}
