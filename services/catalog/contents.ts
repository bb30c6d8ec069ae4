import { createHash } from "node:crypto";
import type { ListingDraft } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import type { Money } from "#gen/marketplace/type/v1/money_pb.ts";
import type { ConditionName } from "./entities.ts";
import { conditionFromProto } from "./listings.ts";

const UNITS_DEFAULT = 1;
const HANDLING_DAYS_DEFAULT = 3;

/** What a seller says of a new listing, with the defaults filled in. */
export interface Contents {
  readonly title: string;
  readonly description: string;
  readonly categoryId: string;
  /** As the seller spelt it. */
  readonly brand: string;
  readonly condition: ConditionName;
  readonly currencyCode: string;
  readonly priceMinor: bigint;
  readonly units: number;
  readonly handlingDays: number;
  readonly shipsFrom: string;
  /** Null when there is none. */
  readonly externalId: string | null;
  /** SHA-256 over all of it, hexadecimal: equal for drafts that mean the same. */
  readonly hash: string;
}

/** Reads a draft that has passed validation. */
export function contentsOf(draft: ListingDraft): Contents {
  const price = draft.price as Money;
  const contents = {
    title: draft.title,
    description: draft.description,
    categoryId: draft.categoryId,
    brand: draft.brand,
    condition: conditionFromProto(draft.condition),
    currencyCode: price.currencyCode,
    priceMinor: price.amountMinor,
    units: draft.units || UNITS_DEFAULT,
    handlingDays: draft.handlingDays || HANDLING_DAYS_DEFAULT,
    shipsFrom: draft.shipsFrom || (price.currencyCode === "JPY" ? "JP" : "US"),
    externalId: draft.externalId || null,
  };
  // The values alone, in this order for good: the hashes are stored. A field added later joins at the end, where it is set.
  const values = Object.values(contents).map((value) => (typeof value === "bigint" ? value.toString() : value));
  return { ...contents, hash: createHash("sha256").update(JSON.stringify(values)).digest("hex") };
}
