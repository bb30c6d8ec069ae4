import { ConnectError } from "@connectrpc/connect";
import {
  BatchCreateListingsResponseSchema,
  CatalogService,
  CreateListingResponseSchema,
  type ListingDraft,
  ListingDraftSchema,
} from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { InventoryService } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import type { OpenCacheStore } from "#runtime/cache/stores.ts";
import { accountOf, callOf } from "#runtime/call.ts";
import { type Clients, forCall } from "#runtime/clients.ts";
import { failure, INVALID_REQUEST, reasonOf } from "#runtime/errors.ts";
import type { PageTokens } from "#runtime/pages.ts";
import type { ServiceModule } from "#runtime/service.ts";
import { createValidation } from "#runtime/validation.ts";
import { seedBrands } from "./brands.ts";
import { categoryTree } from "./categories.ts";
import { deciding } from "./changes.ts";
import { type Contents, contentsOf } from "./contents.ts";
import { type Created, conflictError, insertListings, offerUnits, plan } from "./create.ts";
import { categories as categoryRows } from "./data/categories.ts";
import type { CatalogDatabase } from "./entities.ts";
import { toListing } from "./listings.ts";
import { publishing } from "./publish.ts";
import { catalogReads } from "./reads.ts";
import { stateToProto } from "./states.ts";
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

/** The longest message of a result in a batch. */
const MESSAGE_MAX = 1_000;

/** The catalog: what is offered, by whom, in which condition, for how much. */
export function catalog({ database, clients, pages, openCacheStore }: CatalogDependencies): ServiceModule {
  const categories = categoryTree(categoryRows);
  const validation = createValidation([ListingDraftSchema]);
  const inventory = clients.of(InventoryService);
  const reads = catalogReads(database, pages, openCacheStore);
  const publish = publishing(database, inventory);
  const { withdraw, job: withdrawJob } = withdrawals(database, inventory);

  const contentsIn = (draft: ListingDraft): Contents | ConnectError => categories.problem(draft.categoryId) ?? contentsOf(draft);
  /** One of a batch: what is wrong with it is its own result. */
  const contentsAlone = (draft: ListingDraft): Contents | ConnectError => {
    const [violation] = validation.violations(ListingDraftSchema, draft);
    return violation === undefined
      ? contentsIn(draft)
      : failure(INVALID_REQUEST, { message: `${violation.field}: ${violation.description}` });
  };

  return {
    name: "catalog",
    database,
    consumers: [stockConsumer(database), reads.consumer],
    jobs: [withdrawJob],
    recurring: [],
    start: () => seedBrands(database),
    stop: async () => reads.close(),
    routes(router) {
      router.service(CatalogService, {
        async createListing(request, context) {
          const stored = await database.answered(request, context, CreateListingResponseSchema);
          if (stored !== undefined) {
            return stored;
          }
          const call = callOf(context);
          const contents = contentsIn(request.listing as ListingDraft);
          if (contents instanceof ConnectError) {
            throw contents;
          }
          const creation = plan(accountOf(call), request.publish, request.requestId, [contents]);
          await offerUnits(database, inventory, forCall(call, { asItself: true }), creation);
          return database.command(request, context, async (tx) => {
            const [created] = (await insertListings(tx, creation)) as [Created];
            if ("conflict" in created) {
              throw conflictError(created.conflict);
            }
            return { listing: toListing(created.row), alreadyExisted: created.alreadyExisted };
          });
        },

        async batchCreateListings(request, context) {
          const stored = await database.answered(request, context, BatchCreateListingsResponseSchema);
          if (stored !== undefined) {
            return stored;
          }
          const call = callOf(context);
          const drafts = request.listings.map(contentsAlone);
          const good = drafts.map((draft) => (draft instanceof ConnectError ? undefined : draft));
          const creation = plan(accountOf(call), request.publish, request.requestId, good);
          await offerUnits(database, inventory, forCall(call, { asItself: true }), creation);
          return database.command(request, context, async (tx) => {
            const created = (await insertListings(tx, creation)).values();
            const results = drafts.map((draft) =>
              draft instanceof ConnectError ? failedResult(draft) : resultOf(created.next().value as Created),
            );
            return { results };
          });
        },

        updateListing(request, context) {
          const call = callOf(context);
          return database.command(request, context, async (tx) => {
            const row = await deciding(() => updateListing(tx, call, categories, request));
            return { listing: toListing(row) };
          });
        },

        publishListing(request, context) {
          return publish(request, context, forCall(callOf(context), { asItself: true }));
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

function resultOf(created: Created) {
  if ("conflict" in created) {
    return failedResult(conflictError(created.conflict));
  }
  const { row, alreadyExisted } = created;
  return { listingId: row.listing_id, state: stateToProto(row.state), etag: String(row.version), alreadyExisted };
}

function failedResult(error: ConnectError) {
  return { reason: reasonOf(error) ?? "", message: error.rawMessage.slice(0, MESSAGE_MAX) };
}
