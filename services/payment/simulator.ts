import { mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { setTimeout as sleep } from "node:timers/promises";
import type { Clock } from "#runtime/clock.ts";
import { newId } from "#runtime/ids.ts";
import {
  type AuthorizationOrder,
  type Outcomes,
  type PayoutOrder,
  type Processor,
  type ProcessorBooks,
  ProcessorTimeout,
} from "./processor.ts";

/** How long a simulated bank takes, unless the options say otherwise. */
export const PAYOUT_DELAY_MS = 2_000;

/** What the simulator is started with. */
export interface SimulatorOptions {
  /** Its own database file; ":memory:" keeps nothing. */
  readonly file: string;
  readonly clock: Clock;
  /** Where this process is reached from outside, such as "http://127.0.0.1:8080": the confirmation page stands below it. */
  readonly baseUrl: () => string;
  /** How long each call takes; 0 unless given. */
  readonly latencyMs?: number;
  /** How long a payout is under way; 2 s unless given. */
  readonly payoutDelayMs?: number;
}

/** What the buyer's confirmation page shows. */
export interface Confirmation {
  readonly amountMinor: bigint;
  readonly currencyCode: string;
  readonly state: "confirm" | "approved" | "declined" | "dropped";
}

/** A payment processor in one file, with the ambiguity of a real one. Several processes of one machine may share the file. */
export interface Simulator extends Processor {
  /** Made with the file: tells these books from others. */
  readonly id: string;
  /** What a confirmation page shows; undefined when there is no such page. */
  confirmation(confirmationId: string): Confirmation | undefined;
  /** The buyer's decision; without effect when it was already made or the payment was dropped. */
  decide(confirmationId: string, confirmed: boolean): void;
  close(): void;
}

/**
 * Opens the simulator. It is idempotent by key, remembers across restarts, and keeps books of its own.
 *
 * Tokens of payment methods: `tok_approved`, `tok_declined`, `tok_insufficient_funds`, `tok_needs_confirmation`. With
 * `tok_timeout_charged` the first call to authorize times out and took effect, with `tok_timeout_not_charged` it did not;
 * `tok_capture_timeout_charged`, `tok_refund_timeout_charged`, `tok_void_timeout_charged` and their `_not_charged` do so at that step. With
 * `tok_capture_expired` the authorization is gone when it is captured. Any other is not known: PAYMENT_METHOD_INVALID.
 *
 * Payout destinations: `bank_fails` fails; `bank_timeout_paid` and `bank_timeout_not_paid` time out the first time; any other `bank_…`
 * pays after a moment.
 */
export function openSimulator(options: SimulatorOptions): Simulator {
  return new OpenSimulator(options);
}

type Kind = "authorization" | "capture" | "refund" | "payout";

interface Operation {
  key: string;
  kind: Kind;
  parent_key: string;
  token: string;
  currency_code: string;
  amount_minor: bigint;
  state: string;
  reason: string;
  confirmation_id: string;
  /** When a payout arrives; 0 otherwise. */
  effective_time: bigint;
}

type NewOperation = Partial<Operation> & Pick<Operation, "key" | "kind" | "token" | "currency_code" | "amount_minor" | "state">;

const TABLES = `
  create table if not exists operation (
    key text primary key, kind text not null, parent_key text not null, token text not null, currency_code text not null,
    amount_minor integer not null, state text not null, reason text not null, confirmation_id text not null, effective_time integer not null
  ) strict;
  create index if not exists operation_books on operation (kind, currency_code, state, effective_time, amount_minor);
  create index if not exists operation_confirmation on operation (confirmation_id) where confirmation_id <> '';
  create unique index if not exists operation_parent on operation (parent_key, kind) where parent_key <> '';
  create table if not exists attempt (key text primary key) strict;
  create table if not exists identity (only_row integer primary key check (only_row = 1), id text not null) strict;
`;

class OpenSimulator implements Simulator {
  readonly id: string;
  readonly #db: DatabaseSync;
  readonly #options: SimulatorOptions;
  readonly #statements = new Map<string, StatementSync>();

  constructor(options: SimulatorOptions) {
    if (options.file !== ":memory:") {
      mkdirSync(dirname(options.file), { recursive: true });
    }
    this.#options = options;
    this.#db = new DatabaseSync(options.file, { timeout: 1_000, readBigInts: true });
    this.#db.exec(`pragma journal_mode = wal; pragma synchronous = full; ${TABLES}`);
    this.#prepared("insert into identity (only_row, id) values (1, ?) on conflict do nothing").run(newId());
    this.id = this.#prepared("select id from identity").get()?.id as string;
  }

  authorize(key: string, order: AuthorizationOrder, signal: AbortSignal): Promise<Outcomes["authorization"]> {
    const token = order.paymentMethodToken;
    const { state, reason } = verdictOn(token);
    const operation: NewOperation = {
      key,
      kind: "authorization",
      token,
      currency_code: order.currencyCode,
      amount_minor: order.amountMinor,
      state,
      reason,
      confirmation_id: state === "confirm" ? newId().replaceAll("-", "") : "",
    };
    return this.#call(key, token, "", signal, () => {
      const inserted = this.#insert(operation);
      return this.#authorization(inserted ?? this.#same(key, "authorization", order.amountMinor, order.currencyCode, token));
    });
  }

  capture(key: string, authorizationKey: string, signal: AbortSignal): Promise<Outcomes["capture"]> {
    const token = this.#get(authorizationKey)?.token ?? "";
    return this.#call(key, token, "capture_", signal, () => {
      if (token !== "tok_capture_expired" && this.#captured(key, authorizationKey)) {
        return { state: "captured" };
      }
      return this.#whole(() => this.#capture(key, authorizationKey, token));
    });
  }

  /** What is usual, by one statement: the authorization is approved and was not captured before. */
  #captured(key: string, authorizationKey: string): boolean {
    const { changes } = this.#prepared(
      `insert into operation
        select ?, 'capture', key, token, currency_code, amount_minor, 'captured', '', '', 0 from operation
          where key = ? and kind = 'authorization' and state = 'approved'
        on conflict do nothing`,
    ).run(key, authorizationKey);
    return changes === 1n;
  }

  #capture(key: string, authorizationKey: string, token: string): Outcomes["capture"] {
    if (this.#get(key) === undefined) {
      const authorization = this.#require(authorizationKey);
      if (token === "tok_capture_expired" && authorization.state === "approved") {
        this.#setState(authorizationKey, "approved", "dropped");
        authorization.state = "dropped";
      }
      if (authorization.state === "confirm" || authorization.state === "declined") {
        throw new Error(`the authorization "${authorizationKey}" is ${authorization.state} and cannot be captured.`);
      }
      const state = authorization.state === "approved" ? "captured" : "expired";
      this.#insert({ ...copyOf(authorization), key, kind: "capture", parent_key: authorizationKey, state });
    }
    return { state: this.#require(key).state as "captured" | "expired" };
  }

  void(key: string, authorizationKey: string, signal: AbortSignal): Promise<{ state: "voided" | "not_found" }> {
    const token = this.#get(authorizationKey)?.token ?? "";
    return this.#call(key, token, "void_", signal, () =>
      this.#whole(() => {
        const authorization = this.#get(authorizationKey);
        if (authorization === undefined) {
          return { state: "not_found" as const };
        }
        const captured = this.#prepared(
          "select 1 from operation where parent_key = ? and kind = 'capture' and state = 'captured'",
        ).get(authorizationKey);
        if (captured !== undefined) {
          throw new Error(`the authorization "${authorizationKey}" was captured and cannot be voided.`);
        }
        this.#setState(authorizationKey, "approved", "dropped");
        this.#setState(authorizationKey, "confirm", "dropped");
        return { state: "voided" as const };
      }),
    );
  }

  refund(key: string, authorizationKey: string, signal: AbortSignal): Promise<Outcomes["refund"]> {
    const authorization = this.#get(authorizationKey);
    return this.#call(key, authorization?.token ?? "", "refund_", signal, () =>
      this.#whole(() => {
        if (this.#get(key) === undefined) {
          const capture = this.#prepared(
            "select * from operation where parent_key = ? and kind = 'capture' and state = 'captured'",
          ).get(authorizationKey) as unknown as Operation | undefined;
          if (capture === undefined) {
            throw new Error(`the authorization "${authorizationKey}" was not captured and cannot be refunded.`);
          }
          this.#insert({ ...copyOf(capture), key, kind: "refund", parent_key: authorizationKey, state: "refunded" });
        }
        return { state: "refunded" as const };
      }),
    );
  }

  payout(key: string, order: PayoutOrder, signal: AbortSignal): Promise<Outcomes["payout"]> {
    const token = order.destinationToken;
    const fails = token === "bank_fails" || !token.startsWith("bank_");
    const operation: NewOperation = {
      key,
      kind: "payout",
      token,
      currency_code: order.currencyCode,
      amount_minor: order.amountMinor,
      state: fails ? "failed" : "sent",
      reason: fails ? "DESTINATION_REFUSED" : "",
      effective_time: BigInt(this.#options.clock.now() + (this.#options.payoutDelayMs ?? PAYOUT_DELAY_MS)),
    };
    return this.#call(key, token, "", signal, () => {
      const inserted = this.#insert(operation);
      return this.#payout(inserted ?? this.#same(key, "payout", order.amountMinor, order.currencyCode, token));
    });
  }

  async find<K extends keyof Outcomes>(kind: K, key: string, signal: AbortSignal): Promise<Outcomes[K] | undefined> {
    await this.#wait("find", signal);
    const operation = this.#get(key);
    if (operation === undefined || operation.kind !== kind) {
      return undefined;
    }
    switch (operation.kind) {
      case "authorization":
        return this.#authorization(operation) as Outcomes[K];
      case "payout":
        return this.#payout(operation) as Outcomes[K];
      default:
        return { state: operation.state } as Outcomes[K];
    }
  }

  async books(currencyCode: string, signal: AbortSignal): Promise<ProcessorBooks> {
    await this.#wait("books", signal);
    const sum = (kind: Kind, state: string): bigint => {
      const row = this.#prepared(
        "select coalesce(sum(amount_minor), 0) as total from operation where kind = ? and currency_code = ? and state = ? and effective_time <= ?",
      ).get(kind, currencyCode, state, this.#options.clock.now());
      return row?.total as bigint;
    };
    return {
      capturedMinor: sum("capture", "captured"),
      refundedMinor: sum("refund", "refunded"),
      paidOutMinor: sum("payout", "sent"),
    };
  }

  confirmation(confirmationId: string): Confirmation | undefined {
    const row = this.#prepared(
      "select amount_minor, currency_code, state from operation where confirmation_id = ? and confirmation_id <> ''",
    ).get(confirmationId);
    return (
      row && {
        amountMinor: row.amount_minor as bigint,
        currencyCode: row.currency_code as string,
        state: row.state as Confirmation["state"],
      }
    );
  }

  decide(confirmationId: string, confirmed: boolean): void {
    this.#prepared(
      "update operation set state = ?, reason = ? where confirmation_id = ? and confirmation_id <> '' and state = 'confirm'",
    ).run(confirmed ? "approved" : "declined", confirmed ? "" : "PAYMENT_DECLINED", confirmationId);
  }

  close(): void {
    if (this.#db.isOpen) {
      this.#db.close();
    }
  }

  /** One call from outside: takes its time, and times out the first time where the token says so, before or after its effect. */
  async #call<T>(key: string, token: string, step: string, signal: AbortSignal, work: () => T): Promise<T> {
    await this.#wait(key, signal);
    const [, prefix, effect] =
      /^(?:tok|bank)_((?:capture_|refund_|void_)?)timeout_(charged|not_charged|paid|not_paid)$/.exec(token) ?? [];
    if (effect === undefined || prefix !== step) {
      return work();
    }
    const first = this.#prepared("insert into attempt (key) values (?) on conflict do nothing").run(key).changes === 1n;
    if (!first) {
      return work();
    }
    if (!effect.startsWith("not_")) {
      work();
    }
    throw new ProcessorTimeout(key);
  }

  /** All or nothing, and one process at a time. */
  #whole<T>(work: () => T): T {
    this.#db.exec("begin immediate");
    try {
      const result = work();
      this.#db.exec("commit");
      return result;
    } catch (error) {
      this.#db.exec("rollback");
      throw error;
    }
  }

  async #wait(what: string, signal: AbortSignal): Promise<void> {
    try {
      signal.throwIfAborted();
      if (this.#options.latencyMs) {
        await sleep(this.#options.latencyMs, undefined, { signal });
      }
    } catch {
      throw new ProcessorTimeout(what);
    }
  }

  #authorization(operation: Operation): Outcomes["authorization"] {
    switch (operation.state) {
      case "confirm":
        return {
          state: "confirm",
          confirmationUrl: `${this.#options.baseUrl()}/simulator/confirmations/${operation.confirmation_id}`,
        };
      case "declined":
        return {
          state: "declined",
          reason: operation.reason as (Outcomes["authorization"] & { state: "declined" })["reason"],
        };
      default:
        return { state: operation.state as "approved" | "dropped" };
    }
  }

  #payout(operation: Operation): Outcomes["payout"] {
    if (operation.state === "failed") {
      return { state: "failed", reason: operation.reason };
    }
    return { state: operation.effective_time <= BigInt(this.#options.clock.now()) ? "paid" : "pending" };
  }

  /** The operation that is there under the key. Throws when it was asked for with other contents: a mistake of the program. */
  #same(key: string, kind: Kind, amountMinor: bigint, currencyCode: string, token: string): Operation {
    const found = this.#require(key);
    if (
      found.kind !== kind ||
      found.amount_minor !== amountMinor ||
      found.currency_code !== currencyCode ||
      found.token !== token
    ) {
      throw new Error(`the key "${key}" was used for something else.`);
    }
    return found;
  }

  #get(key: string): Operation | undefined {
    return this.#prepared("select * from operation where key = ?").get(key) as unknown as Operation | undefined;
  }

  #require(key: string): Operation {
    const found = this.#get(key);
    if (found === undefined) {
      throw new Error(`the processor knows nothing under the key "${key}".`);
    }
    return found;
  }

  /** Writes an operation, and gives it as it is then; undefined when there is one under the key. */
  #insert(operation: NewOperation): Operation | undefined {
    const row: Operation = { parent_key: "", reason: "", confirmation_id: "", effective_time: 0n, ...operation };
    const { changes } = this.#prepared(
      "insert into operation values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) on conflict (key) do nothing",
    ).run(
      row.key,
      row.kind,
      row.parent_key,
      row.token,
      row.currency_code,
      row.amount_minor,
      row.state,
      row.reason,
      row.confirmation_id,
      row.effective_time,
    );
    return changes === 1n ? row : undefined;
  }

  /** A statement is prepared once. */
  #prepared(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (statement === undefined) {
      statement = this.#db.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }

  #setState(key: string, from: string, to: string): void {
    this.#prepared("update operation set state = ? where key = ? and state = ?").run(to, key, from);
  }
}

function copyOf(operation: Operation): Pick<Operation, "token" | "currency_code" | "amount_minor"> {
  return { token: operation.token, currency_code: operation.currency_code, amount_minor: operation.amount_minor };
}

const DECLINES: Readonly<Record<string, string>> = {
  tok_declined: "PAYMENT_DECLINED",
  tok_insufficient_funds: "INSUFFICIENT_FUNDS",
};

const APPROVED = /^tok_(approved|((capture|refund|void)_)?timeout_(not_)?charged|capture_expired)$/;

function verdictOn(token: string): { state: string; reason: string } {
  if (APPROVED.test(token)) {
    return { state: "approved", reason: "" };
  }
  if (token === "tok_needs_confirmation") {
    return { state: "confirm", reason: "" };
  }
  return { state: "declined", reason: DECLINES[token] ?? "PAYMENT_METHOD_INVALID" };
}
