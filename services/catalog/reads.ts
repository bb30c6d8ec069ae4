import type { MessageInitShape } from "@bufbuild/protobuf";
import type { HandlerContext } from "@connectrpc/connect";
import type { Compilable, CompiledQuery } from "kysely";
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
import { cacheStores, type OpenCacheStore } from "#runtime/cache/stores.ts";
import { accountIfAny, accountOf, type Call, callOf, isOperator, isService } from "#runtime/call.ts";
import { compiled } from "#runtime/database/compiled.ts";
import { fail } from "#runtime/errors.ts";
import { afterPosition, cutPage, type PageTokens, pageSizeOf, type SortColumn } from "#runtime/pages.ts";
import { pageOfBrands } from "./brands.ts";
import type { CatalogDatabase } from "./entities.ts";
import { LISTING_NOT_FOUND } from "./errors.ts";
import { type ReadRow, readColumns, toListing } from "./listings.ts";
import { isShown, publicView } from "./public-view.ts";
import { allStates, publicStates, type State, stateFromProto } from "./states.ts";

const PAGE = { standard: 20, max: 100 };
const SCAN_PAGE = { standard: 500, max: 1_000 };
const NEWEST_FIRST: readonly SortColumn<"create_time" | "listing_id">[] = [
  { column: "create_time", direction: "desc" },
  { column: "listing_id", direction: "desc" },
];

/** The values of a statement for a page. */
interface PageOfSeller {
  readonly sellerId: string;
  readonly limit: number;
  /** The last row of the page before. */
  readonly time: number;
  readonly listingId: string;
}

/**
 * The catalog's questions. Hot ones, so each is one statement by Kysely on an index that answers it, compiled once. What the public sees of a listing is
 * remembered, for the public: sellers see their own as the table has them, and so do operators and services, who decide by what they read.
 */
export function catalogReads(
  database: CatalogDatabase,
  pages: PageTokens,
  openCacheStore: OpenCacheStore = cacheStores({ log: database.log }),
) {
  const { sql } = database;
  const select = () => sql.selectFrom("listing").select(readColumns);
  const point = compiled<{ listingId: string }, ReadRow>(({ listingId }) => select().where("listing_id", "=", listingId));
  const batch = batches((listingIds) => select().where("listing_id", "in", listingIds));
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
  const pageOf = ([first, ...others]: readonly [State, ...State[]], follows: boolean) => {
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

  const read = async (listingIds: readonly string[]): Promise<readonly ReadRow[]> => {
    const [listingId] = listingIds;
    const query = listingIds.length === 1 && listingId !== undefined ? point({ listingId }) : batch(listingIds);
    return (await sql.executeQuery(query)).rows;
  };
  const view = publicView(database, openCacheStore, read);

  /** What the caller may see of the listings, by id. */
  const visible = async (call: Call, listingIds: readonly string[]): Promise<Map<string, Listing>> => {
    const found = new Map<string, Listing>();
    let fromTable = listingIds;
    if (!isService(call) && !isOperator(call)) {
      const account = accountIfAny(call);
      const own: string[] = [];
      for (const [index, listing] of (await view.get(listingIds)).entries()) {
        const listingId = listingIds[index] as string;
        if (listing.sellerId === account) own.push(listingId);
        else if (isShown(listing)) found.set(listingId, listing);
      }
      fromTable = own;
    }
    if (fromTable.length > 0) {
      for (const row of await read(fromTable)) found.set(row.listing_id, toListing(row));
    }
    return found;
  };

  return {
    /** Hears of changes that the process which made them could not tell the cache. */
    consumer: view.consumer,
    close: view.close,

    /** One listing, by the primary key. */
    async getListing(call: Call, listingId: string): Promise<Listing> {
      const listing = (await visible(call, [listingId])).get(listingId);
      return listing ?? fail(LISTING_NOT_FOUND, { metadata: { listing_id: listingId } });
    },

    async batchGetListings(
      call: Call,
      request: BatchGetListingsRequest,
    ): Promise<MessageInitShape<typeof BatchGetListingsResponseSchema>> {
      const found = await visible(call, [...new Set(request.listingIds)]);
      const listings: Listing[] = [];
      const missingListingIds: string[] = [];
      for (const listingId of request.listingIds) {
        const listing = found.get(listingId);
        if (listing === undefined) {
          missingListingIds.push(listingId);
        } else {
          listings.push(listing);
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
      const [first, ...others] = visible.filter((state) => asked.length === 0 || asked.includes(state));
      if (first === undefined) {
        return { listings: [], nextPageToken: "" };
      }
      const [time = 0, last = ""] = (after ?? []) as [number, string];
      const query = pageOf([first, ...others], after !== undefined)({ sellerId, limit: size + 1, time, listingId: last });
      const found = (await sql.executeQuery(query)).rows;
      const { rows, nextPageToken } = cutPage(found, size, (last) =>
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

/** Statements for any number of ids, compiled once for each number. */
function batches(build: (listingIds: string[]) => Compilable<ReadRow>): (listingIds: readonly string[]) => CompiledQuery<ReadRow> {
  const byCount = new Map<number, CompiledQuery<ReadRow>>();
  return (listingIds) => {
    let query = byCount.get(listingIds.length);
    if (query === undefined) {
      query = build([...listingIds]).compile();
      byCount.set(listingIds.length, query);
    }
    return { ...query, parameters: listingIds };
  };
}
