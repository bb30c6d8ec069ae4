import { setTimeout as sleep } from "node:timers/promises";
import { create, type DescMessage, type Message, type MessageShape } from "@bufbuild/protobuf";
import type { HandlerContext } from "@connectrpc/connect";
import type {
  EntityName,
  EntitySchemaWithMeta,
  InferClassEntityDB,
  InferKyselyDB,
  MikroORM,
  SqlEntityManager,
} from "@mikro-orm/sql";
import type { Kysely } from "kysely";
import type { Clock } from "#runtime/clock.ts";
import { DEADLINE_EXCEEDED, fail, reasonOf, UNAVAILABLE } from "#runtime/errors.ts";
import type { Log } from "#runtime/log.ts";
import type { Observer } from "#runtime/telemetry/observer.ts";
import { AnswerSignals } from "./answer-signals.ts";
import { meaningOf } from "./batch.ts";
import { compiledFor } from "./compiled.ts";
import { isContention, isLockTimeout, isLost, told } from "./errors.ts";
import { listsOf } from "./migrating.ts";
import { bringUp, isBehind, isOpen, type Migration, statusOf } from "./migrations.ts";
import { openStore } from "./open-store.ts";
import { CommandKnown, checkSame, commandKey, commandOf, readAnswer } from "./replay.ts";
import { insideScope, refuseInsideTransaction, type Scope } from "./scope.ts";
import type { Store } from "./store.ts";
import type { RuntimeTables } from "./tables.ts";
import { type Committed, OpenTransaction, type Transaction } from "./transaction.ts";

/** How long a transaction without a deadline of its own may wait and retry. */
export const TRANSACTION_TIMEOUT_MS = 30_000;
const CONTENTION_BACKOFF_MS = 5;
const CONTENTION_BACKOFF_MAX_MS = 200;
const ANSWER_POLL_MS = 250;
/** How often a command may be dropped again and again by others between being known and being looked at. */
const CLAIM_ROUNDS = 8;

/** The tables of a list of entities as Kysely sees them: table and column names in snake case. */
export type TablesOf<E extends readonly unknown[]> = InferKyselyDB<Extract<E[number], EntitySchemaWithMeta>> &
  InferClassEntityDB<E[number]>;

/** What a database is opened with. */
export interface DatabaseOptions<E extends readonly EntityName[]> {
  /** The owner, such as "catalog". */
  service: string;
  /**
   * `sqlite:<path>`, `sqlite::memory:` (a temporary file, gone at the end), `mariadb://<user>:<password>@<host>:<port>/<name>`, or the same with
   * `mysql:` for MySQL 8. `?pool=20` bounds the connections of this process to it; 10 unless given. `?replica=<host>:<port>&stale=5` names where `stale` may read, and how many
   * seconds behind.
   */
  url: string;
  /** The service's entities, listed one by one: classes, or schemas made by `defineEntity`. */
  entities: E;
  /** The service's migrations in order. */
  migrations: readonly Migration[];
  /** False refuses tables that are older than the program, instead of bringing them up to date. True unless given. */
  migrate?: boolean;
  /** How many databases on the server this process opens, this one included; 1 unless given. */
  together?: number;
  clock: Clock;
  log: Log;
  /** Watches its statements, and the events and jobs that go through it. */
  observer?: Observer | undefined;
}

/** Bounds of one transaction. */
export interface TransactionOptions {
  /** Real milliseconds since the epoch; 30 s from now unless given. Nothing begins after it, and no commit is sent; one that was sent is heard out. */
  deadline?: number;
  /** Ends waiting, and refuses the commit. */
  signal?: AbortSignal;
  /** The trace to which its events belong. */
  traceparent?: string;
  /** False for bookkeeping that may be repeated after the machine's power failed; its commit then waits for no disk. True unless given. */
  durable?: boolean;
}

/** The outcome of claiming a command: the first try goes on, a repeat has its answer. */
export type Claimed<R, A> =
  | { readonly first: true; readonly requestKey: string; readonly value: R }
  | { readonly first: false; readonly requestKey: string; readonly answer: A };

/** The database of one service. Made by `openDatabase`. */
export interface Database<Tables = unknown> {
  readonly service: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly observer: Observer | undefined;
  /**
   * Reads without a transaction: each query sees the last commit. `em` is the caller's own; `sql` is Kysely on the same connection.
   *
   * @throws Error inside a transaction: use `tx` there.
   */
  read<T>(work: (em: SqlEntityManager, sql: Kysely<Tables & RuntimeTables>) => Promise<T>): Promise<T>;
  /** Kysely outside transactions, for hot reads; each statement stands alone. */
  readonly sql: Kysely<Tables & RuntimeTables>;
  /**
   * Kysely for selects whose answer may be some seconds old, and need not show what the caller has just done: lists of what everybody may see. A replica answers
   * them, where the URL names one that is there and not too far behind; the primary otherwise.
   */
  readonly stale: Kysely<Tables & RuntimeTables>;
  /**
   * Runs `work` in a transaction and commits it; any error rolls it back. After a deadlock, a lock timeout or a busy file `work` runs again
   * from its start, within the deadline: it must leave nothing behind outside `tx`, and make no network call.
   *
   * @throws ConnectError DEADLINE_EXCEEDED when the deadline passes before the commit. UNAVAILABLE when the server is out of reach; if that was during
   * the commit, it may have happened.
   */
  transaction<T>(work: (tx: Transaction<Tables>) => Promise<T>, options?: TransactionOptions): Promise<T>;
  /**
   * A command in one transaction. The first answer is stored with the change under caller and `request_id`, for 30 days; a repeat gets that answer;
   * a concurrent repeat waits for it within its deadline. `work` answers in the shape of the method's output. If it throws, nothing is stored,
   * and a repeat tries again.
   *
   * @throws ConnectError REQUEST_ID_REUSED when the id came with another method or content before.
   */
  command<T extends object>(request: Message, context: HandlerContext, work: (tx: Transaction<Tables>) => Promise<T>): Promise<T>;
  /**
   * The first half of a command that calls others before it can answer. `work` records what is to be done under `requestKey`, and schedules the job that
   * finishes it if this process dies; then it is committed. The answer is stored later by `tx.answer(requestKey, …)`, from here or from the job.
   * A repeat waits, within its deadline, for that answer and gets it (a stored error is thrown).
   *
   * @throws ConnectError REQUEST_ID_REUSED; DEADLINE_EXCEEDED while the first is still under way.
   */
  claim<R, D extends DescMessage>(
    request: Message,
    context: HandlerContext,
    output: D,
    work: (tx: Transaction<Tables>, requestKey: string) => Promise<R>,
  ): Promise<Claimed<R, MessageShape<D>>>;
  /**
   * The stored answer of a command that is repeated; undefined while it has none. For commands that must call others before their one
   * transaction: they look first, so that a repeat calls nobody. The transaction still decides.
   *
   * @throws ConnectError REQUEST_ID_REUSED; the stored error.
   */
  answered<D extends DescMessage>(request: Message, context: HandlerContext, output: D): Promise<MessageShape<D> | undefined>;
  /**
   * Waits for the answer of a claimed command, wherever it is stored from. Undefined: the claim was dropped by `tx.forget`.
   *
   * @throws ConnectError the stored error; DEADLINE_EXCEEDED when there is no answer by the deadline.
   */
  awaitAnswer<D extends DescMessage>(
    requestKey: string,
    output: D,
    options: { deadline: number; signal?: AbortSignal },
  ): Promise<MessageShape<D> | undefined>;
  /** Hears of each commit in this process that others wait for: relay, jobs. Gives the function that ends it. */
  onCommit(listener: (committed: Committed) => void): () => void;
  /** Closes it. Transactions under way fail. */
  close(): Promise<void>;
}

/**
 * Opens a service's database and brings its tables up to date: the runtime's, then the service's. Tables that a newer program has changed are taken as they are.
 *
 * @throws Error a sentence that says what is wrong with the URL, the server, the user's rights or the tables, and what to do.
 */
export async function openDatabase<const E extends readonly EntityName[]>(
  options: DatabaseOptions<E>,
): Promise<Database<TablesOf<E>>> {
  const store = await openStore(options);
  try {
    await bringUpToDate(store, options);
    await store.verify();
  } catch (error) {
    await store.close();
    throw store.explained(error);
  }
  return new OpenDatabase(store, options) as unknown as Database<TablesOf<E>>;
}

async function bringUpToDate(store: Store, options: DatabaseOptions<readonly EntityName[]>): Promise<void> {
  const { service, migrations, migrate = true, clock } = options;
  const lists = listsOf(service, migrations);
  const status = await statusOf(store.orm.em.getKysely() as unknown as Kysely<unknown>, lists);
  const behind = status.filter(isBehind);
  if (migrate ? !status.some(isOpen) : behind.length === 0) {
    return;
  }
  if (!migrate) {
    const names = behind.map(({ name }) => name).join(", ");
    throw new Error(
      `the tables of "${service}" are older than this program: ${names} must run. Bring them up to date with: npm run migrate -- up ${service}`,
    );
  }
  await store.migrating((place) => bringUp(place, lists, clock.now(), "all"));
}

class OpenDatabase implements Database {
  readonly service: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly observer: Observer | undefined;
  readonly sql: Kysely<RuntimeTables>;
  readonly stale: Kysely<RuntimeTables>;
  readonly #orm: MikroORM;
  readonly #store: Store;
  readonly #listeners = new Set<(committed: Committed) => void>();
  readonly #answers = new AnswerSignals();

  constructor(store: Store, options: DatabaseOptions<readonly EntityName[]>) {
    const { orm } = store;
    this.#orm = orm;
    this.#store = store;
    this.service = options.service;
    this.clock = options.clock;
    this.log = options.log;
    this.observer = options.observer;
    this.sql = orm.em.getKysely() as unknown as Kysely<RuntimeTables>;
    this.stale = (store.stale ?? this.sql) as Kysely<RuntimeTables>;
  }

  async read<T>(work: (em: SqlEntityManager, sql: Kysely<RuntimeTables>) => Promise<T>): Promise<T> {
    refuseInsideTransaction(this.service, "a read");
    try {
      return await work(this.#orm.em.fork({ clear: true }), this.sql);
    } catch (error) {
      // Entities wrap what the driver says in an error of their own, which has its cause and not its reason.
      const { cause } = (error ?? {}) as { cause?: unknown };
      throw reasonOf(error) === undefined ? (told(cause) ?? error) : error;
    }
  }

  async transaction<T>(work: (tx: Transaction) => Promise<T>, options: TransactionOptions = {}): Promise<T> {
    refuseInsideTransaction(this.service, "a transaction");
    const given = options.deadline ?? Number.POSITIVE_INFINITY;
    const deadline = Number.isFinite(given) ? given : Date.now() + TRANSACTION_TIMEOUT_MS;
    for (let attempt = 1; ; attempt++) {
      checkTime(deadline, options.signal);
      try {
        return await this.#attempt(work, deadline, options);
      } catch (error) {
        if (isLockTimeout(error)) {
          fail(DEADLINE_EXCEEDED, { cause: error });
        }
        if (isLost(error)) {
          fail(UNAVAILABLE, { cause: error });
        }
        if (!isContention(error)) {
          throw error;
        }
        this.log.debug({ database: this.service, attempt }, "transaction lost a race; trying again");
        const backoff = Math.min(CONTENTION_BACKOFF_MAX_MS, CONTENTION_BACKOFF_MS * 2 ** attempt);
        await sleep(backoff * (0.5 + Math.random() / 2));
      }
    }
  }

  async #attempt<T>(work: (tx: Transaction) => Promise<T>, deadline: number, options: TransactionOptions): Promise<T> {
    const scope: Scope = {
      database: this.service,
      deadline,
      signal: options.signal,
      durable: options.durable ?? true,
      state: "starting",
    };
    const { result, committed } = await insideScope(scope, async () => {
      const sql = await this.sql.startTransaction().execute();
      scope.state = "open";
      try {
        // Its turn may have come too late, by as much as the event loop was.
        checkTime(deadline, options.signal);
        const tx = new OpenTransaction({
          service: this.service,
          sql,
          now: this.clock.now(),
          traceparent: options.traceparent ?? "",
          observer: this.observer,
          forkEntityManager: () => {
            const em = this.#orm.em.fork({ clear: true });
            em.setTransactionContext(sql);
            return em;
          },
        });
        const result = await work(tx);
        const committed = await tx.finish();
        checkTime(deadline, options.signal);
        await sql.commit().execute();
        return { result, committed };
      } catch (error) {
        await sql
          .rollback()
          .execute()
          .catch((rollbackError: unknown) => this.log.warn({ database: this.service, err: rollbackError }, "rollback failed"));
        throw meaningOf(error);
      } finally {
        scope.state = "ended";
      }
    });
    this.#announce(committed);
    return result;
  }

  #announce(committed: Committed): void {
    for (const answer of committed.answered) {
      this.#answers.announce(answer);
    }
    for (const run of [...committed.afterCommit, ...[...this.#listeners].map((listener) => () => listener(committed))]) {
      try {
        run();
      } catch (error) {
        this.log.error({ database: this.service, err: error }, "work after a commit failed");
      }
    }
  }

  async command<T extends object>(request: Message, context: HandlerContext, work: (tx: Transaction) => Promise<T>): Promise<T> {
    const output = context.method.output;
    const claimed = await this.#claim(request, context, output, async (tx, requestKey) => {
      const answer = create(output, (await work(tx)) as Record<string, unknown>) as unknown as T & Message;
      tx.answer(requestKey, output, answer);
      return answer;
    });
    return claimed.first ? claimed.value : (claimed.answer as unknown as T);
  }

  claim<R, D extends DescMessage>(
    request: Message,
    context: HandlerContext,
    output: D,
    work: (tx: Transaction, requestKey: string) => Promise<R>,
  ): Promise<Claimed<R, MessageShape<D>>> {
    return this.#claim(request, context, output, work);
  }

  async #claim<R, D extends DescMessage>(
    request: Message,
    context: HandlerContext,
    output: D,
    work: (tx: Transaction, requestKey: string) => Promise<R>,
  ): Promise<Claimed<R, MessageShape<D>>> {
    const command = commandOf(request, context);
    const { deadline, signal } = command.call;
    for (let round = 1; ; round++) {
      let known: CommandKnown;
      try {
        const value = await this.transaction(
          async (tx) => {
            await (tx as OpenTransaction).begin(command);
            try {
              return await work(tx, command.key);
            } catch (error) {
              // Work that failed before its first statement has not heard yet whether the command is known.
              await tx.together();
              throw error;
            }
          },
          { deadline, signal, traceparent: command.traceparent },
        );
        return { first: true, requestKey: command.key, value };
      } catch (error) {
        if (!(error instanceof CommandKnown)) {
          throw error;
        }
        known = error;
      }
      const row = await this.#replayRow(command.key);
      if (row === undefined && round > CLAIM_ROUNDS) {
        throw known;
      }
      if (row !== undefined && row.expire_time <= this.clock.now()) {
        await this.#dropExpired(command.key);
        continue;
      }
      if (row !== undefined) {
        checkSame(row, command);
        const answer = await this.awaitAnswer(command.key, output, { deadline, signal });
        if (answer !== undefined) {
          return { first: false, requestKey: command.key, answer };
        }
      }
    }
  }

  async answered<D extends DescMessage>(
    request: Message,
    context: HandlerContext,
    output: D,
  ): Promise<MessageShape<D> | undefined> {
    const row = await this.#replayRow(commandKey(request, context));
    if (row === undefined || row.expire_time <= this.clock.now()) {
      return undefined;
    }
    checkSame(row, commandOf(request, context));
    return readAnswer(row, output);
  }

  async #replayRow(key: string) {
    return (await this.sql.executeQuery(replayRow(this.sql, { key }))).rows[0];
  }

  async #dropExpired(key: string): Promise<void> {
    await this.transaction(async (tx) => {
      await tx.sql.deleteFrom("replay").where("request_key", "=", key).where("expire_time", "<=", tx.now).execute();
    });
  }

  async awaitAnswer<D extends DescMessage>(
    requestKey: string,
    output: D,
    options: { deadline: number; signal?: AbortSignal },
  ): Promise<MessageShape<D> | undefined> {
    refuseInsideTransaction(this.service, "waiting for an answer");
    for (;;) {
      const wake = this.#answers.listen(requestKey);
      try {
        const stored = this.#answers.take(requestKey);
        if (stored !== undefined) {
          return readAnswer(stored, output);
        }
        const row = await this.#replayRow(requestKey);
        if (row === undefined) {
          return undefined;
        }
        const answer = readAnswer(row, output);
        if (answer !== undefined) {
          return answer;
        }
        checkTime(options.deadline, options.signal);
        await wake.orAfter(Math.min(ANSWER_POLL_MS, Math.max(1, options.deadline - Date.now())), options.signal);
      } finally {
        wake.stop();
      }
    }
  }

  onCommit(listener: (committed: Committed) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async close(): Promise<void> {
    await this.#store.close();
  }
}

const replayRow = compiledFor((sql: Kysely<RuntimeTables>, at: { key: string }) =>
  sql.selectFrom("replay").select(["request_hash", "state", "answer", "expire_time"]).where("request_key", "=", at.key),
);

function checkTime(deadline: number, signal: AbortSignal | undefined): void {
  if (Date.now() >= deadline || signal?.aborted) {
    fail(DEADLINE_EXCEEDED);
  }
}
