import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { ConnectError } from "@connectrpc/connect";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import {
  AuthorizePaymentResponseSchema,
  CapturePaymentResponseSchema,
  ConfirmPaymentResponseSchema,
  LedgerAccountKind,
  PaymentService,
  RefundPaymentResponseSchema,
  VoidPaymentResponseSchema,
} from "#gen/marketplace/payment/v1/payment_pb.ts";
import { accountOf, type Call, callOf, isOperator } from "#runtime/call.ts";
import { type Clients, forCall } from "#runtime/clients.ts";
import type { Clock } from "#runtime/clock.ts";
import { fail, reasonOf } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import type { Log } from "#runtime/log.ts";
import { afterPosition, cutPage, type PageTokens, pageSizeOf } from "#runtime/pages.ts";
import type { Door, ServiceModule } from "#runtime/service.ts";
import { checkBooks, trialBalance } from "./books.ts";
import {
  decideAuthorize,
  decideCapture,
  decideConfirm,
  decideRefund,
  decideVoid,
  obligationOf,
  requirePayment,
  stateConflict,
} from "./commands.ts";
import { paymentDriver } from "./driver.ts";
import type { PaymentDatabase } from "./entities.ts";
import { FEE_SCHEDULE_NOT_FOUND, PAYOUT_CURRENCY_MISMATCH, PAYOUT_DESTINATION_MISSING, PAYOUT_NOT_FOUND } from "./errors.ts";
import { readSchedules, rememberedSchedules } from "./fee-schedules.ts";
import { scheduleAt } from "./fees.ts";
import { sellerAccount } from "./ledger.ts";
import { balanceMessage, entryMessage, moneyOf, msOf, paymentMessage, payoutMessage, transferMessage } from "./messages.ts";
import { releaseEscrow, Stale } from "./payments.ts";
import { createPayout, payoutJob } from "./payouts.ts";
import type { Processor } from "./processor.ts";

/** What payment needs from outside. */
export interface PaymentDeps {
  database: PaymentDatabase;
  clients: Clients;
  clock: Clock;
  log: Log;
  pages: PageTokens;
  processor: Processor;
  /** The processor's own doors, where it has any: the simulator's confirmation page. */
  doors?: readonly Door[];
}

const STATEMENT_PAGE = { standard: 20, max: 100 };
const PAYOUT_PAGE = { standard: 20, max: 100 };
const PAYOUT_ORDER = [
  { column: "create_time", direction: "desc" },
  { column: "payout_id", direction: "desc" },
] as const;
/** One order has at most a capture and, for each of 20 lines, a sale and a fee. */
const TRANSFERS_MAX = 100;
/** How often a command begins anew after another transaction was first. */
const STALE_ROUNDS = 8;

/** Payments, the ledger, balances and payouts. */
export function payment(deps: PaymentDeps): ServiceModule {
  const { database, clients, clock, log, pages, processor } = deps;
  const driver = paymentDriver({ database, processor, log });
  const accounts = clients.of(AccountService);
  const schedules = rememberedSchedules(database);

  return {
    name: "payment",
    database,
    consumers: [],
    jobs: [...driver.jobs, payoutJob({ database, processor })],
    recurring: [],
    ...(deps.doors === undefined ? {} : { doors: deps.doors }),
    routes: (router) => {
      router.service(PaymentService, {
        async authorizePayment(request, context) {
          const obligation = obligationOf(request, await schedules());
          return driver.run(request, context, AuthorizePaymentResponseSchema, (tx, requestKey, { round }) =>
            decideAuthorize(tx, requestKey, obligation, round),
          );
        },

        confirmPayment: (request, context) =>
          driver.run(request, context, ConfirmPaymentResponseSchema, (tx, _requestKey, { asked }) =>
            decideConfirm(tx, request, asked),
          ),

        capturePayment: (request, context) =>
          driver.run(request, context, CapturePaymentResponseSchema, (tx, requestKey, { known }) =>
            decideCapture(tx, requestKey, request, known),
          ),

        voidPayment: (request, context) =>
          driver.run(request, context, VoidPaymentResponseSchema, (tx, requestKey) => decideVoid(tx, requestKey, request)),

        refundPayment: (request, context) =>
          driver.run(request, context, RefundPaymentResponseSchema, (tx, requestKey) => decideRefund(tx, requestKey, request)),

        releaseEscrow: (request, context) =>
          untilFresh(() =>
            database.command(request, context, async (tx) => {
              const row = await requirePayment(tx, request.paymentId);
              if (row.state === "RELEASED") {
                return { payment: paymentMessage(row) };
              }
              if (row.state !== "CAPTURED" || row.step !== "") {
                stateConflict(row);
              }
              const schedules = await readSchedules(tx.sql);
              return { payment: paymentMessage(await releaseEscrow(tx, row, schedules, request.requestId)) };
            }),
          ),

        async getPayment(request) {
          return { payment: paymentMessage(await requirePayment(database, request.paymentId)) };
        },

        async getBalance(_request, context) {
          const rows = await database.sql
            .selectFrom("ledger_account")
            .select(["currency_code", "debits_pending_minor", "debits_posted_minor", "credits_posted_minor"])
            .where("owner_id", "=", accountOf(callOf(context)))
            .orderBy("currency_code")
            .execute();
          return { balances: rows.map(balanceMessage) };
        },

        async listStatementEntries(request, context) {
          const size = pageSizeOf(request, STATEMENT_PAGE);
          const position = pages.decode(context.method, request);
          const rows = await database.sql
            .selectFrom("statement_entry")
            .selectAll()
            .where("ledger_account_id", "=", sellerAccount(request.currencyCode, accountOf(callOf(context))))
            .$if(position !== undefined, (query) =>
              query.where((eb) => afterPosition(eb, [{ column: "entry_number", direction: "desc" }], position ?? [])),
            )
            .orderBy("entry_number", "desc")
            .limit(size + 1)
            .execute();
          const page = cutPage(rows, size, (last) => pages.encode(context.method, request, [last.entry_number]));
          return {
            entries: page.rows.map((row) => entryMessage(row, request.currencyCode)),
            nextPageToken: page.nextPageToken,
          };
        },

        async createPayout(request, context) {
          const call = callOf(context);
          const accountId = accountOf(call);
          const currencyCode = request.amount?.currencyCode ?? "";
          const destination = await destinationOf(call, currencyCode);
          return database.command(request, context, async (tx) => {
            // Only now: a repeat gets its first answer even if the destination was taken away since.
            if (destination instanceof ConnectError) {
              throw destination;
            }
            if (destination === undefined) {
              return fail(PAYOUT_DESTINATION_MISSING);
            }
            if (destination.currencyCode !== currencyCode) {
              return fail(PAYOUT_CURRENCY_MISMATCH, { metadata: { currency_code: destination.currencyCode } });
            }
            const row = await createPayout(tx, {
              payoutId: newId(),
              accountId,
              currencyCode,
              amountMinor: request.amount?.amountMinor ?? 0n,
              destinationToken: destination.destinationToken,
              destinationHint: destination.hint,
              requestId: request.requestId,
            });
            return { payout: payoutMessage(row) };
          });
        },

        async getPayout(request, context) {
          const call = callOf(context);
          const row = await database.sql
            .selectFrom("payout")
            .selectAll()
            .where("payout_id", "=", request.payoutId)
            .executeTakeFirst();
          if (row === undefined || (!isOperator(call) && row.account_id !== accountOf(call))) {
            return fail(PAYOUT_NOT_FOUND);
          }
          return { payout: payoutMessage(row) };
        },

        async listPayouts(request, context) {
          const size = pageSizeOf(request, PAYOUT_PAGE);
          const position = pages.decode(context.method, request);
          const rows = await database.sql
            .selectFrom("payout")
            .selectAll()
            .where("account_id", "=", accountOf(callOf(context)))
            .$if(position !== undefined, (query) => query.where((eb) => afterPosition(eb, PAYOUT_ORDER, position ?? [])))
            .orderBy("create_time", "desc")
            .orderBy("payout_id", "desc")
            .limit(size + 1)
            .execute();
          const page = cutPage(rows, size, (last) => pages.encode(context.method, request, [last.create_time, last.payout_id]));
          return { payouts: page.rows.map(payoutMessage), nextPageToken: page.nextPageToken };
        },

        async getFeeSchedule(request) {
          const atTime = request.atTime === undefined ? clock.now() : msOf(request.atTime);
          const schedule = scheduleAt(await readSchedules(database.sql), atTime);
          if (schedule === undefined) {
            return fail(FEE_SCHEDULE_NOT_FOUND);
          }
          return {
            feeSchedule: {
              version: schedule.version,
              effectiveTime: timestampFromMs(schedule.effectiveTime),
              feeBasisPoints: schedule.feeBasisPoints,
              minimumFees: Object.entries(schedule.minimumMinor).map(([code, minor]) => moneyOf(code, minor)),
            },
          };
        },

        async getTrialBalance() {
          const rows = await trialBalance(database);
          return { rows: rows.map((row) => ({ ...row, kind: LedgerAccountKind[row.kind] })) };
        },

        async checkLedger() {
          const report = await checkBooks(database, processor);
          return {
            transfersChecked: BigInt(report.transfersChecked),
            findings: [...report.findings],
            escrow: [...report.escrowMinor].map(([currencyCode, minor]) => moneyOf(currencyCode, minor)),
          };
        },

        async listTransfers(request) {
          const rows = await database.sql
            .selectFrom("ledger_transfer")
            .selectAll()
            .where("order_id", "=", request.orderId)
            .orderBy("create_time")
            .orderBy("transfer_id")
            .limit(TRANSFERS_MAX)
            .execute();
          return { transfers: rows.map(transferMessage) };
        },
      });
    },
  };

  /** Where the caller's payouts in the currency go; undefined when it has said nothing; another failure as a value, to be thrown later. */
  async function destinationOf(call: Call, currencyCode: string) {
    try {
      const answer = await accounts.getPayoutDestination({ currencyCode }, forCall(call));
      return answer.payoutDestination;
    } catch (error) {
      if (reasonOf(error) === PAYOUT_DESTINATION_MISSING.name) {
        return undefined;
      }
      return ConnectError.from(error);
    }
  }
}

async function untilFresh<T>(work: () => Promise<T>): Promise<T> {
  for (let round = 1; ; round++) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof Stale) || round === STALE_ROUNDS) {
        throw error;
      }
    }
  }
}
