import { type Kysely, sql } from "kysely";

/**
 * One change of a database's tables. `up` uses Kysely's schema builder, or SQL that SQLite and MySQL both understand; the
 * column types both know are `varchar(n)`, `text`, `integer`, `bigint`, `double precision` and `blob`. A migration that has landed is never
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

/**
 * Runs the migrations of the list that have not run, in order, each in a transaction of its own with the note that it ran. `owner`
 * separates the runtime's list from the service's.
 *
 * @throws Error when the database has run a migration that the list lacks: an older program must not write to newer tables.
 */
export async function migrate(db: Kysely<unknown>, owner: string, migrations: readonly Migration[], now: number): Promise<void> {
  const tables = db as Kysely<MigrationTables>;
  await sql`create table if not exists migration (owner varchar(16) not null, name varchar(128) not null, run_time bigint not null, primary key (owner, name))`.execute(
    db,
  );
  const rows = await tables.selectFrom("migration").select("name").where("owner", "=", owner).execute();
  const done = new Set(rows.map((row) => row.name));
  const known = new Set(migrations.map((migration) => migration.name));
  const unknown = [...done].find((name) => !known.has(name));
  if (unknown !== undefined) {
    throw new Error(
      `the database has run the migration "${unknown}" (${owner}), which this program does not know: it is older than the data.`,
    );
  }
  for (const migration of migrations) {
    if (!done.has(migration.name)) {
      await tables.transaction().execute(async (tx) => {
        // Another process may have run it since the list was read; the key refuses the second note.
        const ran = await tx
          .selectFrom("migration")
          .select("name")
          .where("owner", "=", owner)
          .where("name", "=", migration.name)
          .executeTakeFirst();
        if (ran === undefined) {
          await migration.up(tx as unknown as Kysely<unknown>);
          await tx.insertInto("migration").values({ owner, name: migration.name, run_time: now }).execute();
        }
      });
    }
  }
}
