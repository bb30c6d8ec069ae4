import { type Kysely, sql } from "kysely";
import type { Log } from "#runtime/log.ts";

/** Leases, deadlines and the order in which things are due count on clocks that agree better than this. */
const SKEW_MAX_MS = 5_000;
/** A message and what stands around it, in one statement. */
const PACKET_MIN_BYTES = 8 * 1024 * 1024;

/** What the settings say about the server. */
export interface Expected {
  readonly flavour: "mariadb" | "mysql";
  /** The URL without its password. */
  readonly display: string;
  /** Connections that this process may make: to this database, and to all it opens. */
  readonly pool: number;
  readonly poolOfAll: number;
  readonly collation: string;
}

interface Server {
  readonly version: string;
  readonly read_only: number;
  readonly innodb_read_only: number;
  readonly max_connections: number;
  readonly max_user_connections: number;
  readonly max_allowed_packet: number;
  readonly log_bin: number;
  readonly binlog_format: string;
  readonly sync_binlog: number;
  readonly flush: number;
  /** Seconds since the epoch. */
  readonly server_time: number;
}

/**
 * Looks at the server before its tables are touched, and warns of what only durability suffers from.
 *
 * @throws Error a sentence that says which setting is wrong and what to do.
 */
export async function checkServer(db: Kysely<unknown>, expected: Expected, log: Log): Promise<void> {
  const { display } = expected;
  const sent = Date.now();
  const server = await readServer(db, display);
  const received = Date.now();
  const refused = versionProblem(server, expected) ?? settingProblem(server, expected);
  if (refused !== undefined) {
    throw new Error(`the server of ${display} ${refused}`);
  }
  const skew = server.server_time * 1000 - (sent + received) / 2;
  if (Math.abs(skew) - (received - sent) / 2 > SKEW_MAX_MS) {
    const seconds = (Math.abs(skew) / 1000).toFixed(1);
    throw new Error(
      `the clock of the server of ${display} is ${seconds} s ${skew > 0 ? "ahead of" : "behind"} this machine's, and more than ${SKEW_MAX_MS / 1000} s are not safe: let both follow the same time servers.`,
    );
  }
  for (const warning of warningsOf(server)) {
    log.warn(`the server of ${display} ${warning}`);
  }
}

async function readServer(db: Kysely<unknown>, display: string): Promise<Server> {
  try {
    const { rows } = await sql<Server>`select version() as version, @@global.read_only as read_only,
      @@global.innodb_read_only as innodb_read_only, @@global.max_connections as max_connections,
      @@session.max_user_connections as max_user_connections, @@global.max_allowed_packet as max_allowed_packet,
      @@global.log_bin as log_bin, @@global.binlog_format as binlog_format, @@global.sync_binlog as sync_binlog,
      @@global.innodb_flush_log_at_trx_commit as flush, unix_timestamp(now(3)) as server_time`.execute(db);
    return rows[0] as Server;
  } catch (error) {
    const { code, message } = ((error as { cause?: unknown }).cause ?? error) as { code?: string; message: string };
    throw new Error(`the database ${display} cannot be used: ${adviceFor(code) ?? message}`, { cause: error });
  }
}

function versionProblem({ version }: Server, { flavour }: Expected): string | undefined {
  const isMariaDb = /mariadb/i.test(version);
  if (isMariaDb !== (flavour === "mariadb")) {
    return `is version ${version}: its URL begins with ${isMariaDb ? "mariadb" : "mysql"}://.`;
  }
  const [major = 0, minor = 0] = version.split(".").map((part) => Number.parseInt(part, 10));
  if (isMariaDb ? major < 10 || (major === 10 && minor < 6) : major < 8) {
    return `is version ${version}: MariaDB 10.6 or MySQL 8.0 is the oldest that works.`;
  }
  return undefined;
}

function settingProblem(server: Server, { pool, poolOfAll }: Expected): string | undefined {
  if (server.read_only !== 0 || server.innodb_read_only !== 0) {
    return "is read-only: name the primary, and a replica only behind ?replica=.";
  }
  if (server.log_bin !== 0 && server.binlog_format === "STATEMENT") {
    return "has binlog_format = STATEMENT, which refuses READ COMMITTED: set it to ROW.";
  }
  if (poolOfAll > server.max_connections) {
    return `takes ${server.max_connections} connections, and this process alone may want ${poolOfAll}: raise max_connections above that of all processes, or lower ?pool= in the URL.`;
  }
  if (server.max_user_connections > 0 && pool > server.max_user_connections) {
    return `takes ${server.max_user_connections} connections of this user, and this process alone may want ${pool}: raise max_user_connections, or lower ?pool= in the URL.`;
  }
  return undefined;
}

function warningsOf(server: Server): string[] {
  const warnings: string[] = [];
  if (server.flush !== 1) {
    warnings.push(
      `may lose what it acknowledged when its machine fails: set innodb_flush_log_at_trx_commit = 1, not ${server.flush}.`,
    );
  }
  if (server.log_bin !== 0 && server.sync_binlog !== 1) {
    warnings.push(
      `may lose what it acknowledged, or disagree with its replicas, after a crash: set sync_binlog = 1, not ${server.sync_binlog}.`,
    );
  }
  if (server.max_allowed_packet < PACKET_MIN_BYTES) {
    warnings.push(
      `refuses statements above ${server.max_allowed_packet} bytes: set max_allowed_packet to ${PACKET_MIN_BYTES} or more.`,
    );
  }
  return warnings;
}

function adviceFor(code: string | undefined): string | undefined {
  switch (code) {
    case "ER_ACCESS_DENIED_ERROR":
      return "the server refuses the user or the password.";
    case "ER_HOST_NOT_PRIVILEGED":
      return "the server takes no connections from this machine: create the user for this host.";
    case "ER_DBACCESS_DENIED_ERROR":
      return "the user has no rights on this database: grant all on it to this user.";
    case "ER_BAD_DB_ERROR":
      return "there is no such database: create it first.";
    case "ER_CON_COUNT_ERROR":
    case "ER_TOO_MANY_USER_CONNECTIONS":
    case "ER_USER_LIMIT_REACHED":
      return "the server has no connection left: raise max_connections, or lower ?pool= in the URLs of all processes.";
    case "HANDSHAKE_NO_SSL_SUPPORT":
      return "the server speaks no TLS, which ?tls= in its URL demands.";
    case "ER_SECURE_TRANSPORT_REQUIRED":
      return "the server takes connections over TLS only: say ?tls=verify in its URL.";
    case "ECONNREFUSED":
    case "ETIMEDOUT":
    case "ENOTFOUND":
    case "EAI_AGAIN":
    case "EHOSTUNREACH":
      return `no server answers there (${code}).`;
    default:
      return undefined;
  }
}

/**
 * Looks at the tables once they are up to date. Three statements that touch no row ask for the rights of every command.
 *
 * @throws Error a sentence that says which table is wrong, or which right is missing, and what to do.
 */
export async function checkTables(db: Kysely<unknown>, { display, collation }: Expected): Promise<void> {
  const { rows } = await sql<{ name: string; engine: string; collation: string }>`
    select table_name as name, engine as engine, table_collation as collation from information_schema.tables
    where table_schema = database() and table_type = 'BASE TABLE'`.execute(db);
  const other = rows.find((row) => row.engine !== "InnoDB");
  if (other !== undefined) {
    throw new Error(
      `the table "${other.name}" of ${display} is stored by ${other.engine}, which knows no transactions: alter table ${other.name} engine = InnoDB.`,
    );
  }
  const loose = rows.find((row) => row.collation !== collation);
  if (loose !== undefined) {
    throw new Error(
      `the table "${loose.name}" of ${display} compares text by ${loose.collation}, in which different keys may be equal: alter table ${loose.name} convert to character set utf8mb4 collate ${collation}.`,
    );
  }
  await sql`insert into migration (owner, name, run_time) select owner, name, run_time from migration where 1 = 0`.execute(db);
  await sql`update migration set run_time = 0 where 1 = 0`.execute(db);
  await sql`delete from migration where 1 = 0`.execute(db);
}

/** What a missing right is called, with what to do; any other error as it is. */
export function explained(error: unknown, display: string): unknown {
  const { errno, sqlMessage } = (error ?? {}) as { errno?: number; sqlMessage?: string };
  return RIGHT_MISSING.has(errno)
    ? new Error(`the user of ${display} lacks a right: ${sqlMessage}. Grant all on this database to it.`, { cause: error })
    : error;
}

/** Of the database, the table, the column, an administrator, a routine. */
const RIGHT_MISSING: ReadonlySet<number | undefined> = new Set([1044, 1142, 1143, 1227, 1370]);
