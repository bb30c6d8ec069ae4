import { fail, INVALID_REQUEST } from "#runtime/errors.ts";

/** The column's width; compatibility forms may lengthen a name of 40 characters. */
const KEY_MAX = 191;
/** Characters that end a line, steer the terminal or turn the direction of the text around them. */
const UNFIT = /[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/u;

/**
 * A name folded so that names which read alike meet: compatibility forms (NFKC), upper and lower case, runs of white space,
 * characters that show nothing. Upper before lower, because only so "ß" meets "SS"; a final "ς" is the same letter as "σ". Empty when nothing of it shows.
 */
export function nameKey(name: string): string {
  return name
    .normalize("NFKC")
    .replace(/\p{Default_Ignorable_Code_Point}/gu, "")
    .toUpperCase()
    .toLowerCase()
    .replaceAll("ς", "σ")
    .normalize("NFKC")
    .replace(/\s+/g, " ")
    .trim()
    .slice(0, KEY_MAX);
}

/** The key of a name to be shown. Fails with INVALID_REQUEST where the contract's pattern, which knows ASCII only, lets an unfit one through. */
export function keyOfName(displayName: string): string {
  const key = nameKey(displayName);
  if (key === "" || displayName !== displayName.trim() || UNFIT.test(displayName)) {
    const description = "must show something, and have no control characters, nor space at either end";
    fail(INVALID_REQUEST, { violations: [{ field: "display_name", description }] });
  }
  return key;
}
