import type { DescMessage } from "@bufbuild/protobuf";
import { PayoutCreatedSchema, PayoutFailedSchema, PayoutPaidSchema } from "#gen/marketplace/payment/v1/events_pb.ts";
import { meaningOf } from "#runtime/database/batch.ts";
import { fail } from "#runtime/errors.ts";
import type { JobHandler } from "#runtime/jobs/jobs.ts";
import { PROCESSOR_TIMEOUT_MS } from "./driver.ts";
import type { PaymentDatabase, PaymentTransaction, PayoutRow } from "./entities.ts";
import { BALANCE_TOO_LOW } from "./errors.ts";
import { endTransfer, NotCovered, platformAccount, readTransfer, recordTransfers, sellerAccount, transferIdOf } from "./ledger.ts";
import { availableMinor, payoutMessage } from "./messages.ts";
import { type Outcomes, type Processor, ProcessorTimeout, ProcessorUnreachable } from "./processor.ts";
import { assertTransition, type PayoutStateName, payoutTransitions } from "./states.ts";

/** The job that sends a payout to the processor and asks until it has arrived or failed; its key is the payout. */
export const PAYOUT_JOB = "payment.payout";
const ASK_AGAIN_MS = 1_000;
const ASK_AGAIN_MAX_MS = 10 * 60 * 1000;

/** What a payout is made from. */
export interface NewPayout {
  readonly payoutId: string;
  readonly accountId: string;
  readonly currencyCode: string;
  /** More than 0. */
  readonly amountMinor: bigint;
  readonly destinationToken: string;
  readonly destinationHint: string;
  readonly requestId: string;
}

/**
 * Takes the money from the balance as a pending transfer, and leaves sending it to the job.
 *
 * @throws ConnectError BALANCE_TOO_LOW.
 */
export async function createPayout(tx: PaymentTransaction, payout: NewPayout): Promise<PayoutRow> {
  const available = await availableTo(tx, payout);
  if (available < payout.amountMinor) {
    refuseBalance(available);
  }
  const row: PayoutRow = {
    payout_id: payout.payoutId,
    account_id: payout.accountId,
    state: "PENDING",
    currency_code: payout.currencyCode,
    amount_minor: payout.amountMinor,
    destination_token: payout.destinationToken,
    destination_hint: payout.destinationHint,
    failure_reason: "",
    create_time: tx.now,
    end_time: null,
    version: 1,
  };
  try {
    await recordTransfers(tx, [
      {
        transferId: transferIdOf(payout.payoutId, "PAYOUT"),
        kind: "PAYOUT",
        state: "PENDING",
        debitAccountId: sellerAccount(payout.currencyCode, payout.accountId),
        creditAccountId: platformAccount("PROCESSOR", payout.currencyCode, payout.payoutId),
        currencyCode: payout.currencyCode,
        amountMinor: payout.amountMinor,
        orderId: "",
        paymentId: "",
        payoutId: payout.payoutId,
        requestId: payout.requestId,
      },
    ]);
    await tx.together(tx.sql.insertInto("payout").values(row));
  } catch (error) {
    // Another payout was between the look and the update, which is what decides.
    throw meaningOf(error) instanceof NotCovered ? refuseBalance(await availableTo(tx, payout)) : error;
  }
  tx.schedule({ kind: PAYOUT_JOB, key: payout.payoutId, dueTime: tx.now });
  tell(tx, PayoutCreatedSchema, row);
  return row;
}

/** What the account can pay out in the payout's currency, as the last commit left it. */
async function availableTo(tx: PaymentTransaction, payout: NewPayout): Promise<bigint> {
  const account = await tx.sql
    .selectFrom("ledger_account")
    .select(["debits_pending_minor", "debits_posted_minor", "credits_posted_minor"])
    .where("ledger_account_id", "=", sellerAccount(payout.currencyCode, payout.accountId))
    .executeTakeFirst();
  return account === undefined ? 0n : availableMinor(account);
}

function refuseBalance(available: bigint): never {
  return fail(BALANCE_TOO_LOW, { metadata: { available_minor: available.toString() } });
}

/** Makes the job that brings payouts to their end. */
export function payoutJob(deps: { database: PaymentDatabase; processor: Processor }): JobHandler {
  const { database, processor } = deps;
  const find = (payoutId: string) =>
    database.sql.selectFrom("payout").selectAll().where("payout_id", "=", payoutId).executeTakeFirst();
  return {
    kind: PAYOUT_JOB,
    async run({ key: payoutId }) {
      const row = await find(payoutId);
      if (row === undefined || row.state !== "PENDING") {
        return;
      }
      const outcome = await ask(processor, row);
      await database.transaction(async (tx) => {
        switch (outcome?.state) {
          case "paid":
            await endPayout(tx, row, "PAID", "");
            break;
          case "failed":
            await endPayout(tx, row, "FAILED", outcome.reason);
            break;
          default: {
            const pause = Math.min(ASK_AGAIN_MAX_MS, Math.max(ASK_AGAIN_MS, Math.floor((tx.now - row.create_time) / 2)));
            tx.schedule({ kind: PAYOUT_JOB, key: payoutId, dueTime: tx.now + pause });
          }
        }
      });
    },
  };
}

/** What became of the payout; undefined when that is not known. Asked for under its key first: the money may be under way already. */
async function ask(processor: Processor, row: PayoutRow): Promise<Outcomes["payout"] | undefined> {
  const key = `${row.payout_id}/payout`;
  const signal = AbortSignal.timeout(PROCESSOR_TIMEOUT_MS);
  const order = {
    amountMinor: row.amount_minor,
    currencyCode: row.currency_code,
    destinationToken: row.destination_token,
  };
  try {
    return (await processor.find("payout", key, signal)) ?? (await processor.payout(key, order, signal));
  } catch (error) {
    if (error instanceof ProcessorTimeout || error instanceof ProcessorUnreachable) {
      return undefined;
    }
    throw error;
  }
}

async function endPayout(
  tx: PaymentTransaction,
  row: PayoutRow,
  to: Exclude<PayoutStateName, "PENDING">,
  failureReason: string,
): Promise<void> {
  assertTransition<PayoutStateName>(payoutTransitions, row.state, to);
  const change = { state: to, failure_reason: failureReason, end_time: tx.now, version: row.version + 1 };
  const result = await tx.sql
    .updateTable("payout")
    .set(change)
    .where("payout_id", "=", row.payout_id)
    .where("state", "=", "PENDING")
    .where("version", "=", row.version)
    .executeTakeFirst();
  if (result.numUpdatedRows !== 1n) {
    return; // Another run of the job has ended it.
  }
  await endTransfer(tx, await readTransfer(tx, transferIdOf(row.payout_id, "PAYOUT")), to === "PAID" ? "POSTED" : "VOIDED");
  tell(tx, to === "PAID" ? PayoutPaidSchema : PayoutFailedSchema, { ...row, ...change });
}

type PayoutEvent = DescMessage;

function tell(tx: PaymentTransaction, schema: PayoutEvent, row: PayoutRow): void {
  tx.append<PayoutEvent>({
    aggregateType: "payout",
    aggregateId: row.payout_id,
    schema,
    message: { payout: payoutMessage(row) } as never,
  });
}
