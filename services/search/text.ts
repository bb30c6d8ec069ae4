// How text becomes words, the same way when a listing is indexed and when somebody searches.

const CJK = "\\p{sc=Han}\\p{sc=Hiragana}\\p{sc=Katakana}\\p{sc=Hangul}ー";
const CJK_RUN = new RegExp(`[${CJK}]+`, "gu");
const CJK_OR_WORD = new RegExp(`[${CJK}]+|(?:(?![${CJK}])[\\p{L}\\p{N}\\p{M}])+`, "gu");
const IS_CJK = new RegExp(`^[${CJK}]`, "u");

/** Units that are written with and without a space after their number. */
const UNITS =
  "gb|tb|mb|kb|mhz|ghz|hz|mm|cm|m|km|ml|l|oz|kg|g|lb|lbs|w|kw|v|a|mah|wh|dpi|mp|fps|p|k|inch|in|ft|mbps|gbps|pcs|pc|pack|cl|qt|gal";
const NUMBER_AND_UNIT = new RegExp(`(?<![\\p{L}\\p{N}.])(\\d+(?:[.,]\\d+)?)(\\s?)(${UNITS})(?![\\p{L}\\p{N}])`, "gu");
/** Parts held together by a sign: "wh-1000xm4", "usb-c", "802.11n". */
const COMPOUND = /[\p{L}\p{N}]+(?:[-._'][\p{L}\p{N}]+)+/gu;
const JOINED_MAX = 32;

/**
 * Brings text into one form: compatibility forms to plain ones (full-width Latin, half-width kana), lower case, `"` after a number to "inch", "men's" to "mens".
 * What is left to the index's own tokeniser are diacritics and stems.
 */
export function fold(text: string): string {
  return (
    text
      // NFKC would glue them to the word before: "LabelWriterTM".
      .replace(/[™®©℠]/g, " ")
      .normalize("NFKC")
      .toLowerCase()
      .replace(/[‘’ʼ`]/g, "'")
      .replace(/[‐-―−]/g, "-")
      .replace(/(\p{L})'s(?!\p{L})/gu, "$1s")
      .replace(/[“”″]/g, '"')
      .replace(/(^|[\s(])"([^"]*)"/g, "$1 $2 ")
      .replace(/(\d)\s?(?:"|'')/g, "$1 inch ")
  );
}

/**
 * Folded text with the runs of Chinese, Japanese and Korean characters cut into overlapping pairs, because nobody writes spaces there: 東京都 becomes 東京 京都 都. The
 * last character stands alone too, so that every character begins some word and can be found by itself as a prefix.
 */
export function withBigrams(folded: string): string {
  return folded.replace(CJK_RUN, (run) => {
    const characters = [...run];
    return ` ${characters.map((character, i) => character + (characters[i + 1] ?? "")).join(" ")} `;
  });
}

/** The other ways to write what stands in folded text: "wh-1000xm4" also wh1000xm4, "500gb" also 500 gb, "500 gb" also 500gb. */
export function spellings(folded: string): string {
  const found: string[] = [];
  for (const [compound] of folded.matchAll(COMPOUND)) {
    const joined = compound.replace(/[-._']/g, "");
    if (joined.length <= JOINED_MAX) {
      found.push(joined);
    }
  }
  for (const [, number, space, unit] of folded.matchAll(NUMBER_AND_UNIT)) {
    found.push(space === "" ? `${number} ${unit}` : `${number}${unit}`);
  }
  return found.join(" ");
}

/** A piece of folded text: letters, digits and marks in a row, all in one kind of script. */
export interface Piece {
  readonly text: string;
  /** Chinese, Japanese or Korean characters, to be cut into pairs. */
  readonly cjk: boolean;
}

/** The pieces of a chunk of folded text, in order; signs between them are dropped. */
export function piecesOf(chunk: string): Piece[] {
  return [...chunk.matchAll(CJK_OR_WORD)].map(([text]) => ({ text, cjk: IS_CJK.test(text) }));
}

/** The pairs of a run of CJK characters; a single character is itself. */
export function bigramsOf(run: string): string[] {
  const characters = [...run];
  return characters.length < 2 ? characters : characters.slice(1).map((character, i) => (characters[i] as string) + character);
}
