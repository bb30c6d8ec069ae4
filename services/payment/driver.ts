import { create, type DescMessage, type Message, type MessageInitShape, type MessageShape } from "@bufbuild/protobuf";
import type { ConnectError, HandlerContext } from "@connectrpc/connect";
import {
  AuthorizePaymentResponseSchema,
  CapturePaymentResponseSchema,
  RefundPaymentResponseSchema,
  VoidPaymentResponseSchema,
} from "#gen/marketplace/payment/v1/payment_pb.ts";
import { callOf } from "#runtime/call.ts";
import { failure } from "#runtime/errors.ts";
import type { JobHandler } from "#runtime/jobs/jobs.ts";
import type { Log } from "#runtime/log.ts";
import { Recent } from "#runtime/recent.ts";
import type { PaymentDatabase, PaymentRow, PaymentTransaction } from "./entities.ts";
import {
  AUTHORIZATION_EXPIRED,
  INSUFFICIENT_FUNDS,
  PAYMENT_DECLINED,
  PAYMENT_METHOD_INVALID,
  PROCESSOR_OUTCOME_UNKNOWN,
  PROCESSOR_UNAVAILABLE,
} from "./errors.ts";
import { paymentMessage } from "./messages.ts";
import {
  changePayment,
  dropPayment,
  EXPIRE_JOB,
  findPayment,
  isTombstone,
  RESOLVE_JOB,
  recordAuthorized,
  recordAwaitingConfirmation,
  recordCaptured,
  recordDeclined,
  recordDropped,
  recordExpired,
  recordRefunded,
  Stale,
} from "./payments.ts";
import { type Outcomes, type Processor, ProcessorTimeout, ProcessorUnreachable } from "./processor.ts";
import type { Step } from "./states.ts";

/** The longest one call to the processor takes. */
export const PROCESSOR_TIMEOUT_MS = 8_000;
/** For how long after a void an authorization that the processor had not seen then may still arrive there. */
export const LATE_ARRIVAL_MS = 3600 * 1000;
/** The least pause before the job asks again. */
const ASK_AGAIN_MS = 1_000;
const ASK_AGAIN_MAX_MS = 10 * 60 * 1000;
/** How many payments a process remembers between the promise and the next command. */
const PROMISED_MAX = 1_000;
/** How often one call may meet a payment that others are changing before it gives up. */
const ROUNDS = 8;

/** What a command finds when it looks at the payment in its transaction. */
export type Decision<D extends DescMessage> =
  /** The answer; `final: false` is not kept for repeats. */
  | { readonly kind: "answer"; readonly message: MessageInitShape<D>; readonly final?: false }
  /** A final refusal, kept for repeats. */
  | { readonly kind: "refuse"; readonly error: ConnectError }
  /** A step has begun and waits for the processor; `fresh`: the payment as this transaction leaves it, which was never asked about before. */
  | { readonly kind: "begun"; readonly fresh: PaymentRow | undefined }
  /** The processor must be asked before anything can be decided: a step of another command is under way, or the buyer may have confirmed. */
  | { readonly kind: "ask" };

/** What `decide` is told besides. */
export interface Look {
  readonly asked: boolean;
  readonly round: number;
  readonly known: PaymentRow | undefined;
}

type Decide<D extends DescMessage> = (tx: PaymentTransaction, requestKey: string, look: Look) => Promise<Decision<D>>;

/** Takes payments through the processor and records what came of it. */
export interface Driver {
  /**
   * Runs one command on a payment: `decide` looks and begins, in the claim's transaction, `round` counts its tries from 0; then the processor is asked, and the answer is
   * stored with the change it made. `asked` tells `decide` that the processor was just asked, `known` what it left the payment as when it promised the money: no other
   * may have changed it since, and whether one did decides the write.
   */
  run<D extends DescMessage>(
    request: Message & { paymentId: string },
    context: HandlerContext,
    output: D,
    decide: Decide<D>,
  ): Promise<MessageShape<D>>;
  /** What is done without a caller: steps whose outcome is not known, authorizations that run out. */
  readonly jobs: readonly JobHandler[];
}

/** The refusal of a declined authorization. */
export function declineError(declineReason: string): ConnectError {
  const known = [INSUFFICIENT_FUNDS, PAYMENT_METHOD_INVALID].find((reason) => reason.name === declineReason);
  return failure(known ?? PAYMENT_DECLINED, { metadata: { decline_reason: declineReason } });
}

/** The key under which the processor is asked to do a step of a payment: the same on every try. */
export function processorKey(paymentId: string, step: Exclude<Step, "">): string {
  return `${paymentId}/${step.toLowerCase()}`;
}

/** Makes the driver. */
export function paymentDriver(deps: { database: PaymentDatabase; processor: Processor; log: Log }): Driver {
  return new OpenDriver(deps.database, deps.processor, deps.log);
}

/** Ends the transaction of a command that cannot decide yet, so that nothing of it is kept. */
class MustAsk extends Error {}

type Outcome =
  | { step: "AUTHORIZE"; result: Outcomes["authorization"] }
  | { step: "CAPTURE"; result: Outcomes["capture"] }
  | { step: "REFUND"; result: Outcomes["refund"] }
  | { step: "VOID"; result: { state: "voided" | "not_found" } };

class OpenDriver implements Driver {
  readonly #database: PaymentDatabase;
  readonly #processor: Processor;
  readonly #log: Log;
  readonly jobs: readonly JobHandler[];
  /** Payments whose money this process has just seen promised: the next command takes it. */
  readonly #promised = new Recent<PaymentRow>(PROMISED_MAX);

  constructor(database: PaymentDatabase, processor: Processor, log: Log) {
    this.#database = database;
    this.#processor = processor;
    this.#log = log;
    this.jobs = [
      {
        kind: RESOLVE_JOB,
        watches: { table: "payment", key: "payment_id", time: "watch_time" },
        run: ({ key }) => this.#resolve(key),
      },
      { kind: EXPIRE_JOB, run: ({ key }) => this.#expire(key) },
    ];
  }

  async run<D extends DescMessage>(
    request: Message & { paymentId: string },
    context: HandlerContext,
    output: D,
    decide: Decide<D>,
  ): Promise<MessageShape<D>> {
    const { deadline, signal } = callOf(context);
    const known = this.#promised.take(request.paymentId);
    let asked = false;
    for (let round = 0; round < ROUNDS; round++) {
      try {
        const claimed = await this.#database.claim(request, context, output, async (tx, requestKey) => {
          const decision = await decide(tx, requestKey, { asked, round, known: round === 0 ? known : undefined });
          return settleClaim(tx, requestKey, output, decision);
        });
        if (!claimed.first) {
          return claimed.answer;
        }
        const decision = claimed.value;
        if (decision.kind === "answer") {
          return create(output, decision.message);
        }
        if (decision.kind === "refuse") {
          throw decision.error;
        }
        await this.#ask(request.paymentId, decision.fresh, claimed.requestKey);
        const answer = await this.#database.awaitAnswer(claimed.requestKey, output, { deadline, signal });
        if (answer !== undefined) {
          return answer;
        }
      } catch (error) {
        if (error instanceof MustAsk) {
          await this.#ask(request.paymentId, undefined, undefined);
          asked = true;
        } else if (!(error instanceof Stale)) {
          throw error;
        }
      }
    }
    throw unknownOutcome();
  }

  /** Drives for a caller: an outcome that stays unknown leaves the step to the job and the claim to a repeat. */
  async #ask(paymentId: string, fresh: PaymentRow | undefined, requestKey: string | undefined): Promise<void> {
    try {
      await this.#drive(paymentId, fresh);
    } catch (error) {
      const answer = processorFailure(error);
      if (answer === undefined) {
        throw error;
      }
      this.#log.warn({ payment_id: paymentId, err: error }, "the processor's outcome is not known");
      if (requestKey === undefined || (await this.#letGo(paymentId, requestKey))) {
        throw answer;
      }
    }
  }

  /** Drops the claim that waits for a step, unless the step was settled meanwhile and the claim has its answer. */
  #letGo(paymentId: string, requestKey: string): Promise<boolean> {
    return this.#database.transaction(async (tx) => {
      const row = await findPayment(tx.sql, paymentId);
      if (row === undefined || row.request_key !== requestKey) {
        return false;
      }
      await changePayment(tx, row, { request_key: null });
      tx.forget(requestKey);
      tx.schedule({ kind: RESOLVE_JOB, key: paymentId, dueTime: tx.now + ASK_AGAIN_MS });
      return true;
    });
  }

  /**
   * Asks the processor about the step that is under way, and records its answer; if the payment changed meanwhile (a void came between),
   * goes on with what is under way now. False: it changed every time, and something may still be under way. Throws ProcessorTimeout or
   * ProcessorUnreachable.
   */
  async #drive(paymentId: string, fresh: PaymentRow | undefined): Promise<boolean> {
    let first = fresh !== undefined;
    for (let round = 0; round < ROUNDS; round++) {
      const row = first ? fresh : await findPayment(this.#database.sql, paymentId);
      const askable = row !== undefined && (row.step !== "" || (round === 0 && row.state === "AWAITING_CONFIRMATION"));
      if (!askable) {
        return true;
      }
      const outcome = await this.#outcomeOf(row, first).catch((error: unknown) => {
        // This try asked for nothing, but an earlier one may have: what became of that is not known.
        const earlier = !first && row.step !== "" && error instanceof ProcessorUnreachable;
        throw earlier ? new ProcessorTimeout(processorKey(paymentId, row.step as Exclude<Step, "">)) : error;
      });
      first = false;
      try {
        const next = await this.#database.transaction((tx) => this.#record(tx, row, outcome));
        if (next?.state === "AUTHORIZED") {
          this.#promised.set(paymentId, next);
        }
        return true;
      } catch (error) {
        if (!(error instanceof Stale)) {
          throw error;
        }
      }
    }
    return false;
  }

  /**
   * What became of the step. Unless it was never asked before, the processor is first asked whether it knows the key: it may have forgotten how to
   * answer a repeat alike by now, but not that it did it.
   */
  async #outcomeOf(row: PaymentRow, fresh: boolean): Promise<Outcome> {
    const signal = AbortSignal.timeout(PROCESSOR_TIMEOUT_MS);
    const authorization = processorKey(row.payment_id, "AUTHORIZE");
    const processor = this.#processor;
    switch (row.step) {
      case "": {
        const found = await processor.find("authorization", authorization, signal);
        if (found === undefined) {
          throw new Error(`the processor does not know the payment ${row.payment_id}, which awaits confirmation there.`);
        }
        return { step: "AUTHORIZE", result: found };
      }
      case "AUTHORIZE": {
        const order = {
          amountMinor: row.amount_minor,
          currencyCode: row.currency_code,
          paymentMethodToken: row.payment_method_token,
        };
        const found = fresh ? undefined : await processor.find("authorization", authorization, signal);
        return { step: "AUTHORIZE", result: found ?? (await processor.authorize(authorization, order, signal)) };
      }
      case "CAPTURE": {
        const key = processorKey(row.payment_id, "CAPTURE");
        const found = fresh ? undefined : await processor.find("capture", key, signal);
        return { step: "CAPTURE", result: found ?? (await processor.capture(key, authorization, signal)) };
      }
      case "REFUND": {
        const key = processorKey(row.payment_id, "REFUND");
        const found = fresh ? undefined : await processor.find("refund", key, signal);
        return { step: "REFUND", result: found ?? (await processor.refund(key, authorization, signal)) };
      }
      case "VOID":
        return {
          step: "VOID",
          result: await processor.void(processorKey(row.payment_id, "VOID"), authorization, signal),
        };
    }
  }

  /** Records the outcome with the answer for the command that waits for it. Gives the payment when money was promised. */
  async #record(tx: PaymentTransaction, row: PaymentRow, outcome: Outcome): Promise<PaymentRow | undefined> {
    switch (outcome.step) {
      case "AUTHORIZE":
        return row.step === "" && outcome.result.state === "confirm" ? undefined : recordAuthorization(tx, row, outcome.result);
      case "CAPTURE":
        if (outcome.result.state === "captured") {
          answerWaiter(tx, row, await recordCaptured(tx, row));
        } else {
          await recordExpired(tx, row);
          refuseWaiter(tx, row, failure(AUTHORIZATION_EXPIRED));
        }
        break;
      case "REFUND":
        answerWaiter(tx, row, await recordRefunded(tx, row));
        break;
      case "VOID":
        if (outcome.result.state === "not_found" && mayStillArrive(tx, row)) {
          answerWaiter(tx, row, await changePayment(tx, row, { request_key: null }));
          tx.schedule({ kind: RESOLVE_JOB, key: row.payment_id, dueTime: tx.now + askAgainMs(row, tx.now) });
          return undefined;
        }
        answerWaiter(tx, row, await recordDropped(tx, row));
        break;
    }
    return undefined;
  }

  /** The job: asks until the outcome is known, however long that takes; where nothing is to be asked it is the authorization's time that has come. */
  async #resolve(paymentId: string): Promise<void> {
    try {
      const row = await findPayment(this.#database.sql, paymentId);
      if (row?.step === "") {
        await this.#expire(paymentId);
        return;
      }
      if (!(await this.#drive(paymentId, undefined))) {
        await this.#askLater(paymentId, (_row, now) => now + ASK_AGAIN_MS);
      }
    } catch (error) {
      if (processorFailure(error) === undefined) {
        // Nobody foresaw this: the job's own attempts count, and a person comes last. A command need not wait for that.
        await this.#askLater(paymentId, () => undefined);
        throw error;
      }
      await this.#askLater(paymentId, (row, now) => now + askAgainMs(row, now));
    }
  }

  /** Puts the step under way off until `dueTime`, where it gives one, and lets go of the command that waits for it. */
  #askLater(paymentId: string, dueTime: (row: PaymentRow, now: number) => number | undefined): Promise<void> {
    return this.#database.transaction(async (tx) => {
      const row = await findPayment(tx.sql, paymentId);
      if (row === undefined || row.step === "") {
        return;
      }
      if (row.request_key != null) {
        // Who claimed it is dead, or gets along without: the repeat asks for itself.
        await changePayment(tx, row, { request_key: null });
        tx.forget(row.request_key);
      }
      const due = dueTime(row, tx.now);
      if (due !== undefined) {
        tx.schedule({ kind: RESOLVE_JOB, key: paymentId, dueTime: due });
      }
    });
  }

  /** The job: an authorization whose time is over is ended here and dropped at the processor. */
  async #expire(paymentId: string): Promise<void> {
    await this.#database.transaction(async (tx) => {
      const row = await findPayment(tx.sql, paymentId);
      if (row === undefined || row.state !== "AUTHORIZED" || row.authorization_expire_time == null) {
        return;
      }
      if (row.authorization_expire_time > tx.now) {
        tx.schedule({ kind: EXPIRE_JOB, key: paymentId, dueTime: row.authorization_expire_time });
      } else if (row.step !== "") {
        // A capture is under way; what comes of it decides.
        tx.schedule({ kind: EXPIRE_JOB, key: paymentId, dueTime: tx.now + ASK_AGAIN_MAX_MS });
      } else {
        await dropPayment(tx, row, "EXPIRED", { requestId: row.step_request_id, requestKey: null });
        tx.schedule({ kind: RESOLVE_JOB, key: paymentId, dueTime: tx.now });
      }
    });
  }
}

/** Keeps what a decision says under the claim, in the transaction that made it. */
function settleClaim<D extends DescMessage>(
  tx: PaymentTransaction,
  requestKey: string,
  output: D,
  decision: Decision<D>,
): Exclude<Decision<D>, { kind: "ask" }> {
  switch (decision.kind) {
    case "ask":
      throw new MustAsk();
    case "refuse":
      tx.answerError(requestKey, decision.error);
      return decision;
    case "answer":
      if (decision.final === false) {
        tx.forget(requestKey);
      } else {
        tx.answer(requestKey, output, decision.message);
      }
      return decision;
    case "begun":
      return decision;
  }
}

async function recordAuthorization(
  tx: PaymentTransaction,
  row: PaymentRow,
  outcome: Outcomes["authorization"],
): Promise<PaymentRow | undefined> {
  switch (outcome.state) {
    case "approved": {
      const next = await recordAuthorized(tx, row);
      answerWaiter(tx, row, next);
      return next;
    }
    case "confirm":
      answerWaiter(tx, row, await recordAwaitingConfirmation(tx, row, outcome.confirmationUrl));
      return undefined;
    case "declined":
    case "dropped": {
      const declineReason = outcome.state === "declined" ? outcome.reason : PAYMENT_DECLINED.name;
      await recordDeclined(tx, row, declineReason);
      refuseWaiter(tx, row, declineError(declineReason));
      return undefined;
    }
  }
}

/**
 * Answers the command that waits for the step which `before` was in, if one does; `after` is the payment now. It waits as long as the payment names it, and the change
 * from `before` was made on that condition.
 */
export function answerWaiter(tx: PaymentTransaction, before: PaymentRow, after: PaymentRow): void {
  if (before.request_key == null) {
    return;
  }
  const key = before.request_key;
  switch (before.step) {
    case "AUTHORIZE":
      tx.answer(key, AuthorizePaymentResponseSchema, { payment: paymentMessage(after) }, "surely");
      break;
    case "CAPTURE":
      tx.answer(key, CapturePaymentResponseSchema, { payment: paymentMessage(after) }, "surely");
      break;
    case "REFUND":
      tx.answer(key, RefundPaymentResponseSchema, { payment: paymentMessage(after) }, "surely");
      break;
    case "VOID":
      tx.answer(key, VoidPaymentResponseSchema, {}, "surely");
      break;
  }
}

function refuseWaiter(tx: PaymentTransaction, before: PaymentRow, error: ConnectError): void {
  if (before.request_key != null) {
    tx.answerError(before.request_key, error, "surely");
  }
}

/** Whether an authorization that the processor does not know may be on its way there: it never told us of it. */
function mayStillArrive(tx: PaymentTransaction, row: PaymentRow): boolean {
  return row.authorization_expire_time == null && !isTombstone(row) && tx.now < row.step_time + LATE_ARRIVAL_MS;
}

/** The pause grows with the age of the step. */
function askAgainMs(row: PaymentRow, now: number): number {
  return Math.min(ASK_AGAIN_MAX_MS, Math.max(ASK_AGAIN_MS, Math.floor((now - row.step_time) / 2)));
}

function unknownOutcome(cause?: unknown): ConnectError {
  return failure(PROCESSOR_OUTCOME_UNKNOWN, { retryAfterMs: ASK_AGAIN_MS, cause });
}

/** The refusal that a failure of the processor leads to; undefined for other errors. */
function processorFailure(error: unknown): ConnectError | undefined {
  if (error instanceof ProcessorTimeout) {
    return unknownOutcome(error);
  }
  if (error instanceof ProcessorUnreachable) {
    return failure(PROCESSOR_UNAVAILABLE, { retryAfterMs: ASK_AGAIN_MS, cause: error });
  }
  return undefined;
}
