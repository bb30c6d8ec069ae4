import type { MessageInitShape } from "@bufbuild/protobuf";
import type { HandlerContext } from "@connectrpc/connect";
import type {
  BatchGetListingsRequest,
  BatchGetListingsResponseSchema,
  ListBrandsRequest,
  ListBrandsResponseSchema,
  Listing,
  ListSellerListingsRequest,
  ListSellerListingsResponseSchema,
  ScanListingsRequest,
  ScanListingsResponseSchema,
} from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { accountIfAny, accountOf, type Call, callOf } from "#runtime/call.ts";
import { fail } from "#runtime/errors.ts";
import { afterPosition, cutPage, type PageTokens, type PageValue, pageSizeOf, type SortColumn } from "#runtime/pages.ts";
import { pageOfBrands } from "./brands.ts";
import type { CatalogDatabase } from "./entities.ts";
import { LISTING_NOT_FOUND } from "./errors.ts";
import { maySee, type ReadRow, readColumns, toListing } from "./listings.ts";
import { allStates, publicStates, type State, stateFromProto } from "./states.ts";

const PAGE = { standard: 20, max: 100 };
const SCAN_PAGE = { standard: 500, max: 1_000 };
const NEWEST_FIRST: readonly SortColumn<"create_time" | "listing_id">[] = [
  { column: "create_time", direction: "desc" },
  { column: "listing_id", direction: "desc" },
];

/** The catalog's questions. Hot ones, so each is one statement by Kysely on an index that answers it. */
export function catalogReads(database: Pick<CatalogDatabase, "sql">, pages: PageTokens) {
  // Compiled once: building the statement costs more than running it.
  const point = database.sql.selectFrom("listing").select(readColumns).where("listing_id", "=", "").compile();

  const pageOfState = (sellerId: string, state: State, after: PageValue[] | undefined, limit: number): Promise<ReadRow[]> => {
    // By the index listing_seller: each state is a run of rows in the order asked for, so nothing is sorted and nothing skipped.
    let query = database.sql.selectFrom("listing").select(readColumns).where("seller_id", "=", sellerId).where("state", "=", state);
    if (after !== undefined) {
      // The first condition bounds the walk over the index; the second one is exact.
      query = query.where("create_time", "<=", after[0] as number).where((eb) => afterPosition(eb, NEWEST_FIRST, after));
    }
    return query.orderBy("create_time", "desc").orderBy("listing_id", "desc").limit(limit).execute();
  };

  return {
    /** One listing, by the primary key. */
    async getListing(call: Call, listingId: string): Promise<Listing> {
      const { rows } = await database.sql.executeQuery<ReadRow>({ ...point, parameters: [listingId] });
      const [row] = rows;
      if (row === undefined || !maySee(call, row)) {
        return fail(LISTING_NOT_FOUND, { metadata: { listing_id: listingId } });
      }
      return toListing(row);
    },

    async batchGetListings(
      call: Call,
      request: BatchGetListingsRequest,
    ): Promise<MessageInitShape<typeof BatchGetListingsResponseSchema>> {
      const rows = await database.sql
        .selectFrom("listing")
        .select(readColumns)
        .where("listing_id", "in", request.listingIds)
        .execute();
      const byId = new Map(rows.map((row) => [row.listing_id, row]));
      const listings: Listing[] = [];
      const missingListingIds: string[] = [];
      for (const listingId of request.listingIds) {
        const row = byId.get(listingId);
        if (row === undefined || !maySee(call, row)) {
          missingListingIds.push(listingId);
        } else {
          listings.push(toListing(row));
        }
      }
      return { listings, missingListingIds };
    },

    async listSellerListings(
      request: ListSellerListingsRequest,
      context: HandlerContext,
    ): Promise<MessageInitShape<typeof ListSellerListingsResponseSchema>> {
      const call = callOf(context);
      const sellerId = request.sellerId || accountOf(call);
      const size = pageSizeOf(request, PAGE);
      const after = pages.decode(context.method, request);
      const visible = accountIfAny(call) === sellerId ? allStates : publicStates;
      const asked = request.states.map(stateFromProto);
      const states = visible.filter((state) => asked.length === 0 || asked.includes(state));
      const runs = await Promise.all(states.map((state) => pageOfState(sellerId, state, after, size + 1)));
      const merged = runs
        .flat()
        .sort(newestFirst)
        .slice(0, size + 1);
      const { rows, nextPageToken } = cutPage(merged, size, (last) =>
        pages.encode(context.method, request, [last.create_time, last.listing_id]),
      );
      return { listings: rows.map(toListing), nextPageToken };
    },

    async scanListings(
      request: ScanListingsRequest,
      context: HandlerContext,
    ): Promise<MessageInitShape<typeof ScanListingsResponseSchema>> {
      const size = pageSizeOf(request, SCAN_PAGE);
      const after = pages.decode(context.method, request);
      // By the index listing_scan. The sequence is read in the same statement, so that listing and sequence are of one moment.
      const found = await database.sql
        .selectFrom("listing")
        .innerJoin("sequence", (join) =>
          join.onRef("sequence.aggregate_id", "=", "listing.listing_id").on("sequence.aggregate_type", "=", "listing"),
        )
        .select([...readColumns.map((column) => `listing.${column}` as const), "sequence.value as event_sequence"])
        .where("listing.state", "=", "ACTIVE")
        .$if(after !== undefined, (query) => query.where("listing.listing_id", ">", after?.[0] as string))
        .orderBy("listing.listing_id")
        .limit(size + 1)
        .execute();
      const { rows, nextPageToken } = cutPage(found, size, (last) => pages.encode(context.method, request, [last.listing_id]));
      return {
        listings: rows.map((row) => ({ listing: toListing(row), sequence: BigInt(row.event_sequence) })),
        nextPageToken,
      };
    },

    async listBrands(
      request: ListBrandsRequest,
      context: HandlerContext,
    ): Promise<MessageInitShape<typeof ListBrandsResponseSchema>> {
      const size = pageSizeOf(request, PAGE);
      const after = pages.decode(context.method, request);
      const found = await pageOfBrands(database.sql, request.prefix, String(after?.[0] ?? ""), size + 1);
      const { rows, nextPageToken } = cutPage(found, size, (last) => pages.encode(context.method, request, [last.brand_key]));
      return { brands: rows.map(({ name }) => ({ name })), nextPageToken };
    },
  };
}

function newestFirst(a: ReadRow, b: ReadRow): number {
  return b.create_time - a.create_time || (a.listing_id < b.listing_id ? 1 : -1);
}
