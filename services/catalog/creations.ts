import { create, type DescMessage, fromBinary, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { type CallOptions, type Client, ConnectError, type HandlerContext } from "@connectrpc/connect";
import type { Kysely } from "kysely";
import {
  type BatchCreateListingsRequest,
  type BatchCreateListingsResponse,
  BatchCreateListingsResponseSchema,
  type CreateListingRequest,
  type CreateListingResponse,
  CreateListingResponseSchema,
  type CreateResult,
  CreateResultSchema,
} from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import {
  type BatchSetUnitsRequest,
  BatchSetUnitsRequestSchema,
  type InventoryService,
} from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import { accountOf, callOf } from "#runtime/call.ts";
import { fail, INVALID_REQUEST, reasonOf, UNAVAILABLE } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import type { JobHandler } from "#runtime/jobs/jobs.ts";
import { type Drafted, insertListings, type Wanted } from "./create.ts";
import type { CatalogDatabase, CatalogTables, CatalogTransaction, CreationMethod, ListingRow } from "./entities.ts";
import { NOT_YOUR_LISTING } from "./errors.ts";
import { toListing } from "./listings.ts";
import { activate } from "./publish.ts";
import { stateToProto } from "./states.ts";

/** The job that finishes a creation whose process died. */
export const CREATE_JOB = "catalog.create";
/** When that job looks; a repeat of the call waits for it. */
const FINISH_AFTER_MS = 2_000;
const FINISH_ATTEMPTS_MAX = 20;
/** The longest message of a result in a batch. */
const MESSAGE_MAX = 1_000;
/** Said by inventory: it has taken none of the units and never will. */
const refusals: readonly (string | undefined)[] = [INVALID_REQUEST.name, NOT_YOUR_LISTING.name];

/** A creation between its first transaction and its last. */
interface Creation {
  readonly creationId: string;
  readonly requestKey: string;
  readonly method: CreationMethod;
  /** What inventory is to be told of the new listings. */
  readonly offer: BatchSetUnitsRequest;
  /** What was decided of each listing. The new ones are drafts in it. */
  readonly results: readonly CreateResult[];
}

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
  readonly job: JobHandler;
}

/**
 * Drafts are created, and answered, in one transaction. To be published they take three steps: the first transaction decides everything and
 * inserts drafts that nobody can change, inventory is told of their units, the last transaction makes them active and answers.
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
  const serve = async <D extends DescMessage>(
    method: CreationMethod,
    output: D,
    request: CreateListingRequest | BatchCreateListingsRequest,
    context: HandlerContext,
    drafts: readonly Drafted[],
    options: CallOptions,
  ): Promise<MessageShape<D>> => {
    const call = callOf(context);
    const claimed = await database.claim(request, context, output, (tx, requestKey) => {
      const wanted = { sellerId: accountOf(call), drafts, creationId: request.publish ? newId() : null };
      return begin(tx, requestKey, method, wanted);
    });
    if (!claimed.first) {
      return claimed.answer;
    }
    const refusal = claimed.value && (await complete(claimed.value, options));
    if (refusal !== undefined) {
      throw refusal;
    }
    const answer = await database.awaitAnswer(claimed.requestKey, output, call);
    return answer ?? fail(UNAVAILABLE);
  };
  return {
    one: (...call) => serve("CreateListing", CreateListingResponseSchema, ...call),
    many: (...call) => serve("BatchCreateListings", BatchCreateListingsResponseSchema, ...call),
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
  const offer = create(BatchSetUnitsRequestSchema, { requestId: `${creationId}/publish`, sellerId, listings });
  await tx.sql
    .insertInto("creation")
    .values({
      creation_id: creationId,
      request_key: requestKey,
      method,
      offer: toBinary(BatchSetUnitsRequestSchema, offer) as Buffer,
      results: toBinary(BatchCreateListingsResponseSchema, create(BatchCreateListingsResponseSchema, { results })) as Buffer,
    })
    .execute();
  tx.schedule({ kind: CREATE_JOB, key: creationId, dueTime: tx.now + FINISH_AFTER_MS });
  return { creationId, requestKey, method, offer, results };
}

async function load(sql: Kysely<CatalogTables>, creationId: string): Promise<Creation | undefined> {
  const row = await sql.selectFrom("creation").selectAll().where("creation_id", "=", creationId).executeTakeFirst();
  return (
    row && {
      creationId,
      requestKey: row.request_key,
      method: row.method,
      offer: fromBinary(BatchSetUnitsRequestSchema, row.offer),
      results: fromBinary(BatchCreateListingsResponseSchema, row.results).results,
    }
  );
}

/** The last step, unless somebody else has taken it. */
async function finish(tx: CatalogTransaction, creation: Creation): Promise<void> {
  if (await close(tx, creation)) {
    answer(tx, creation, await activate(tx, listingIdsOf(creation), creation.creationId));
  }
}

/** Takes everything back: inventory wants none of it. The command counts as never given, so that a repeat tries again. */
async function abandon(tx: CatalogTransaction, creation: Creation): Promise<void> {
  if (await close(tx, creation)) {
    await tx.sql
      .deleteFrom("listing")
      .where("listing_id", "in", listingIdsOf(creation))
      .where("creation_id", "=", creation.creationId)
      .execute();
    tx.forget(creation.requestKey);
  }
}

/** Ends the creation for everybody who works at it. False: somebody else has. */
async function close(tx: CatalogTransaction, { creationId }: Creation): Promise<boolean> {
  const result = await tx.sql.deleteFrom("creation").where("creation_id", "=", creationId).executeTakeFirst();
  tx.unschedule({ kind: CREATE_JOB, key: creationId });
  return result.numDeletedRows === 1n;
}

function listingIdsOf({ offer }: Creation): string[] {
  return offer.listings.map(({ listingId }) => listingId);
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
    tx.answer(requestKey, CreateListingResponseSchema, { listing, alreadyExisted });
  }
}

function resultOf(row: ListingRow, alreadyExisted: boolean): CreateResult {
  const { listing_id: listingId, state, version } = row;
  return create(CreateResultSchema, { listingId, state: stateToProto(state), etag: String(version), alreadyExisted });
}

function failed(error: ConnectError): CreateResult {
  return create(CreateResultSchema, { reason: reasonOf(error) ?? "", message: error.rawMessage.slice(0, MESSAGE_MAX) });
}
