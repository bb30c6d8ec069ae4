import type { CompiledQuery, Kysely } from "kysely";
import { compiled } from "#runtime/database/compiled.ts";
import { afterPosition, type SortColumn } from "#runtime/pages.ts";
import type { CatalogTables } from "./entities.ts";
import { type ReadRow, readColumns } from "./listings.ts";
import type { State } from "./states.ts";

const NEWEST_FIRST: readonly SortColumn<"create_time" | "listing_id">[] = [
  { column: "create_time", direction: "desc" },
  { column: "listing_id", direction: "desc" },
];

/** The values of a statement for a page. */
export interface PageOfSeller {
  readonly sellerId: string;
  readonly limit: number;
  /** The last row of the page before. */
  readonly time: number;
  readonly listingId: string;
}

/**
 * Gives the statement that reads a page of a seller's listings in some states, newest first: the first page, or one that follows a row. Each is compiled once.
 */
export function sellerPages(
  sql: Kysely<CatalogTables>,
): (states: readonly [State, ...State[]], follows: boolean) => (values: PageOfSeller) => CompiledQuery<ReadRow> {
  /** By the index listing_seller: each state is a run of rows in the order asked for, so nothing is sorted and nothing skipped. */
  const run = (state: State, { sellerId, limit, time, listingId }: PageOfSeller, follows: boolean) => {
    let query = sql.selectFrom("listing").where("seller_id", "=", sellerId).where("state", "=", state);
    if (follows) {
      // The first condition bounds the walk over the index; the second one is exact.
      query = query.where("create_time", "<=", time).where((eb) => afterPosition(eb, NEWEST_FIRST, [time, listingId]));
    }
    return query.orderBy("create_time", "desc").orderBy("listing_id", "desc").limit(limit);
  };
  const pageQueries = new Map<string, (values: PageOfSeller) => CompiledQuery<ReadRow>>();
  return ([first, ...others]: readonly [State, ...State[]], follows: boolean) => {
    const name = `${[first, ...others].join()} ${follows}`;
    const known = pageQueries.get(name);
    if (known !== undefined) return known;
    const made = compiled<PageOfSeller, ReadRow>((values) => {
      if (others.length === 0) return run(first, values, follows).select(readColumns);
      // Of each state one page of keys from the index alone; they are sorted together, and the rows of the first of them are read.
      const keys = (state: State) => run(state, values, follows).select(["listing_id", "create_time"]).as("run");
      const part = (state: State) => sql.selectFrom(keys(state)).select(["run.listing_id", "run.create_time"]);
      const page = others
        .reduce((all, state) => all.unionAll(part(state)), part(first))
        .orderBy("create_time", "desc")
        .orderBy("listing_id", "desc")
        .limit(values.limit);
      return sql
        .selectFrom(page.as("page"))
        .innerJoin("listing", "listing.listing_id", "page.listing_id")
        .select(readColumns.map((column) => `listing.${column}` as const))
        .orderBy("page.create_time", "desc")
        .orderBy("page.listing_id", "desc");
    });
    pageQueries.set(name, made);
    return made;
  };
}
