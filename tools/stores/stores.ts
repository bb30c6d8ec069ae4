// The production stores for tests and for `npm start -- --stores=production`: servers of one's own where they are named, else private ones.

import { randomBytes } from "node:crypto";
import { createConnection } from "mysql2/promise";
import { startMariadb } from "./mariadb.ts";
import type { PrivateServer } from "./private.ts";
import type { Search } from "./programs.ts";
import { startRedis } from "./redis.ts";

/** Names the administrator's URL of a MariaDB or MySQL for tests, like mysql://root:password@127.0.0.1:3306. */
export const TEST_MYSQL_VARIABLE = "SOUK_TEST_MYSQL_URL";
/** Names a Redis for tests, like redis://:password@127.0.0.1:6379. Tests may empty it. */
export const TEST_REDIS_VARIABLE = "SOUK_TEST_REDIS_URL";

/** A MariaDB and a Redis that answer. */
export interface Stores {
  /** The administrator's: it may make databases and users. */
  readonly mysqlAdminUrl: string;
  readonly redisUrl: string;
  /** Makes an empty database with a name, a user and a password of its own, and gives that user's URL. */
  createDatabase(service: string): Promise<string>;
  /** Removes the databases made here, and ends the servers that were started here. */
  stop(): Promise<void>;
}

/**
 * Gives the stores that the environment names, else starts private ones, which end with this process at the latest.
 *
 * @throws StoresMissing one sentence that says what to install, or which variable to set.
 */
export async function startStores(search: Search = {}, env: NodeJS.ProcessEnv = process.env): Promise<Stores> {
  const started: PrivateServer[] = [];
  const start = async (server: Promise<PrivateServer>) => {
    const running = await server;
    started.push(running);
    return running.url;
  };
  const begun = await Promise.allSettled([
    env[TEST_MYSQL_VARIABLE] || start(startMariadb({}, search)),
    env[TEST_REDIS_VARIABLE] || start(startRedis({}, search)),
  ]);
  const [mysql, redis] = begun;
  if (mysql.status === "rejected" || redis.status === "rejected") {
    await Promise.all(started.map((server) => server.stop()));
    throw begun.find((each) => each.status === "rejected")?.reason;
  }
  const { createDatabase, dropAll } = databasesOf(mysql.value);
  return {
    mysqlAdminUrl: mysql.value,
    redisUrl: redis.value,
    createDatabase,
    async stop() {
      if (env[TEST_MYSQL_VARIABLE]) await dropAll();
      await Promise.all(started.map((server) => server.stop()));
    },
  };
}

function databasesOf(adminUrl: string) {
  const made: string[] = [];
  return {
    async createDatabase(service: string): Promise<string> {
      const name = `souk_${service.replace(/[^a-z0-9]/g, "_").slice(0, 12)}_${randomBytes(6).toString("hex")}`;
      const url = await ensureDatabase(adminUrl, { name, password: randomBytes(12).toString("hex") });
      made.push(name);
      return url;
    },
    async dropAll(): Promise<void> {
      if (made.length === 0) return;
      const admin = await createConnection(plain(adminUrl));
      for (const name of made.splice(0)) {
        await admin.query(`DROP DATABASE IF EXISTS \`${name}\``);
        await admin.query(`DROP USER IF EXISTS '${name}'@'%'`);
      }
      await admin.end();
    },
  };
}

/**
 * Makes a database, and a user of the same name who may do everything in it and nothing elsewhere; what is there stays, with this password.
 *
 * @returns the user's URL, with the administrator's scheme, host and port
 */
export async function ensureDatabase(adminUrl: string, { name, password }: { name: string; password: string }): Promise<string> {
  if (!/^[a-z0-9_]{1,32}$/.test(name) || !/^[A-Za-z0-9]+$/.test(password)) throw new Error(`not a database's name: ${name}`);
  const admin = await createConnection(plain(adminUrl));
  try {
    await admin.query(`CREATE DATABASE IF NOT EXISTS \`${name}\` CHARACTER SET utf8mb4`);
    await admin.query(`CREATE USER IF NOT EXISTS '${name}'@'%' IDENTIFIED BY '${password}'`);
    await admin.query(`ALTER USER '${name}'@'%' IDENTIFIED BY '${password}'`);
    await admin.query(`GRANT ALL PRIVILEGES ON \`${name}\`.* TO '${name}'@'%'`);
  } finally {
    await admin.end();
  }
  const url = new URL(adminUrl);
  return `${url.protocol}//${name}:${password}@${url.host}/${name}`;
}

/** mysql2 knows only its own scheme. */
function plain(url: string): string {
  return url.replace(/^mariadb:/, "mysql:");
}
