import { CatalogService, type ListingDraft, ListingDraftSchema } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { InventoryService } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import type { OpenCacheStore } from "#runtime/cache/stores.ts";
import { callOf } from "#runtime/call.ts";
import { type Clients, forCall } from "#runtime/clients.ts";
import { failure, INVALID_REQUEST } from "#runtime/errors.ts";
import type { PageTokens } from "#runtime/pages.ts";
import type { ServiceModule } from "#runtime/service.ts";
import { createValidation } from "#runtime/validation.ts";
import { seedBrands } from "./brands.ts";
import { categoryTree } from "./categories.ts";
import { deciding } from "./changes.ts";
import { contentsOf } from "./contents.ts";
import type { Drafted } from "./create.ts";
import { creations } from "./creations.ts";
import { categories as categoryRows } from "./data/categories.ts";
import type { CatalogDatabase } from "./entities.ts";
import { toListing } from "./listings.ts";
import { catalogReads } from "./reads.ts";
import { stockConsumer } from "./stock.ts";
import { updateListing } from "./update.ts";
import { withdrawals } from "./withdraw.ts";

/** What the catalog is made of. */
export interface CatalogDependencies {
  readonly database: CatalogDatabase;
  readonly clients: Clients;
  readonly pages: PageTokens;
  /** Where what was read is remembered; in the process unless given. */
  readonly openCacheStore?: OpenCacheStore;
}

/** The catalog: what is offered, by whom, in which condition, for how much. */
export function catalog({ database, clients, pages, openCacheStore }: CatalogDependencies): ServiceModule {
  const categories = categoryTree(categoryRows);
  const validation = createValidation([ListingDraftSchema]);
  const inventory = clients.of(InventoryService);
  const reads = catalogReads(database, pages, openCacheStore);
  const create = creations(database, inventory);
  const { withdraw, job: withdrawJob } = withdrawals(database, inventory);

  const contentsIn = (draft: ListingDraft): Drafted => categories.problem(draft.categoryId) ?? contentsOf(draft);
  /** One of a batch: what is wrong with it is its own result. */
  const contentsAlone = (draft: ListingDraft): Drafted => {
    const [violation] = validation.violations(ListingDraftSchema, draft);
    return violation === undefined
      ? contentsIn(draft)
      : failure(INVALID_REQUEST, { message: `${violation.field}: ${violation.description}` });
  };

  return {
    name: "catalog",
    database,
    consumers: [stockConsumer(database), reads.consumer],
    jobs: [create.job, withdrawJob],
    recurring: [],
    start: () => seedBrands(database),
    stop: async () => reads.close(),
    routes(router) {
      router.service(CatalogService, {
        createListing(request, context) {
          const drafts = [contentsIn(request.listing as ListingDraft)] as const;
          return create.one(request, context, drafts, forCall(callOf(context), { asItself: true }));
        },

        batchCreateListings(request, context) {
          const drafts = request.listings.map(contentsAlone);
          return create.many(request, context, drafts, forCall(callOf(context), { asItself: true }));
        },

        updateListing(request, context) {
          const call = callOf(context);
          return database.command(request, context, async (tx) => {
            const row = await deciding(() => updateListing(tx, call, categories, request));
            return { listing: toListing(row) };
          });
        },

        publishListing(request, context) {
          return create.publish(request, context, forCall(callOf(context), { asItself: true }));
        },

        withdrawListing(request, context) {
          return withdraw(request, context, forCall(callOf(context), { asItself: true }));
        },

        async getListing(request, context) {
          return { listing: await reads.getListing(callOf(context), request.listingId) };
        },

        batchGetListings(request, context) {
          return reads.batchGetListings(callOf(context), request);
        },

        listSellerListings: reads.listSellerListings,
        scanListings: reads.scanListings,

        listCategories() {
          return { categories: [...categories.all] };
        },

        listBrands: reads.listBrands,
      });
    },
  };
}
