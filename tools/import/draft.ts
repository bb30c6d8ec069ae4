import { create } from "@bufbuild/protobuf";
import { Condition, type ListingDraft, ListingDraftSchema } from "#gen/marketplace/catalog/v1/catalog_pb.ts";

/** The largest number that the fields for counts hold; a larger one cannot even be sent. */
const UINT32_MAX = 4_294_967_295;

/** What stands in for what a file does not say. */
export interface ImportDefaults {
  /** The category of a record without `category_id`. */
  readonly categoryId: string;
  /** The condition of a record without `condition`. */
  readonly condition: Condition;
}

/** The fields that a record may have; any other is refused, so that a misspelt one is not lost in silence. */
const FIELDS = new Set([
  "id",
  "external_id",
  "title",
  "description",
  "brand",
  "category_id",
  "condition",
  "price_minor",
  "currency_code",
  "units",
  "handling_days",
  "ships_from",
  "date",
]);

/**
 * Turns a record into a listing's draft. Its `external_id` (or `id`) is what makes a second import create nothing twice. `date` is read over:
 * a listing's dates are when it was created and published here.
 *
 * @throws Error a sentence that says which field is wrong and why.
 */
export function draftOf(fields: Readonly<Record<string, unknown>>, defaults: ImportDefaults): ListingDraft {
  const unknown = Object.keys(fields).find((name) => !FIELDS.has(name));
  if (unknown !== undefined) throw new Error(`unknown field "${unknown}"; known are ${[...FIELDS].join(", ")}`);
  const externalId = text(fields, "external_id") || text(fields, "id");
  if (externalId === "")
    throw new Error("external_id (or id) is missing: without it a second import would create the listing twice");
  const condition = text(fields, "condition");
  return create(ListingDraftSchema, {
    externalId,
    title: text(fields, "title"),
    description: text(fields, "description"),
    brand: text(fields, "brand"),
    categoryId: text(fields, "category_id") || defaults.categoryId,
    condition: condition === "" ? defaults.condition : conditionOf(condition),
    price: { currencyCode: text(fields, "currency_code"), amountMinor: BigInt(whole(fields, "price_minor", undefined)) },
    units: whole(fields, "units", 1, UINT32_MAX),
    handlingDays: whole(fields, "handling_days", 0, UINT32_MAX),
    shipsFrom: text(fields, "ships_from"),
  });
}

/** Reads a condition by its name, with or without the prefix, in any case: "like_new", "CONDITION_GOOD". */
export function conditionOf(name: string): Condition {
  const key = name
    .trim()
    .toUpperCase()
    .replaceAll(/[ -]/g, "_")
    .replace(/^CONDITION_/, "");
  const found = Object.entries(Condition).find(([known, value]) => known === key && value !== Condition.UNSPECIFIED);
  if (found === undefined) {
    const known = Object.keys(Condition).filter((each) => each !== "UNSPECIFIED");
    throw new Error(`condition "${name}" is unknown; known are ${known.join(", ")}`);
  }
  return found[1] as Condition;
}

function text(fields: Readonly<Record<string, unknown>>, name: string): string {
  const value = fields[name] ?? "";
  // Half a surrogate pair would be sent as another character, in silence.
  if (typeof value === "string" && value.isWellFormed()) return value.trim();
  if (typeof value === "number" && name.endsWith("id")) return String(value);
  throw new Error(`${name} must be text, not ${JSON.stringify(value)}`);
}

function whole(fields: Readonly<Record<string, unknown>>, name: string, fallback: number | undefined, max = Infinity): number {
  const value = fields[name] ?? "";
  if (value === "" && fallback !== undefined) return fallback;
  const number = typeof value === "string" && /^\d{1,15}$/.test(value.trim()) ? Number(value) : value;
  if (typeof number === "number" && number > max) throw new Error(`${name} is too large: ${number}`);
  if (typeof number === "number" && Number.isSafeInteger(number) && number >= 0) return number;
  throw new Error(`${name} must be a whole number from 0 up, not ${JSON.stringify(value)}`);
}
