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
import { Cache } from "#runtime/cache/cache.ts";
import { MemoryStore } from "#runtime/cache/memory-store.ts";
import { cacheStores, type OpenCacheStore } from "#runtime/cache/stores.ts";
import { accountIfAny, accountOf, type Call, callOf, isOperator, isService } from "#runtime/call.ts";
import { compiled } from "#runtime/database/compiled.ts";
import { fail } from "#runtime/errors.ts";
import { cutPage, type PageTokens, pageSizeOf } from "#runtime/pages.ts";
import { pageOfBrands } from "./brands.ts";
import type { CatalogDatabase } from "./entities.ts";
import { LISTING_NOT_FOUND } from "./errors.ts";
import { type ReadRow, readColumns, toListing } from "./listings.ts";
import { packedRow, unpack } from "./packed.ts";
import { isShown, publicView } from "./public-view.ts";
import { sellerPages } from "./seller-page.ts";
import { allStates, publicStates, stateFromProto } from "./states.ts";

const PAGE = { standard: 20, max: 100 };
const SCAN_PAGE = { standard: 500, max: 1_000 };

/** How long pages of brands are remembered, in the process. */
const BRANDS_TTL_MS = 30_000;
const BRANDS_MAX_BYTES = 4 * 1024 * 1024;

type BrandPage = Awaited<ReturnType<typeof pageOfBrands>>;

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
  const many = (listingIds: readonly string[]) => sql.selectFrom("listing").where("listing_id", "in", listingIds);
  const batch = batches((listingIds) => many(listingIds).select(packedRow.as("packed")));
  const pageOf = sellerPages(sql);
  /** The listings that are there, in any order. */
  const read = async (listingIds: readonly string[]): Promise<readonly Listing[]> => {
    const [listingId] = listingIds;
    if (listingIds.length === 1 && listingId !== undefined) {
      return (await sql.executeQuery(point({ listingId }))).rows.map(toListing);
    }
    const { rows } = await sql.executeQuery(batch(listingIds));
    const listings: Listing[] = [];
    for (const { packed } of rows) {
      const listing = unpack(packed);
      if (listing !== undefined) listings.push(listing);
    }
    if (listings.length < rows.length) {
      const there = new Set(listings.map(({ listingId }) => listingId));
      const others = await many(listingIds.filter((id) => !there.has(id)))
        .select(readColumns)
        .execute();
      listings.push(...others.map(toListing));
    }
    return listings;
  };
  // Brands are never changed and never removed; that a new one is missing for a moment is less than what the contract lets clients remember.
  const brandPages = new Cache({
    name: "brands",
    format: 1,
    observer: database.observer,
    store: new MemoryStore<BrandPage>({ maxBytes: BRANDS_MAX_BYTES, sizeOf: (page) => 200 * page.length }),
    load: async ([key = ""]) => {
      const [prefix, afterKey, limit] = JSON.parse(key) as [string, string, number];
      const value = await pageOfBrands(sql, prefix, afterKey, limit);
      return new Map([[key, { value, version: 0, ttlMs: BRANDS_TTL_MS }]]);
    },
  });
  const view = publicView(database, openCacheStore, read);

  const fromTable = async (listingIds: readonly string[]): Promise<readonly (Listing | undefined)[]> => {
    const listings = await read(listingIds);
    if (listingIds.length === 1) return listings;
    const byId = new Map(listings.map((listing) => [listing.listingId, listing]));
    return listingIds.map((listingId) => byId.get(listingId));
  };

  /** What the caller may see of the listings, in the order of the ids. */
  const visible = async (call: Call, listingIds: readonly string[]): Promise<readonly (Listing | undefined)[]> => {
    if (isService(call) || isOperator(call)) return fromTable(listingIds);
    const account = accountIfAny(call);
    const seen = await view.get(listingIds);
    const ownIds = listingIds.filter((_, index) => seen[index]?.sellerId === account);
    const own = ownIds.length === 0 ? [] : await fromTable(ownIds);
    let next = 0;
    return seen.map((listing) => (listing.sellerId === account ? own[next++] : isShown(listing) ? listing : undefined));
  };

  return {
    /** Hears of changes that the process which made them could not tell the cache. */
    consumer: view.consumer,
    close: view.close,

    /** One listing, by the primary key. */
    async getListing(call: Call, listingId: string): Promise<Listing> {
      const [listing] = await visible(call, [listingId]);
      return listing ?? fail(LISTING_NOT_FOUND, { metadata: { listing_id: listingId } });
    },

    async batchGetListings(
      call: Call,
      request: BatchGetListingsRequest,
    ): Promise<MessageInitShape<typeof BatchGetListingsResponseSchema>> {
      const found = await visible(call, request.listingIds);
      const listings: Listing[] = [];
      const missingListingIds: string[] = [];
      for (const [index, listingId] of request.listingIds.entries()) {
        const listing = found[index];
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
      // What everybody may see may be some seconds old; the seller sees what they have just done.
      const found = (await (visible === allStates ? sql : database.stale).executeQuery(query)).rows;
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
      const [found = []] = await brandPages.get([JSON.stringify([request.prefix, after?.[0] ?? "", size + 1])]);
      const { rows, nextPageToken } = cutPage(found, size, (last) => pages.encode(context.method, request, [last.brand_key]));
      return { brands: rows.map(({ name }) => ({ name })), nextPageToken };
    },
  };
}

/** Statements for any number of ids, compiled once for each number. */
function batches<R>(build: (listingIds: readonly string[]) => Compilable<R>): (listingIds: readonly string[]) => CompiledQuery<R> {
  const byCount = new Map<number, CompiledQuery<R>>();
  return (listingIds) => {
    let query = byCount.get(listingIds.length);
    if (query === undefined) {
      query = build(listingIds).compile();
      byCount.set(listingIds.length, query);
    }
    return { ...query, parameters: listingIds };
  };
}
