import type { Kysely } from "kysely";
import { isUniqueViolation } from "#runtime/database/errors.ts";
import { brands as knownNames } from "./data/brands.ts";
import type { CatalogDatabase, CatalogTables } from "./entities.ts";

/** The column's width; folding may lengthen a name of 60 characters. */
const KEY_MAX = 191;

/**
 * A brand's name folded so that spellings of one brand meet: compatibility forms (NFKC), upper and lower case, runs of white space.
 * Upper before lower, because only so "ß" meets "SS"; a final "ς" is the same letter as "σ".
 */
export function brandKey(name: string): string {
  return fold(tidy(name)).slice(0, KEY_MAX);
}

function fold(name: string): string {
  return name.normalize("NFKC").toUpperCase().toLowerCase().replaceAll("ς", "σ").normalize("NFKC");
}

/** A name without control characters and superfluous white space. */
function tidy(name: string): string {
  return name
    .replace(/[\p{Cc}\s]+/gu, " ")
    .trim()
    .normalize("NFC");
}

const known: ReadonlyMap<string, string> = new Map(knownNames.map((name) => [brandKey(name), name]));

/**
 * Gives the names in their known spelling. A name seen for the first time is added as it is spelt; if two are added at once, the key
 * decides and both get the first one's spelling. A name without a letter or a digit of its own is no brand: it becomes empty.
 */
export async function spellBrands(sql: Kysely<CatalogTables>, names: Iterable<string>): Promise<Map<string, string>> {
  const spelling = new Map<string, string>();
  const unknown = new Map<string, string>();
  for (const name of new Set(names)) {
    const key = brandKey(name);
    const spelt = key === "" ? "" : known.get(key);
    if (spelt === undefined) {
      unknown.set(key, unknown.get(key) ?? tidy(name));
    }
    spelling.set(name, spelt ?? "");
  }
  if (unknown.size > 0) {
    const stored = await addBrands(sql, unknown);
    for (const name of spelling.keys()) {
      const spelt = stored.get(brandKey(name));
      if (spelt !== undefined) {
        spelling.set(name, spelt);
      }
    }
  }
  return spelling;
}

/** Adds the brands (name by key) that are missing and gives all of them as they are stored. */
async function addBrands(sql: Kysely<CatalogTables>, brands: ReadonlyMap<string, string>): Promise<Map<string, string>> {
  const stored = await readBrands(sql, [...brands.keys()]);
  // In the order of the keys in every transaction, so that two that add the same brands do not wait for each other.
  const missing = [...brands.keys()].filter((key) => !stored.has(key)).sort();
  if (missing.length === 0) {
    return stored;
  }
  const rows = missing.map((key) => ({ brand_key: key, name: brands.get(key) as string }));
  if (await inserted(sql, rows)) {
    for (const row of rows) {
      stored.set(row.brand_key, row.name);
    }
    return stored;
  }
  for (const row of rows) {
    await inserted(sql, [row]);
  }
  return readBrands(sql, [...brands.keys()]);
}

async function readBrands(sql: Kysely<CatalogTables>, keys: string[]): Promise<Map<string, string>> {
  const rows = await sql.selectFrom("brand").select(["brand_key", "name"]).where("brand_key", "in", keys).execute();
  return new Map(rows.map((row) => [row.brand_key, row.name]));
}

/** Whether the rows went in: all of them, or (when a key of them is taken) none. */
async function inserted(sql: Kysely<CatalogTables>, rows: { brand_key: string; name: string }[]): Promise<boolean> {
  try {
    await sql.insertInto("brand").values(rows).execute();
    return true;
  } catch (error) {
    if (isUniqueViolation(error)) {
      return false;
    }
    throw error;
  }
}

/** Puts the brands that everybody knows into the table, so that ListBrands shows them before the first listing does. */
export async function seedBrands(database: CatalogDatabase): Promise<void> {
  await database.transaction(async (tx) => {
    await addBrands(tx.sql, known);
  });
}

/** One page of brands in the order of their keys, by the primary key: those after `afterKey` that start with `prefix`. */
export function pageOfBrands(
  sql: Kysely<CatalogTables>,
  prefix: string,
  afterKey: string,
  limit: number,
): Promise<{ brand_key: string; name: string }[]> {
  const start = fold(prefix.trimStart());
  let query = sql.selectFrom("brand").select(["brand_key", "name"]).where("brand_key", ">", afterKey);
  if (start !== "") {
    query = query.where("brand_key", ">=", start).where("brand_key", "<", `${start}\u{10FFFF}`);
  }
  return query.orderBy("brand_key").limit(limit).execute();
}
