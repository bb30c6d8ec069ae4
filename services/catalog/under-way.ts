import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import type { Kysely } from "kysely";
import { BatchCreateListingsResponseSchema, type CreateResult } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { type BatchSetUnitsRequest, BatchSetUnitsRequestSchema } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import type { CatalogTables, CatalogTransaction, CreationMethod } from "./entities.ts";

/** The job that finishes a creation whose process died. */
export const CREATE_JOB = "catalog.create";
/** When that job looks; a repeat of the call waits for it. */
const FINISH_AFTER_MS = 2_000;

/** A publication, of new listings or of a draft, between its first transaction and its last. */
export interface Creation {
  readonly creationId: string;
  readonly requestKey: string;
  readonly method: CreationMethod;
  /** What inventory is to be told of the listings that become active. */
  readonly offer: BatchSetUnitsRequest;
  /** What was decided of each listing. The new ones are drafts in it. */
  readonly results: readonly CreateResult[];
}

/** What inventory is told: under one key, however often. */
export function offerOf(
  creationId: string,
  sellerId: string,
  listings: { listingId: string; units: number }[],
): BatchSetUnitsRequest {
  return create(BatchSetUnitsRequestSchema, { requestId: `${creationId}/publish`, sellerId, listings });
}

/** Writes down what is to be done, and who does it if this process dies. */
export async function note(tx: CatalogTransaction, creation: Creation): Promise<Creation> {
  const { creationId, requestKey, method, offer, results } = creation;
  await tx.sql
    .insertInto("creation")
    .values({
      creation_id: creationId,
      request_key: requestKey,
      method,
      offer: toBinary(BatchSetUnitsRequestSchema, offer) as Buffer,
      results: toBinary(
        BatchCreateListingsResponseSchema,
        create(BatchCreateListingsResponseSchema, { results: [...results] }),
      ) as Buffer,
    })
    .execute();
  tx.schedule({ kind: CREATE_JOB, key: creationId, dueTime: tx.now + FINISH_AFTER_MS });
  return creation;
}

/** What is written down of a creation; undefined once it has ended. */
export async function load(sql: Kysely<CatalogTables>, creationId: string): Promise<Creation | undefined> {
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

/** Ends the creation for everybody who works at it. False: somebody else has. */
export async function close(tx: CatalogTransaction, { creationId }: Creation): Promise<boolean> {
  const result = await tx.sql.deleteFrom("creation").where("creation_id", "=", creationId).executeTakeFirst();
  tx.unschedule({ kind: CREATE_JOB, key: creationId });
  return result.numDeletedRows === 1n;
}

/** The listings that it makes active. */
export function listingIdsOf({ offer }: Creation): string[] {
  return offer.listings.map(({ listingId }) => listingId);
}
