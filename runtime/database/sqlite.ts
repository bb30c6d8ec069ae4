import { type EntityName, MikroORM } from "@mikro-orm/sql";
import type { Kysely } from "kysely";
import { placeOf } from "./place.ts";
import { sqliteDialect } from "./sqlite-dialect.ts";
import { SoukSqliteOrmDriver } from "./sqlite-orm.ts";
import { ExactColumns, type Store, type StoreOptions } from "./store.ts";

/** Opens the file, or makes it. */
export async function openSqlite(options: StoreOptions): Promise<Store> {
  const place = await placeOf(options.url);
  const exact = new ExactColumns();
  const orm = await MikroORM.init({
    driver: SoukSqliteOrmDriver,
    driverOptions: sqliteDialect(place.file, exact.has, options.service, options.observer),
    dbName: place.file,
    entities: options.entities as EntityName[],
    discovery: { warnWhenNoEntities: false },
    metadataCache: { enabled: false },
    ensureDatabase: false,
    logger: (message) => options.log.debug({ database: options.service }, message),
  });
  const close = async () => {
    await orm.close(true);
    place.remove();
  };
  try {
    // MikroORM connects at its first statement, which would be inside a transaction.
    await orm.connect();
    exact.learn(orm);
  } catch (error) {
    await close();
    throw error;
  }
  return {
    orm,
    // Each migration is a transaction that looks again once it holds the file.
    migrating: (work) =>
      work({ sql: orm.em.getKysely() as unknown as Kysely<unknown>, transactional: true, resuming: (rest) => rest() }),
    verify: async () => {},
    explained: (error) => error,
    close,
  };
}
