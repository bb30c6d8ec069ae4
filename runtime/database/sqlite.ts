import { mkdtempSync, rmSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { type EntityName, MikroORM } from "@mikro-orm/sql";
import type { Kysely } from "kysely";
import { sqliteDialect } from "./sqlite-dialect.ts";
import { SoukSqliteOrmDriver } from "./sqlite-orm.ts";
import { ExactColumns, type Store, type StoreOptions } from "./store.ts";

/** Opens the file, or makes it. */
export async function openSqlite(options: StoreOptions): Promise<Store> {
  const place = await placeOf(options.url);
  const exact = new ExactColumns();
  const orm = await MikroORM.init({
    driver: SoukSqliteOrmDriver,
    driverOptions: sqliteDialect(place.file, exact.has),
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
    close,
  };
}

interface Place {
  readonly file: string;
  remove(): void;
}

const leftovers = new Set<string>();

function removeLeftovers(): void {
  for (const folder of leftovers) {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function placeOf(url: string): Promise<Place> {
  if (url.length === "sqlite:".length) {
    throw new Error(`the database URL "${url}" names no file: sqlite:<path>, or sqlite::memory:.`);
  }
  const path = url.slice("sqlite:".length);
  if (path === ":memory:") {
    // A real file: only then can the reader and the writer be two connections as they are in production.
    const folder = mkdtempSync(join(tmpdir(), "souk-"));
    // One listener for all of them: a test run opens hundreds.
    if (leftovers.size === 0) {
      process.removeListener("exit", removeLeftovers);
      process.once("exit", removeLeftovers);
    }
    leftovers.add(folder);
    return {
      file: join(folder, "memory.db"),
      remove: () => {
        leftovers.delete(folder);
        rmSync(folder, { recursive: true, force: true });
      },
    };
  }
  await mkdir(dirname(path), { recursive: true });
  return { file: path, remove: () => {} };
}
