import {
  type CompiledQuery,
  type DatabaseConnection,
  type Dialect,
  type Driver,
  Kysely,
  MysqlAdapter,
  MysqlIntrospector,
  MysqlQueryCompiler,
  type QueryResult,
} from "kysely";
import type { Pool } from "mysql2";
import type { Log } from "#runtime/log.ts";
import { told } from "./errors.ts";
import { type DialectOptions, PoolDriver } from "./mysql-dialect.ts";
import type { RuntimeTables } from "./tables.ts";

/** How long the replica may take before the primary is asked instead. */
const REPLICA_TIMEOUT_MS = 2_000;
/** While stale reads are asked for, the replica is looked at so many times within the lag it may have, and at least so often; what was seen counts until the third look. */
const CHECKS = 5;
const CHECK_MAX_MS = 1_000;
const CHECKS_VALID = 3;
/** The row of `lease` by which the replica's lag is seen: the primary's is moved on at every look, and the replica has what it has. Nobody holds it. */
const BEAT = { name: "replica", owner: "beat" };

/** What stale reads are made of. */
export interface ReplicaOptions extends DialectOptions {
  readonly primary: Pool;
  readonly replica: Pool;
  /** Kysely on the primary, for the beat. */
  readonly primarySql: Kysely<RuntimeTables>;
  /** How far the replica may be behind. */
  readonly lagMaxMs: number;
  /** What the replica is called in the log. */
  readonly display: string;
  readonly log: Log;
}

/**
 * Kysely for reads that may be some seconds old: at the replica while it is there and behind by no more than `lagMaxMs` (and what it may fall behind before
 * that is seen, at most 3 s), at the primary otherwise. A read that the replica does not answer is asked of the primary.
 */
export function staleSql(options: ReplicaOptions): Kysely<unknown> {
  const primary = new PoolDriver(options.primary, options);
  const replica = new PoolDriver(options.replica, { ...options, timeoutMs: REPLICA_TIMEOUT_MS });
  const health = new ReplicaHealth(options, replica);
  const dialect: Dialect = {
    createDriver: () => new StaleDriver(primary, replica, health),
    createQueryCompiler: () => new MysqlQueryCompiler(),
    createAdapter: () => new MysqlAdapter(),
    createIntrospector: (db: Kysely<unknown>) => new MysqlIntrospector(db),
  };
  return new Kysely<unknown>({ dialect });
}

/** Whether the replica may be asked. It is looked at only while somebody wants to know. */
class ReplicaHealth {
  readonly #options: ReplicaOptions;
  readonly #sql: Kysely<RuntimeTables>;
  readonly #checkMs: number;
  #usableUntil = 0;
  #nextCheck = 0;
  #said: "nothing" | "usable" | "unusable" = "nothing";

  constructor(options: ReplicaOptions, replica: PoolDriver) {
    this.#options = options;
    this.#checkMs = Math.min(CHECK_MAX_MS, options.lagMaxMs / CHECKS);
    this.#sql = new Kysely<RuntimeTables>({
      dialect: {
        createDriver: () => replica,
        createQueryCompiler: () => new MysqlQueryCompiler(),
        createAdapter: () => new MysqlAdapter(),
        createIntrospector: (db: Kysely<unknown>) => new MysqlIntrospector(db),
      },
    });
  }

  isUsable(): boolean {
    const now = performance.now();
    if (now >= this.#nextCheck) {
      this.#nextCheck = now + this.#checkMs;
      void this.#check();
    }
    return now < this.#usableUntil;
  }

  /** It did not answer: nobody else has to wait for it before the next look. */
  failed(error: unknown): void {
    this.#usableUntil = 0;
    this.#say("unusable", { err: error });
  }

  async #check(): Promise<void> {
    const began = performance.now();
    try {
      const lagMs = await this.#lag();
      if (lagMs <= this.#options.lagMaxMs) {
        this.#usableUntil = began + CHECKS_VALID * this.#checkMs;
        this.#say("usable", { lagMs });
      } else {
        this.#usableUntil = 0;
        this.#say("unusable", { lagMs });
      }
    } catch (error) {
      this.failed(error);
    }
  }

  /** How old the primary's beat is that has arrived at the replica: at most a look's distance where nothing is behind. */
  async #lag(): Promise<number> {
    const { primarySql } = this.#options;
    const now = Date.now();
    const beat = (sql: Kysely<RuntimeTables>) =>
      sql.selectFrom("lease").select("expire_time").where("name", "=", BEAT.name).executeTakeFirst();
    const arrived = (await beat(this.#sql))?.expire_time ?? 0;
    // Other processes move it, too: the latest stays.
    await primarySql
      .updateTable("lease")
      .set({ expire_time: now })
      .where("name", "=", BEAT.name)
      .where("expire_time", "<", now)
      .execute();
    if (arrived === 0) {
      // Another process may make it at the same moment.
      await primarySql
        .insertInto("lease")
        .values({ ...BEAT, expire_time: now })
        .execute()
        .catch(() => {});
      return Number.POSITIVE_INFINITY;
    }
    return now - arrived;
  }

  #say(what: "usable" | "unusable", details: object): void {
    if (this.#said === what) {
      return;
    }
    const { log, display } = this.#options;
    if (what === "unusable") {
      log.warn({ ...details }, `the replica ${display} is away or too far behind; the primary answers its reads`);
    } else if (this.#said === "unusable") {
      log.info({ ...details }, `the replica ${display} is back`);
    }
    this.#said = what;
  }
}

class StaleDriver implements Driver {
  readonly #primary: PoolDriver;
  readonly #replica: PoolDriver;
  readonly #health: ReplicaHealth;

  constructor(primary: PoolDriver, replica: PoolDriver, health: ReplicaHealth) {
    this.#primary = primary;
    this.#replica = replica;
    this.#health = health;
  }

  async init(): Promise<void> {}

  async acquireConnection(): Promise<DatabaseConnection> {
    return new StaleConnection(this.#primary, this.#replica, this.#health);
  }

  async beginTransaction(): Promise<void> {
    throw new Error("stale reads stand alone: a transaction is the primary's.");
  }

  async commitTransaction(): Promise<void> {}

  async rollbackTransaction(): Promise<void> {}

  async releaseConnection(): Promise<void> {}

  /** Ends the replica's connections; the primary's belong to others. */
  async destroy(): Promise<void> {
    await this.#replica.destroy();
  }
}

/** One read, at one server or the other. */
class StaleConnection implements DatabaseConnection {
  readonly #primary: PoolDriver;
  readonly #replica: PoolDriver;
  readonly #health: ReplicaHealth;

  constructor(primary: PoolDriver, replica: PoolDriver, health: ReplicaHealth) {
    this.#primary = primary;
    this.#replica = replica;
    this.#health = health;
  }

  async executeQuery<R>(query: CompiledQuery): Promise<QueryResult<R>> {
    if (!/^\s*select\b/i.test(query.sql)) {
      throw new Error("a stale read is a select: what changes something is the primary's.");
    }
    if (this.#health.isUsable()) {
      try {
        return await at<R>(this.#replica, query);
      } catch (error) {
        const { code } = error as { code?: unknown };
        // Away or slow; or too far behind to know the table.
        if (
          told((error as { cause?: unknown }).cause) === undefined &&
          code !== "ER_NO_SUCH_TABLE" &&
          code !== "ER_BAD_FIELD_ERROR"
        ) {
          throw error;
        }
        this.#health.failed(error);
      }
    }
    return at<R>(this.#primary, query);
  }

  // biome-ignore lint/correctness/useYield: a refusal in the shape Kysely asks for.
  async *streamQuery<R>(): AsyncIterableIterator<QueryResult<R>> {
    throw new Error("streaming is not supported: read page by page.");
  }
}

async function at<R>(driver: PoolDriver, query: CompiledQuery): Promise<QueryResult<R>> {
  const connection = await driver.acquireConnection();
  try {
    return await connection.executeQuery<R>(query);
  } finally {
    await driver.releaseConnection(connection);
  }
}
