import { type Kysely, sql } from "kysely";
import type { InventoryTables } from "./entities.ts";

/** Findings answered at most. */
export const FINDINGS_MAX = 100;
/** Listings compared by one statement. */
const RUN_LISTINGS = 1_000;

/** What a check of the stock found. */
export interface StockCheck {
  readonly listings: number;
  /** A sentence each, at most 100. */
  readonly findings: readonly string[];
}

/**
 * Compares each listing's reserved units with its pending reservations and its sold units with its committed ones. A listing and its lines are read by one
 * statement, which sees one moment, so that purchases under way disturb nothing. Ends early when the signal is aborted.
 */
export async function checkStock(db: Kysely<InventoryTables>, signal: AbortSignal): Promise<StockCheck> {
  const findings: string[] = [];
  let listings = 0;
  let after = "";
  for (;;) {
    signal.throwIfAborted();
    const rows = await countedRun(db, after);
    for (const row of rows) {
      findings.push(...findingsOf(row));
    }
    listings += rows.length;
    const last = rows[rows.length - 1];
    if (last === undefined || rows.length < RUN_LISTINGS || findings.length >= FINDINGS_MAX) {
      return { listings, findings: findings.slice(0, FINDINGS_MAX) };
    }
    after = last.listing_id;
  }
}

type Counted = Awaited<ReturnType<typeof countedRun>>[number];

/**
 * The next run of listings, by the primary key of stock, and then their lines, by the index reservation_line_listing. The run is cut first: a limit on
 * the whole would have MariaDB join and group everything that is left, for each run anew.
 */
function countedRun(db: Kysely<InventoryTables>, after: string) {
  const unitsIn = (state: string) => sql<number>`coalesce(sum(case when r.state = ${state} then l.units else 0 end), 0)`;
  const run = db.selectFrom("stock").selectAll().where("listing_id", ">", after).orderBy("listing_id").limit(RUN_LISTINGS);
  return db
    .selectFrom(run.as("s"))
    .leftJoin("reservation_line as l", "l.listing_id", "s.listing_id")
    .leftJoin("reservation as r", "r.reservation_id", "l.reservation_id")
    .select(["s.listing_id", "s.offered_units", "s.available_units", "s.reserved_units", "s.sold_units"])
    .select([unitsIn("PENDING").as("pending"), unitsIn("COMMITTED").as("committed")])
    .groupBy(["s.listing_id", "s.offered_units", "s.available_units", "s.reserved_units", "s.sold_units"])
    .orderBy("s.listing_id")
    .execute();
}

function findingsOf(row: Counted): string[] {
  const findings: string[] = [];
  const differs = (what: string, has: number, reservations: string, should: number) => {
    if (has !== should) {
      findings.push(`Listing ${row.listing_id} has ${has} ${what} units, and its ${reservations} reservations have ${should}.`);
    }
  };
  differs("reserved", row.reserved_units, "pending", Number(row.pending));
  differs("sold", row.sold_units, "committed", Number(row.committed));
  const counted = row.available_units + row.reserved_units + row.sold_units;
  if (row.available_units < 0 || counted !== row.offered_units) {
    findings.push(
      `Listing ${row.listing_id} offered ${row.offered_units} units and counts ${counted}, ${row.available_units} of them available.`,
    );
  }
  return findings;
}
