import { create, type DescMessage, type MessageShape } from "@bufbuild/protobuf";
import { type CallOptions, type Client, ConnectError, type HandlerContext } from "@connectrpc/connect";
import {
  type BatchCreateListingsRequest,
  type BatchCreateListingsResponse,
  BatchCreateListingsResponseSchema,
  type CreateListingRequest,
  type CreateListingResponse,
  CreateListingResponseSchema,
  type CreateResult,
  CreateResultSchema,
  type PublishListingRequest,
  type PublishListingResponse,
  PublishListingResponseSchema,
} from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import type { InventoryService } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import { accountOf, type Call, callOf } from "#runtime/call.ts";
import { fail, INVALID_REQUEST, reasonOf, UNAVAILABLE } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import type { JobHandler } from "#runtime/jobs/jobs.ts";
import { change, deciding, loadOwn, requireEditable } from "./changes.ts";
import { type Drafted, insertListings, type Wanted } from "./create.ts";
import type { CatalogDatabase, CatalogTransaction, CreationMethod, ListingRow } from "./entities.ts";
import { NOT_YOUR_LISTING } from "./errors.ts";
import { toListing } from "./listings.ts";
import { activate } from "./publish.ts";
import { stateToProto } from "./states.ts";
import { CREATE_JOB, type Creation, close, listingIdsOf, load, note, offerOf } from "./under-way.ts";

/** How often that job is tried before a person must look. */
const FINISH_ATTEMPTS_MAX = 20;
/** How often PublishListing finishes another's publication of its listing before it gives up. */
const HELPS_MAX = 5;
/** The longest message of a result in a batch. */
const MESSAGE_MAX = 1_000;
/** Said by inventory: it has taken none of the units and never will. */
const refusals: readonly (string | undefined)[] = [INVALID_REQUEST.name, NOT_YOUR_LISTING.name];

/** Creates listings. `drafts` are what the request asks for, in its order; `options` go with the call to inventory. */
export interface Creations {
  /** Serves CreateListing. */
  one(
    request: CreateListingRequest,
    context: HandlerContext,
    drafts: readonly [Drafted],
    options: CallOptions,
  ): Promise<CreateListingResponse>;
  /** Serves BatchCreateListings. */
  many(
    request: BatchCreateListingsRequest,
    context: HandlerContext,
    drafts: readonly Drafted[],
    options: CallOptions,
  ): Promise<BatchCreateListingsResponse>;
  /** Serves PublishListing. */
  publish(request: PublishListingRequest, context: HandlerContext, options: CallOptions): Promise<PublishListingResponse>;
  readonly job: JobHandler;
}

/** Another command is publishing this draft. */
class UnderWay extends Error {
  readonly creationId: string;

  constructor(creationId: string) {
    super("another command is publishing this draft");
    this.creationId = creationId;
  }
}

/**
 * Drafts are created, and answered, in one transaction. To be published they take three steps: the first transaction claims the request_id, decides
 * everything and leaves drafts that nobody can change, inventory is told of their units, the last transaction makes them active and answers.
 */
export function creations(database: CatalogDatabase, inventory: Client<typeof InventoryService>): Creations {
  /** The second step and the third. Gives inventory's refusal, after which nothing is left of the creation. */
  const complete = async (creation: Creation, options: CallOptions): Promise<ConnectError | undefined> => {
    try {
      await inventory.batchSetUnits(creation.offer, options);
    } catch (error) {
      if (!(error instanceof ConnectError && refusals.includes(reasonOf(error)))) {
        throw error;
      }
      await database.transaction((tx) => abandon(tx, creation));
      return error;
    }
    await database.transaction((tx) => finish(tx, creation));
    return undefined;
  };
  /** All three steps, begun by `first`. */
  const serve = async <D extends DescMessage>(
    output: D,
    request: CreateListingRequest | BatchCreateListingsRequest | PublishListingRequest,
    context: HandlerContext,
    options: CallOptions,
    first: (tx: CatalogTransaction, requestKey: string) => Promise<Creation | undefined>,
  ): Promise<MessageShape<D>> => {
    const claimed = await database.claim(request, context, output, first);
    if (!claimed.first) {
      return claimed.answer;
    }
    const refusal = claimed.value && (await complete(claimed.value, options));
    if (refusal !== undefined) {
      throw refusal;
    }
    const answer = await database.awaitAnswer(claimed.requestKey, output, callOf(context));
    return answer ?? fail(UNAVAILABLE);
  };
  const create = <D extends DescMessage>(
    method: CreationMethod,
    output: D,
    request: CreateListingRequest | BatchCreateListingsRequest,
    context: HandlerContext,
    drafts: readonly Drafted[],
    options: CallOptions,
  ): Promise<MessageShape<D>> =>
    serve(output, request, context, options, (tx, requestKey) => {
      const wanted = { sellerId: accountOf(callOf(context)), drafts, creationId: request.publish ? newId() : null };
      return begin(tx, requestKey, method, wanted);
    });
  const publish: Creations["publish"] = async (request, context, options) => {
    const call = callOf(context);
    for (let help = 1; help <= HELPS_MAX; help++) {
      try {
        return await serve(PublishListingResponseSchema, request, context, options, (tx, requestKey) =>
          deciding(() => beginPublish(tx, requestKey, call, request.listingId)),
        );
      } catch (error) {
        if (!(error instanceof UnderWay)) {
          throw error;
        }
        // Nothing was claimed. The other's publication is brought to its end, which this one's is then.
        const other = await load(database.sql, error.creationId);
        if (other !== undefined) {
          await complete(other, options);
        }
      }
    }
    return fail(UNAVAILABLE, { message: "Others are publishing this listing. Try again.", retryAfterMs: 200 });
  };
  return {
    one: (...call) => create("CreateListing", CreateListingResponseSchema, ...call),
    many: (...call) => create("BatchCreateListings", BatchCreateListingsResponseSchema, ...call),
    publish,
    job: {
      kind: CREATE_JOB,
      maxAttempts: FINISH_ATTEMPTS_MAX,
      async run({ key, signal }) {
        const creation = await load(database.sql, key);
        if (creation !== undefined) {
          await complete(creation, { signal });
        }
      },
    },
  };
}

/** Answers, if there is nothing to publish; else writes down what is to be done. A single listing that cannot be created fails the command. */
async function begin(
  tx: CatalogTransaction,
  requestKey: string,
  method: CreationMethod,
  wanted: Wanted,
): Promise<Creation | undefined> {
  const { sellerId, creationId } = wanted;
  const created = await insertListings(tx, wanted);
  const [first] = created;
  if (method === "CreateListing" && first instanceof ConnectError) {
    throw first;
  }
  const results = created.map((each) => (each instanceof ConnectError ? failed(each) : resultOf(each.row, each.alreadyExisted)));
  const rows: ListingRow[] = [];
  const listings: { listingId: string; units: number }[] = [];
  for (const each of created) {
    if (!(each instanceof ConnectError)) {
      rows.push(each.row);
      if (!each.alreadyExisted) {
        listings.push({ listingId: each.row.listing_id, units: each.row.offered_units });
      }
    }
  }
  if (creationId === null || listings.length === 0) {
    answer(tx, { requestKey, method, results }, rows);
    return undefined;
  }
  return note(tx, { creationId, requestKey, method, offer: offerOf(creationId, sellerId, listings), results });
}

/** The first step of PublishListing: the draft is nobody else's from here on. Answers where the listing is active already. */
async function beginPublish(
  tx: CatalogTransaction,
  requestKey: string,
  call: Call,
  listingId: string,
): Promise<Creation | undefined> {
  const row = await loadOwn(tx, call, listingId);
  if (row.creation_id != null && (await load(tx.sql, row.creation_id))?.method === "PublishListing") {
    throw new UnderWay(row.creation_id);
  }
  requireEditable(row);
  if (row.state === "ACTIVE") {
    tx.answer(requestKey, PublishListingResponseSchema, { listing: toListing(row) });
    return undefined;
  }
  const creationId = newId();
  await change(tx, row, { creation_id: creationId });
  const offer = offerOf(creationId, row.seller_id, [{ listingId, units: row.offered_units }]);
  return note(tx, { creationId, requestKey, method: "PublishListing", offer, results: [resultOf(row, true)] });
}

/** The last step, unless somebody else has taken it. */
async function finish(tx: CatalogTransaction, creation: Creation): Promise<void> {
  if (await close(tx, creation)) {
    answer(tx, creation, await activate(tx, listingIdsOf(creation), creation.creationId));
  }
}

/** Takes everything back: inventory wants none of it. What was a draft before is one again. The command counts as never given, so that a repeat tries again. */
async function abandon(tx: CatalogTransaction, creation: Creation): Promise<void> {
  if (!(await close(tx, creation))) {
    return;
  }
  const ids = listingIdsOf(creation);
  if (creation.method === "PublishListing") {
    await tx.sql
      .updateTable("listing")
      .set((eb) => ({ creation_id: null, update_time: tx.now, version: eb("version", "+", 1) }))
      .where("listing_id", "in", ids)
      .where("creation_id", "=", creation.creationId)
      .execute();
  } else {
    await tx.sql.deleteFrom("listing").where("listing_id", "in", ids).where("creation_id", "=", creation.creationId).execute();
  }
  tx.forget(creation.requestKey);
}

/** Stores the answer: as it was decided, with the listings of `rows` as they are now. */
function answer(
  tx: CatalogTransaction,
  { requestKey, method, results }: Pick<Creation, "requestKey" | "method" | "results">,
  rows: readonly ListingRow[],
): void {
  const now = new Map(rows.map((row) => [row.listing_id, row]));
  if (method === "BatchCreateListings") {
    const current = results.map((result) => {
      const row = now.get(result.listingId);
      return row === undefined ? result : resultOf(row, result.alreadyExisted);
    });
    tx.answer(requestKey, BatchCreateListingsResponseSchema, { results: current });
    return;
  }
  for (const { listingId, alreadyExisted } of results) {
    const listing = toListing(now.get(listingId) as ListingRow);
    if (method === "PublishListing") {
      tx.answer(requestKey, PublishListingResponseSchema, { listing });
    } else {
      tx.answer(requestKey, CreateListingResponseSchema, { listing, alreadyExisted });
    }
  }
}

function resultOf(row: ListingRow, alreadyExisted: boolean): CreateResult {
  const { listing_id: listingId, state, version } = row;
  return create(CreateResultSchema, { listingId, state: stateToProto(state), etag: String(version), alreadyExisted });
}

function failed(error: ConnectError): CreateResult {
  return create(CreateResultSchema, { reason: reasonOf(error) ?? "", message: error.rawMessage.slice(0, MESSAGE_MAX) });
}
