import { synonymsOf } from "./synonyms.ts";
import { bigramsOf, fold, type Piece, piecesOf } from "./text.ts";

/** Terms of a query that are looked for; what comes after them is ignored. */
export const TERMS_MAX = 24;
const PREFIX_MIN = 2;

/** One thing a listing must have: any of its ways to be written. Each way is words that stand next to each other. */
interface Term {
  readonly ways: readonly string[];
  /** More ways, which count less: other words for it, and words it begins. */
  readonly widened: readonly string[];
}

/** A query as the index is asked, in the language of FTS5. Every word is quoted, so nothing typed is read as syntax. */
export interface TextQuery {
  /** What has every word. */
  readonly exact: string;
  /** What has every word, or another name of it, or (for the last word) a longer word; equals `exact` where there is nothing to widen. */
  readonly widened: string;
  /** What has any word; undefined when there is only one. */
  readonly relaxed: string | undefined;
}

/** Words that say nothing about a thing. They are looked for only when there are no others. */
const STOP_WORDS = new Set("a an and at by for from in is it of on or the to with".split(" "));

/** Reads what somebody typed; undefined when there is no word in it. */
export function parseQuery(typed: string): TextQuery | undefined {
  const chunks = fold(typed).split(/[\s/,;|&+()[\]{}<>!?*:=]+/u);
  const terms = dropStopWords(chunks.flatMap((chunk) => termsOf(piecesOf(chunk), chunk)));
  const last = terms.at(-1);
  if (last === undefined) {
    return undefined;
  }
  const kept = terms.slice(0, TERMS_MAX);
  const joined = joinedPairs(kept);
  const exact = either([every(kept.map((term) => anyOf(term.ways))), ...joined]);
  const widened = either([
    every(kept.map((term) => anyOf([...term.ways, ...term.widened, ...(term === last ? prefixOf(term) : [])]))),
    ...joined,
  ]);
  return { exact, widened, relaxed: kept.length > 1 ? either([...kept.map((term) => anyOf(term.ways)), ...joined]) : undefined };
}

function termsOf(pieces: readonly Piece[], chunk: string): Term[] {
  if (pieces.length > 1 && pieces.every((piece) => !piece.cjk) && /[-._']/.test(chunk)) {
    // A compound: its parts side by side, or written as one.
    const parts = pieces.map((piece) => piece.text);
    return [{ ways: [phrase(parts.join(" ")), phrase(parts.join(""))], widened: [] }];
  }
  return pieces.flatMap(({ text, cjk }): Term[] => {
    if (!cjk) {
      return [{ ways: [phrase(text)], widened: synonymsOf(text).map(phrase) }];
    }
    const pairs = bigramsOf(text);
    // Every character begins a pair in the index, so one alone is looked for as a prefix.
    return pairs.length === 1 && [...text].length === 1
      ? [{ ways: [`${phrase(text)}*`], widened: [] }]
      : pairs.map((pair) => ({ ways: [phrase(pair)], widened: [] }));
  });
}

/** Drops stop words and repeated terms. */
function dropStopWords(terms: readonly Term[]): Term[] {
  const once = [...new Map(terms.map((term) => [term.ways[0], term])).values()];
  const telling = once.filter((term) => !STOP_WORDS.has((term.ways[0] as string).slice(1, -1)));
  return telling.length > 0 ? telling : once;
}

/** Two plain words are looked for as one too: "head set" finds headsets. */
function joinedPairs(terms: readonly Term[]): string[] {
  const [first, second] = terms.map((term) => (term.ways.length === 1 ? plainWord(term.ways[0] as string) : undefined));
  return terms.length === 2 && first !== undefined && second !== undefined ? [phrase(first + second)] : [];
}

/** The word of a way that is a single one, in a script that has spaces. */
function plainWord(way: string): string | undefined {
  const [piece, ...others] = piecesOf(way);
  return piece !== undefined && others.length === 0 && !piece.cjk ? piece.text : undefined;
}

function prefixOf(term: Term): string[] {
  const word = plainWord(term.ways.at(-1) as string);
  return word !== undefined && [...word].length >= PREFIX_MIN ? [`${phrase(word)}*`] : [];
}

function phrase(words: string): string {
  // Pieces are letters, digits and marks only; doubling quotes is the second lock on the same door.
  return `"${words.replaceAll('"', '""')}"`;
}

function anyOf(ways: readonly string[]): string {
  return ways.length === 1 ? (ways[0] as string) : `(${ways.join(" OR ")})`;
}

function every(parts: readonly string[]): string {
  return parts.length === 1 ? (parts[0] as string) : `(${parts.join(" AND ")})`;
}

function either(parts: readonly string[]): string {
  return parts.join(" OR ");
}
