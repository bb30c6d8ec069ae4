// The private stores of `npm start -- --stores=production`: their data stays in the data folder, they themselves end with the marketplace.

import { randomBytes } from "node:crypto";
import path from "node:path";
import { startMariadb } from "./mariadb.ts";
import { startRedis } from "./redis.ts";
import { ensureDatabase } from "./stores.ts";

/** The folder inside the data folder. */
export const KEPT_FOLDER = "stores";

const SEARCH = { variables: { MariaDB: "SOUK_DATABASE_URL", Redis: "SOUK_REDIS_URL" } };

/** Starts a MariaDB and a Redis on this folder, with a database and a user for each service. */
export async function startKept(folder: string, services: readonly string[]) {
  const mariadb = await startMariadb({ folder: path.join(folder, "mariadb") }, SEARCH);
  const redis = await startRedis({ folder: path.join(folder, "redis") }, SEARCH).catch(async (error: unknown) => {
    await mariadb.stop();
    throw error;
  });
  const stop = async () => {
    await Promise.all([redis.stop(), mariadb.stop()]);
  };
  const urls = new Map<string, string>();
  try {
    for (const service of services)
      urls.set(service, await ensureDatabase(mariadb.url, { name: `souk_${service}`, password: randomBytes(12).toString("hex") }));
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    databaseUrl(service: string): string {
      const url = urls.get(service);
      if (url === undefined) throw new Error(`no database was made for ${service}`);
      return url;
    },
    redisUrl: redis.url,
    stop,
  };
}
