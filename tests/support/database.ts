import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { EntityName } from "@mikro-orm/sql";
import pino from "pino";
import { type ManualClock, manualClock } from "#runtime/clock.ts";
import { type Database, openDatabase, type TablesOf } from "#runtime/database/database.ts";
import type { Migration } from "#runtime/database/migrations.ts";

/** A log that says nothing; give the level "debug" to see what happens. */
export const quietLog = pino({ level: process.env.TEST_LOG ?? "silent" });

/** A database of a service's own tables in a temporary file, and the clock that drives it. */
export interface TestDatabase<Tables> {
  database: Database<Tables>;
  clock: ManualClock;
}

/** Opens an empty database with the service's tables. The test closes it. */
export async function memoryDatabase<const E extends readonly EntityName[]>(
  entities: E,
  migrations: readonly Migration[],
  options: { service?: string; clock?: ManualClock } = {},
): Promise<TestDatabase<TablesOf<E>>> {
  const clock = options.clock ?? manualClock();
  const service = options.service ?? "test";
  const database = await openDatabase({ service, url: "sqlite::memory:", entities, migrations, clock, log: quietLog });
  return { database, clock };
}

/** A folder of its own for a test's database files. */
export function temporaryFolder(): { path: string; remove: () => void } {
  const path = mkdtempSync(join(tmpdir(), "souk-test-"));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}
