import { create, type DescMessage, fromBinary, type MessageInitShape, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { failure, metadataOf, type Reason, reasonOf, retryAfterMsOf } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import type { Log } from "#runtime/log.ts";
import type { OrderDatabase, OrderTransaction } from "./entities.ts";
import { acquireLease, fence, type Held, held, LEASE_MS } from "./lease.ts";
import type { OrderRecord } from "./orders.ts";
import { readSteps, type StepRecord, writeSteps } from "./steps.ts";

/** The job that drives the saga of an order which nobody drives. Its key is the order's id. */
export const SAGA_JOB = "order.saga";
/** How long one try of a step may take; less than the lease. */
export const STEP_TIMEOUT_MS = 10_000;
/** The first pause after a try from which nobody knows the outcome; the job's own backoff follows. */
export const FIRST_BACKOFF_MS = 100;

/** What a step's command is called with. */
export interface StepCall {
  /** `<order_id>/<step>`: the same in every attempt, so that a repeat gets the first answer. */
  readonly requestId: string;
  /** From 1. */
  readonly attempt: number;
  readonly timeoutMs: number;
}

/** One remote command, and beside it what takes it back. */
export interface Step<R extends DescMessage> {
  /** The schema of the answer, which is kept. */
  readonly result: R;
  /** What of the answer is kept for a later run; all of it unless given. */
  readonly keep?: (answer: MessageShape<R>) => MessageInitShape<R>;
  /** The command. */
  readonly run: (call: StepCall) => Promise<MessageShape<R>>;
  /**
   * Takes it back, whether it took effect, did not, or will arrive late; repeated until it succeeds. Recorded with the step, that is:
   * before the step is tried.
   */
  readonly undo?: (call: StepCall) => Promise<unknown>;
  /** The neighbour's reasons that mean "no, and nothing happened", each with the reason that the buyer gets. Any other error is tried again. */
  readonly refusals?: Readonly<Record<string, Reason>>;
  /** Looked at before each try; answers why it must not be tried any more. What became of earlier tries is then for the undos to find out. */
  readonly unless?: () => Reason | undefined;
}

/** A question that is asked again each time somebody has the saga continued, until the answer is there. */
export interface Question<R extends DescMessage> extends Omit<Step<R>, "undo" | "unless"> {
  /** Whether the answer is there. */
  readonly settled: (answer: MessageShape<R>) => boolean;
  /** Written when the saga begins to wait. */
  readonly wait: Move;
  /** Written when it was asked and has to wait on. Answers "again" when somebody had it continued after it was asked. */
  readonly stillWaiting: (tx: OrderTransaction) => Promise<"rest" | "again">;
  /** Written with the answer. */
  readonly resume: Move;
}

/** A change of the order's state: one update that also writes what is `held`, on its condition. */
export type Move = (tx: OrderTransaction, held: Held) => Promise<unknown>;

/** What a saga's function is given: it awaits one step after the other, and ends by `settle`. */
export interface Saga {
  /** Takes a step, or answers what it answered when it was taken before. */
  step<R extends DescMessage>(name: string, step: Step<R>): Promise<MessageShape<R>>;
  /** Waits for an answer from outside. The saga rests until it is continued. */
  ask<R extends DescMessage>(name: string, question: Question<R>): Promise<MessageShape<R>>;
  /** Writes the end, together with the last step's outcome. */
  settle(move: Move): Promise<void>;
}

/** Where an order's saga is headed: forward through `run`, or back through the undos of the same function. */
export interface Course {
  readonly direction: "forward" | "back";
  readonly run: (saga: Saga) => Promise<void>;
  /** Written when a step was refused; `pending` says whether other steps are to be undone first. */
  readonly refused?: (tx: OrderTransaction, held: Held, error: ConnectError, pending: boolean) => Promise<unknown>;
  /** Written when everything is undone. */
  readonly undone?: Move;
  /** Written when a try failed and the saga goes on later, in a job. */
  readonly delayed: (tx: OrderTransaction) => Promise<unknown>;
  /** What a person should know of the order when the saga is stuck: ids only. */
  readonly describe: () => string;
}

/** What the engine is made with. */
export interface SagaOptions {
  readonly database: OrderDatabase;
  readonly log: Log;
  /** The course of an order as it is now, read unless it is `known`; undefined when there is nothing to do. */
  readonly course: (orderId: string, known?: OrderRecord) => Promise<Course | undefined>;
  /** Written, under the order's lock, when there is nothing to do. */
  readonly ended: (tx: OrderTransaction, orderId: string) => Promise<unknown>;
}

/** A lease taken in the transaction that made the saga necessary. */
export interface Lease {
  readonly owner: string;
  /** The order and the first steps of its saga (see `stepsAhead`), when that transaction wrote both as well: nobody else has changed them since. */
  readonly fresh?: { readonly order: OrderRecord; readonly steps: readonly StepRecord[] };
  /** Whether it planned the job: the order's own watch does not come soon enough in the state it is in. */
  readonly job?: true;
}

/** Runs sagas. Any number of processes may; one at a time drives an order. */
export interface Sagas {
  /**
   * Drives an order to its end or to where it must wait. When a step is to be tried again the job is planned, with fresh attempts; unless this
   * is the job (no `lease`) and it has come no further: then the error is thrown, so that the job counts it and becomes a dead letter in the end. Answers false when another runner has the order.
   */
  drive(orderId: string, lease?: Lease): Promise<boolean>;
}

/** Another runner has taken the order over: this one must not write any more. */
export class LeaseLost extends Error {}
/** Others wait for the order than who placed it; or the lease is lost. */
export class OthersWait extends Error {}
/** The saga waits for somebody outside. */
class Parked extends Error {}
/** Going back: there is nothing further that was begun. */
class Unwound extends Error {}
/** A step was refused: the saga turns back. */
class Refused extends Error {
  readonly failure: ConnectError;
  constructor(failure: ConnectError) {
    super(failure.message);
    this.failure = failure;
  }
}

/**
 * The engine of durable execution. A saga is one straight function. Each remote command in it is a step: a record that is written before the command
 * is tried and again with its outcome. When the process dies, the function runs again from its start, and steps that are done answer from their
 * records. When a step is refused the undos of all steps begun run in reverse; after a crash they are found by running the function once more
 * without trying anything new.
 *
 * The records stand in the order's row beside the lease, so that one conditional update writes a step's outcome and the next one as begun; a runner that lost the
 * lease writes nothing. Steps may be recorded as begun ahead, together: then their outcomes are written with the first step that was not.
 */
export function createSagas(options: SagaOptions): Sagas {
  return {
    async drive(orderId, lease) {
      const owner = lease?.owner ?? newId();
      if (lease === undefined && !(await acquireLease(options.database, orderId, owner))) {
        return false;
      }
      await new Run(options, orderId, owner, lease).drive();
      return true;
    },
  };
}

interface Undo {
  readonly row: StepRecord;
  readonly run: (call: StepCall) => Promise<unknown>;
}

/** One runner on one order. */
class Run implements Saga {
  readonly #options: SagaOptions;
  readonly #orderId: string;
  readonly #owner: string;
  readonly #inline: boolean;
  /** Whether a job may be planned, which the end takes back. */
  readonly #planned: boolean;
  readonly #fresh: Lease["fresh"];
  /** Steps that were recorded as begun when the order was written, and have not been tried. */
  readonly #ahead: Set<StepRecord>;
  /** When the lease was last written. */
  #leaseTime: number;
  readonly #undos: Undo[] = [];
  /** The steps by name; each write takes them along. A crash before it repeats a step under the same request_id. Undefined before they are read. */
  #known: Map<string, StepRecord> | undefined;
  #back = false;
  /** Whether this run brought a step to its end: then the next failure is another step's first, not this job's next. */
  #advanced = false;
  /** The step being tried, for the record of its failure. */
  #current: StepRecord | undefined;

  constructor(options: SagaOptions, orderId: string, owner: string, lease: Lease | undefined) {
    this.#options = options;
    this.#orderId = orderId;
    this.#owner = owner;
    this.#inline = lease !== undefined;
    this.#planned = lease === undefined || lease.job === true;
    this.#fresh = lease?.fresh;
    this.#ahead = new Set(lease?.fresh?.steps);
    this.#leaseTime = lease?.fresh?.order.update_time ?? 0;
  }

  async drive(): Promise<void> {
    let course: Course | undefined;
    try {
      course = await this.#options.course(this.#orderId, this.#fresh?.order);
      if (course === undefined) {
        await this.#write((tx) => this.#options.ended(tx, this.#orderId), { last: true });
        return;
      }
      const { steps } = this.#fresh ?? {};
      this.#known = steps
        ? new Map(steps.map((step) => [step.step, step]))
        : await readSteps(this.#options.database.sql, this.#orderId);
      this.#back = course.direction === "back";
      await this.#follow(course);
    } catch (error) {
      if (!(error instanceof LeaseLost)) {
        await this.#delay(course, error);
      }
    }
  }

  get #steps(): Map<string, StepRecord> {
    return this.#known as Map<string, StepRecord>;
  }

  async #follow(course: Course): Promise<void> {
    try {
      await course.run(this);
      return;
    } catch (error) {
      if (error instanceof Parked) {
        return;
      }
      if (error instanceof Refused && course.refused !== undefined) {
        const { refused } = course;
        const pending = this.#undos.length > 0;
        await this.#move((tx, held) => refused(tx, held, error.failure, pending), { last: !pending });
        if (!pending) {
          return;
        }
      } else if (!(error instanceof Unwound)) {
        throw error;
      }
    }
    await this.#compensate(course);
  }

  async #compensate(course: Course): Promise<void> {
    for (const { row, run } of this.#undos.toReversed()) {
      if (row.state === "undone") {
        continue;
      }
      this.#current = row;
      await run(this.#call(`${row.step}/undo`, 1));
      this.#record(row, { state: "undone", reason: "" });
      this.#advanced = true;
    }
    this.#current = undefined;
    await (course.undone === undefined ? this.#write(undefined, { last: true }) : this.#move(course.undone, { last: true }));
  }

  async step<R extends DescMessage>(name: string, step: Step<R>): Promise<MessageShape<R>> {
    const known = this.#steps.get(name);
    if (known === undefined && this.#back) {
      throw new Unwound();
    }
    if (known !== undefined && (this.#back || known.state === "done")) {
      return this.#recorded(known, step);
    }
    const why = step.unless?.();
    if (why !== undefined) {
      if (known !== undefined) {
        this.#remember(known, step);
      }
      throw new Refused(failure(why));
    }
    const row = await this.#begin(name, known);
    this.#remember(row, step);
    const result = await this.#try(row, step);
    const kept = step.keep === undefined ? result : create(step.result, step.keep(result));
    this.#record(row, { state: "done", reason: "", result: toBinary(step.result, kept) });
    return result;
  }

  #recorded<R extends DescMessage>(row: StepRecord, step: Step<R>): MessageShape<R> {
    if (row.state !== "failed") {
      this.#remember(row, step);
    }
    if (row.result === null) {
      throw new Unwound();
    }
    return fromBinary(step.result, row.result);
  }

  #remember<R extends DescMessage>(row: StepRecord, step: Step<R>): void {
    if (step.undo !== undefined) {
      this.#undos.push({ row, run: step.undo });
    }
  }

  async ask<R extends DescMessage>(name: string, question: Question<R>): Promise<MessageShape<R>> {
    const known = this.#steps.get(name);
    if (this.#back || known?.state === "done") {
      if (known?.result == null) {
        throw new Unwound();
      }
      return fromBinary(question.result, known.result);
    }
    if (known === undefined) {
      this.#newStep(name, 0);
      await this.#move(question.wait, { last: true });
      throw new Parked();
    }
    const row = await this.#begin(name, known);
    const answer = await this.#try(row, question);
    if (!question.settled(answer)) {
      let next: "rest" | "again" = "rest";
      const note = async (tx: OrderTransaction) => {
        next = await question.stillWaiting(tx);
      };
      await this.#write(note, { last: true, again: () => next === "again" });
      throw new Parked();
    }
    this.#record(row, { state: "done", reason: "", result: toBinary(question.result, answer) });
    await this.#move(question.resume, { last: false });
    return answer;
  }

  async settle(move: Move): Promise<void> {
    if (this.#back) {
      throw new Unwound();
    }
    await this.#move(move, { last: true });
  }

  /** Records that a step is about to be tried, unless that was done ahead; then the lease is renewed before it could end during the try. */
  async #begin(name: string, known: StepRecord | undefined): Promise<StepRecord> {
    const row = known ?? this.#newStep(name, 0);
    if (!this.#ahead.delete(row)) {
      this.#record(row, { state: "started", attempts: row.attempts + 1 });
    } else if (this.#options.database.clock.now() - this.#leaseTime < LEASE_MS / 2) {
      return row;
    }
    await this.#write();
    return row;
  }

  #newStep(step: string, attempts: number): StepRecord {
    const now = this.#options.database.clock.now();
    const row: StepRecord = {
      step,
      state: "started",
      attempts,
      result: null,
      reason: "",
      start_time: now,
      update_time: now,
    };
    this.#steps.set(step, row);
    return row;
  }

  async #try<R extends DescMessage>(row: StepRecord, step: Pick<Step<R>, "run" | "refusals">): Promise<MessageShape<R>> {
    this.#current = row;
    let result: MessageShape<R>;
    try {
      result = await step.run(this.#call(row.step, row.attempts));
    } catch (error) {
      const name = reasonOf(error);
      const mine = name === undefined ? undefined : step.refusals?.[name];
      if (name === undefined || mine === undefined) {
        throw error;
      }
      // Refused now; but an earlier attempt whose outcome nobody knows may still arrive. Only a first refusal is certain.
      const certain = row.attempts === 1;
      this.#record(row, { state: certain ? "failed" : "started", reason: name });
      if (certain) {
        const index = this.#undos.findIndex((undo) => undo.row === row);
        this.#undos.splice(index === -1 ? this.#undos.length : index, 1);
      }
      throw new Refused(failure(mine, { metadata: metadataOf(error), cause: error }));
    }
    this.#current = undefined;
    this.#advanced = true;
    return result;
  }

  #call(suffix: string, attempt: number): StepCall {
    return { requestId: `${this.#orderId}/${suffix}`, attempt, timeoutMs: STEP_TIMEOUT_MS };
  }

  #record(row: StepRecord, change: Partial<StepRecord>): void {
    Object.assign(row, change, { update_time: this.#options.database.clock.now() });
  }

  /**
   * Every write of a saga: only while the lease is held, and with its steps as they are now. The last one gives the lease back, and takes the job
   * back unless the saga goes on `later`, or at once and from its start: `again`.
   */
  async #write(
    change?: (tx: OrderTransaction) => Promise<unknown>,
    { last = false, later = false, again = () => false }: { last?: boolean; later?: boolean; again?: () => boolean } = {},
  ): Promise<void> {
    await this.#options.database.transaction(async (tx) => {
      await tx.must(fence(tx, this.#orderId, this.#held(tx, { last })), () => new LeaseLost());
      await change?.(tx);
      if (again()) {
        tx.schedule({ kind: SAGA_JOB, key: this.#orderId, dueTime: tx.now });
      } else if (last && !later && this.#planned) {
        tx.unschedule({ kind: SAGA_JOB, key: this.#orderId });
      }
    });
  }

  /** As `#write`, with a change of the order's state in the same update. */
  async #move(move: Move, { last }: { last: boolean }): Promise<void> {
    const write = (others: boolean) =>
      this.#options.database.transaction(async (tx) => {
        await move(tx, this.#held(tx, { last, others }));
        if (last && this.#planned) {
          tx.unschedule({ kind: SAGA_JOB, key: this.#orderId });
        }
      });
    try {
      await write(false);
    } catch (error) {
      if (!(error instanceof OthersWait)) {
        throw error;
      }
      await write(true);
    }
  }

  #held(tx: OrderTransaction, { last, others = false }: { last: boolean; others?: boolean }): Held {
    this.#leaseTime = tx.now;
    if (last) {
      // Who goes on need not suppose that they were tried.
      for (const row of this.#ahead) {
        this.#steps.delete(row.step);
      }
      this.#ahead.clear();
    }
    const saga = this.#known && writeSteps(this.#known.values());
    return held(tx, this.#owner, { release: last, saga, others });
  }

  /** A try failed and may be tried again: notes why, gives the lease back, and leaves the rest to the job. */
  async #delay(course: Course | undefined, error: unknown): Promise<void> {
    const step = this.#current;
    const why = reasonOf(error) ?? (error instanceof ConnectError ? Code[error.code] : "INTERNAL");
    if (step !== undefined) {
      this.#record(step, { reason: why.slice(0, 64) });
    }
    this.#options.log.warn({ orderId: this.#orderId, step: step?.step, reason: why }, "a saga's step is tried again later");
    const pauseMs = Math.max(FIRST_BACKOFF_MS, retryAfterMsOf(error) ?? 0);
    let anew = this.#inline || this.#advanced;
    const planNext = async (tx: OrderTransaction) => {
      await course?.delayed(tx);
      if (anew) {
        tx.schedule({ kind: SAGA_JOB, key: this.#orderId, dueTime: tx.now + pauseMs });
      }
    };
    try {
      await this.#write(planNext, { last: true, later: true });
    } catch (second) {
      if (second instanceof LeaseLost) {
        return;
      }
      // A call planned the job before it began. The job itself must not end as if all were well.
      anew = this.#inline;
      this.#options.log.error({ orderId: this.#orderId, err: second }, "a saga's failure could not be recorded");
    }
    if (!anew) {
      throw stuck(this.#orderId, step, course, why, error);
    }
  }
}

/** What the job's dead letter will say: everything a person needs to find out why the saga does not go on. */
function stuck(
  orderId: string,
  step: StepRecord | undefined,
  course: Course | undefined,
  why: string,
  error: unknown,
): ConnectError {
  const at = step === undefined ? "before its first step" : `at step "${step.step}" (${step.state}, ${step.attempts} attempts)`;
  const detail = error instanceof Error ? error.message : String(error);
  const facts = course === undefined ? "" : `, going ${course.direction}; ${course.describe()}`;
  const message = `The saga of order ${orderId} is stuck ${at}${facts}: ${why}: ${detail}`;
  return new ConnectError(message, Code.Unavailable, undefined, undefined, error);
}
