import { type Kysely, sql } from "kysely";
import type { MigrationPlace } from "./store.ts";

/**
 * One change of a database's tables. `up` uses Kysely's schema builder, or SQL that SQLite and MySQL both understand; the
 * column types both know are `varchar(n)`, `text` (64 KiB there), `integer`, `bigint`, `double precision` and `blob` (a `longblob` there).
 * MySQL does not undo changes of tables: a statement that makes or drops something is resumed there, one that changes rows must bear being run twice. A migration that has landed is never
 * changed: the next one corrects it.
 */
export interface Migration {
  /** Unique within the service; by convention `0001-what-it-does`. Run in the order of the list. */
  readonly name: string;
  up(sql: Kysely<unknown>): Promise<void>;
}

interface MigrationTables {
  migration: { owner: string; name: string; run_time: number };
}

/** Stands for the time of a migration that has begun and not ended: where changes of tables are not transactional. */
const UNDER_WAY = -1;

/**
 * Runs the migrations of the list that have not run, in order, each with the note that it ran: in one transaction where the database's changes of tables are
 * transactional; elsewhere the note is made first and an interrupted migration is resumed. `owner` separates the runtime's list from the service's.
 *
 * @throws Error when the database has run a migration that the list lacks: an older program must not write to newer tables.
 */
export async function migrate(place: MigrationPlace, owner: string, migrations: readonly Migration[], now: number): Promise<void> {
  const tables = place.sql as Kysely<MigrationTables>;
  await sql`create table if not exists migration (owner varchar(16) not null, name varchar(128) not null, run_time bigint not null, primary key (owner, name))`.execute(
    place.sql,
  );
  const done = await notesOf(tables, owner);
  const known = new Set(migrations.map((migration) => migration.name));
  const unknown = [...done.keys()].find((name) => !known.has(name));
  if (unknown !== undefined) {
    throw new Error(
      `the database has run the migration "${unknown}" (${owner}), which this program does not know: it is older than the data.`,
    );
  }
  for (const migration of migrations) {
    const runTime = done.get(migration.name);
    if (runTime === undefined || runTime === UNDER_WAY) {
      await (place.transactional ? runWhole(tables, owner, migration, now) : runInSteps(place, owner, migration, now));
    }
  }
}

async function notesOf(tables: Kysely<MigrationTables>, owner: string): Promise<Map<string, number>> {
  const rows = await tables.selectFrom("migration").select(["name", "run_time"]).where("owner", "=", owner).execute();
  return new Map(rows.map((row) => [row.name, row.run_time]));
}

async function runWhole(tables: Kysely<MigrationTables>, owner: string, migration: Migration, now: number): Promise<void> {
  await tables.transaction().execute(async (tx) => {
    // Another process may have run it since the list was read.
    if (!(await notesOf(tx, owner)).has(migration.name)) {
      await migration.up(tx as unknown as Kysely<unknown>);
      await tx.insertInto("migration").values({ owner, name: migration.name, run_time: now }).execute();
    }
  });
}

/** Alone, by the lock under which migrations run. */
async function runInSteps(place: MigrationPlace, owner: string, migration: Migration, now: number): Promise<void> {
  const tables = place.sql as Kysely<MigrationTables>;
  const begun = (await notesOf(tables, owner)).has(migration.name);
  if (begun) {
    await place.resuming(() => migration.up(place.sql));
  } else {
    await tables.insertInto("migration").values({ owner, name: migration.name, run_time: UNDER_WAY }).execute();
    await migration.up(place.sql);
  }
  await tables
    .updateTable("migration")
    .set({ run_time: now })
    .where("owner", "=", owner)
    .where("name", "=", migration.name)
    .execute();
}
