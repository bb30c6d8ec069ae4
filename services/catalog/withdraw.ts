import type { CallOptions, Client, HandlerContext } from "@connectrpc/connect";
import {
  type Listing,
  type WithdrawListingRequest,
  type WithdrawListingResponse,
  WithdrawListingResponseSchema,
} from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { ListingWithdrawnSchema } from "#gen/marketplace/catalog/v1/events_pb.ts";
import type { InventoryService } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import { type Call, callOf } from "#runtime/call.ts";
import { fail, reasonOf } from "#runtime/errors.ts";
import type { JobHandler } from "#runtime/jobs/jobs.ts";
import { change, deciding, followUnits, loadOwn, requireEditable, tell } from "./changes.ts";
import type { CatalogDatabase, CatalogTransaction, ListingRow } from "./entities.ts";
import { UNITS_RESERVED } from "./errors.ts";
import { loadListing, toListing } from "./listings.ts";

/** The job that finishes a withdrawal whose process died. */
export const WITHDRAW_JOB = "catalog.withdraw";
/** When that job looks; a repeat of the call waits for it. */
const FINISH_AFTER_MS = 2_000;
const FINISH_ATTEMPTS_MAX = 20;

/** Withdraws listings. */
export interface Withdrawals {
  /** Serves WithdrawListing. `options` go with the call to inventory. */
  withdraw(
    request: WithdrawListingRequest,
    context: HandlerContext,
    options: CallOptions,
  ): Promise<WithdrawListingResponse | { listing: Listing }>;
  readonly job: JobHandler;
}

/**
 * A withdrawal is three steps: the intent on the row (its units do not move its state from then on), inventory gives up the units, the
 * listing is withdrawn. Without the intent the stock event of the second step would make the listing sold before the third.
 */
export function withdrawals(database: CatalogDatabase, inventory: Client<typeof InventoryService>): Withdrawals {
  const giveUpUnits = async (row: ListingRow, options: CallOptions): Promise<"given up" | "reserved"> => {
    try {
      // One key for the listing's whole life: it is withdrawn once. A refusal is not stored, so that a later try asks anew.
      const requestId = `${row.listing_id}/withdraw`;
      await inventory.setUnits(
        { requestId, listingId: row.listing_id, sellerId: row.seller_id, units: 0, refuseIfReserved: true },
        options,
      );
      return "given up";
    } catch (error) {
      if (reasonOf(error) === UNITS_RESERVED.name) {
        return "reserved";
      }
      throw error;
    }
  };
  return {
    async withdraw(request, context, options) {
      const call = callOf(context);
      const claimed = await database.claim(request, context, WithdrawListingResponseSchema, (tx, key) =>
        deciding(() => begin(tx, call, request.listingId, key)),
      );
      if (!claimed.first) {
        return claimed.answer;
      }
      const { requestKey, value: row } = claimed;
      if ((await giveUpUnits(row, options)) === "reserved") {
        await database.transaction((tx) => deciding(() => abandon(tx, row.listing_id, requestKey)));
        fail(UNITS_RESERVED, { metadata: { listing_id: row.listing_id } });
      }
      const finished = await database.transaction((tx) => deciding(() => finish(tx, row.listing_id, requestKey)));
      if (finished !== undefined) {
        return { listing: finished };
      }
      const answer = await database.awaitAnswer(requestKey, WithdrawListingResponseSchema, call);
      return answer ?? fail(UNITS_RESERVED, { metadata: { listing_id: row.listing_id } });
    },
    job: {
      kind: WITHDRAW_JOB,
      maxAttempts: FINISH_ATTEMPTS_MAX,
      async run({ key: listingId, signal }) {
        const row = await loadListing(database.sql, listingId);
        if (row?.withdraw_key == null) {
          return;
        }
        const key = row.withdraw_key;
        const end = (await giveUpUnits(row, { signal })) === "reserved" ? abandon : finish;
        await database.transaction(async (tx) => {
          await deciding<unknown>(() => end(tx, listingId, key));
        });
      },
    },
  };
}

async function begin(tx: CatalogTransaction, call: Call, listingId: string, key: string): Promise<ListingRow> {
  const row = await loadOwn(tx, call, listingId, { operators: true });
  if (row.state === "RESERVED") {
    fail(UNITS_RESERVED, { metadata: { listing_id: listingId } });
  }
  requireEditable(row);
  tx.schedule({ kind: WITHDRAW_JOB, key: listingId, dueTime: tx.now + FINISH_AFTER_MS });
  return change(tx, row, { withdraw_key: key });
}

/** The last step. Undefined when somebody else has taken it. */
async function finish(tx: CatalogTransaction, listingId: string, key: string): Promise<Listing | undefined> {
  const row = await loadListing(tx.sql, listingId);
  if (row === undefined || row.withdraw_key !== key) {
    return undefined;
  }
  const withdrawn = await change(tx, row, { state: "WITHDRAWN", withdraw_key: null });
  if (withdrawn.publish_time != null) {
    tell(tx, ListingWithdrawnSchema, withdrawn);
  }
  const listing = toListing(withdrawn);
  tx.answer(key, WithdrawListingResponseSchema, { listing });
  tx.unschedule({ kind: WITHDRAW_JOB, key: listingId });
  return listing;
}

/** Takes the intent back: a buyer's order came first. The command counts as never given, so that a repeat tries again. */
async function abandon(tx: CatalogTransaction, listingId: string, key: string): Promise<void> {
  const row = await loadListing(tx.sql, listingId);
  if (row === undefined || row.withdraw_key !== key) {
    return;
  }
  const kept = await change(tx, row, { withdraw_key: null });
  await followUnits(tx, kept, kept);
  tx.forget(key);
  tx.unschedule({ kind: WITHDRAW_JOB, key: listingId });
}
