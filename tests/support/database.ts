import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { EntityName } from "@mikro-orm/sql";
import pino from "pino";
import { type ManualClock, manualClock } from "#runtime/clock.ts";
import { type Database, openDatabase, type TablesOf } from "#runtime/database/database.ts";
import type { Migration } from "#runtime/database/migrations.ts";
import { emptyDatabase } from "./mariadb.ts";
import { refuseUnportable } from "./portable-sql.ts";

refuseUnportable();

/** A log that says nothing; give the level "debug" to see what happens. */
export const quietLog = pino({ level: process.env.TEST_LOG ?? "silent" });

/** On which tables this run of the tests works; `SOUK_TEST_STORE=mariadb` chooses the production ones. */
export const testStore: "sqlite" | "mariadb" = process.env.SOUK_TEST_STORE === "mariadb" ? "mariadb" : "sqlite";

/** A database of a service's own tables, and the clock that drives it. */
export interface TestDatabase<Tables> {
  database: Database<Tables>;
  clock: ManualClock;
}

/** Opens an empty database with the service's tables, in a temporary file or on the test run's MariaDB. The test closes it, and it is gone. */
export async function memoryDatabase<const E extends readonly EntityName[]>(
  entities: E,
  migrations: readonly Migration[],
  options: { service?: string; clock?: ManualClock } = {},
): Promise<TestDatabase<TablesOf<E>>> {
  const clock = options.clock ?? manualClock();
  const service = options.service ?? "test";
  const place = await databasePlace(service);
  const database = await openDatabase({ service, url: place.url, entities, migrations, clock, log: quietLog });
  const close = database.close.bind(database);
  database.close = async () => {
    await close();
    await place.remove();
  };
  return { database, clock };
}

/** Where a test's database may be: a URL that can be opened any number of times, by other processes too, until it is removed. */
export async function databasePlace(service: string): Promise<{ url: string; remove(): Promise<void> }> {
  if (testStore === "mariadb") {
    return emptyDatabase(service);
  }
  const folder = temporaryFolder();
  return {
    url: `sqlite:${join(folder.path, `${service}.db`)}`,
    remove: async () => folder.remove(),
  };
}

/** A folder of its own for a test's database files. */
export function temporaryFolder(): { path: string; remove: () => void } {
  const path = mkdtempSync(join(tmpdir(), "souk-test-"));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}
