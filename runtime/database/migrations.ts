import { type Kysely, sql } from "kysely";
import { isMissingTable } from "./errors.ts";
import type { MigrationPlace } from "./store.ts";

/**
 * One change of a database's tables. `up` uses Kysely's schema builder, or SQL that SQLite and MySQL both understand; the
 * column types both know are `varchar(n)`, `text` (64 KiB there), `integer`, `bigint`, `double precision` and `blob` (a `longblob` there).
 * MySQL does not undo changes of tables: a statement that makes or drops something is resumed there, one that changes rows must bear being run twice.
 *
 * Programs that were there before go on running on the tables after `up`: a migration adds, and what it makes superfluous is removed by a later one, once
 * no program that uses it is left. One that has landed is never changed: the next one corrects it.
 *
 * One that removes says so (`contracts`). It lands after the program that stopped using what it removes, so that one can go back to that program; and an
 * upgrade runs it last, when the old processes have ended. So those after it in the list run before it, or after it, and bear both.
 */
export interface Migration {
  /** Unique within the service; by convention `0001-what-it-does`. Run in the order of the list. */
  readonly name: string;
  /** Whether it removes what no program that came with it uses. It may be left for later; false unless given. */
  readonly contracts?: boolean;
  up(sql: Kysely<unknown>): Promise<void>;
  /** Undoes `up`, without losing what people did (see `dropEmpty`); or the sentence that says why it cannot be undone. */
  readonly down: string | ((sql: Kysely<unknown>) => Promise<void>);
}

/** Migrations in order, and whose they are: "runtime", or the service's name. */
export interface MigrationList {
  readonly owner: string;
  readonly migrations: readonly Migration[];
}

/** Where a migration stands. `unknown`: a newer program ran it. `begun` and `undoing` were interrupted, or another process is at it. */
export interface MigrationStatus {
  readonly owner: string;
  readonly name: string;
  readonly state: "done" | "pending" | "begun" | "undoing" | "unknown";
  /** See `Migration`. */
  readonly contracts: boolean;
  /** When it ran, in milliseconds since the epoch; undefined when it is not done. */
  readonly runTime: number | undefined;
}

interface MigrationTables {
  migration: { owner: string; name: string; run_time: number };
}

/** Stand for the time of a migration that has begun, or is being undone: where changes of tables are not transactional. */
const BEGUN = -1;
const UNDOING = -2;

/** Where every migration of the lists stands, in order, and behind each list what only a newer program knows. Changes nothing. */
export async function statusOf(db: Kysely<unknown>, lists: readonly MigrationList[]): Promise<MigrationStatus[]> {
  const status: MigrationStatus[] = [];
  for (const { owner, migrations } of lists) {
    const notes = await notesOf(db, owner);
    for (const { name, contracts = false } of migrations) {
      status.push({ owner, name, contracts, ...stateOf(notes.get(name)) });
      notes.delete(name);
    }
    for (const [name, runTime] of notes) {
      status.push({ owner, name, contracts: false, state: "unknown", runTime: runTime < 0 ? undefined : runTime });
    }
  }
  return status;
}

function stateOf(note: number | undefined): Pick<MigrationStatus, "state" | "runTime"> {
  switch (note) {
    case undefined:
      return { state: "pending", runTime: undefined };
    case BEGUN:
      return { state: "begun", runTime: undefined };
    case UNDOING:
      return { state: "undoing", runTime: undefined };
    default:
      return { state: "done", runTime: note };
  }
}

/** Whether something is left to run, now or later. */
export function isOpen({ state }: MigrationStatus): boolean {
  return state !== "done" && state !== "unknown";
}

/**
 * Whether the program must not work on these tables yet. What a newer program added is no reason: it expands first, and contracts later. Nor is what is still
 * there and superfluous.
 */
export function isBehind(status: MigrationStatus): boolean {
  return isOpen(status) && !status.contracts;
}

/** Which migrations are run: all, or those that leave everything where programs look for it that still run. */
export type Which = "all" | "expanding";

/**
 * Runs the migrations that have not run, in order, each with the note that it ran: in one transaction where the database's changes of tables are
 * transactional; elsewhere the note is made first and an interrupted migration is resumed. Gives the names of those it ran.
 */
export async function bringUp(
  place: MigrationPlace,
  lists: readonly MigrationList[],
  now: number,
  which: Which,
): Promise<string[]> {
  await sql`create table if not exists migration (owner varchar(16) not null, name varchar(128) not null, run_time bigint not null, primary key (owner, name))`.execute(
    place.sql,
  );
  const ran: string[] = [];
  for (const { owner, migrations } of lists) {
    const notes = await notesOf(place.sql, owner);
    for (const migration of migrations.filter(({ contracts }) => which === "all" || !contracts)) {
      const note = notes.get(migration.name);
      if (note === undefined || note < 0) {
        await (place.transactional ? runWhole : runInSteps)({ place, owner, migration }, now);
        ran.push(migration.name);
      }
    }
  }
  return ran;
}

/** How far to go back: a number of migrations, or all that ran after the named one. */
export type Back = { readonly steps: number } | { readonly to: string };

/**
 * Undoes the last migrations of a list, the last one first, and gives their names.
 *
 * @throws Error the sentence of one that cannot be undone; those after it are undone by then.
 */
export async function undo(place: MigrationPlace, list: MigrationList, back: Back): Promise<string[]> {
  const { owner, migrations } = list;
  const notes = await notesOf(place.sql, owner);
  const unknown = [...notes.keys()].find((name) => !migrations.some((migration) => migration.name === name));
  if (unknown !== undefined) {
    throw new Error(`The migration "${unknown}" (${owner}) came with a newer program: undo it with that one first.`);
  }
  const ran = migrations.filter(({ name }) => notes.has(name)).reverse();
  if ("to" in back && !ran.some(({ name }) => name === back.to)) {
    throw new Error(`The migration "${back.to}" (${owner}) has not run here: there is no going back to it.`);
  }
  const wanted = "to" in back ? ran.findIndex(({ name }) => name === back.to) : back.steps;
  const undone: string[] = [];
  for (const migration of ran.slice(0, wanted)) {
    await (place.transactional ? undoWhole : undoInSteps)({ place, owner, migration });
    undone.push(migration.name);
  }
  return undone;
}

/**
 * Drops tables, for `down`: all of them, or none when one holds rows that would be lost. Those that are gone already are left out.
 *
 * @throws Error which table holds rows.
 */
export async function dropEmpty(db: Kysely<unknown>, tables: readonly string[]): Promise<void> {
  const rows = db as Kysely<Record<string, { n: number }>>;
  const there = new Set((await db.introspection.getTables()).map(({ name }) => name));
  const left = tables.filter((table) => there.has(table));
  for (const table of left) {
    const { n } = await rows
      .selectFrom(table)
      .select((eb) => eb.fn.countAll<number>().as("n"))
      .executeTakeFirstOrThrow();
    if (n > 0) {
      throw new Error(`The table "${table}" holds ${n} rows, which undoing would lose: empty it first if that is what you want.`);
    }
  }
  for (const table of left) {
    await db.schema.dropTable(table).execute();
  }
}

async function notesOf(db: Kysely<unknown>, owner: string): Promise<Map<string, number>> {
  try {
    const tables = db as Kysely<MigrationTables>;
    const rows = await tables
      .selectFrom("migration")
      .select(["name", "run_time"])
      .where("owner", "=", owner)
      .orderBy("name")
      .execute();
    return new Map(rows.map((row) => [row.name, row.run_time]));
  } catch (error) {
    if (isMissingTable(error)) {
      return new Map();
    }
    throw error;
  }
}

/** One migration of one list, where it is to be run or undone. */
interface Step {
  readonly place: MigrationPlace;
  readonly owner: string;
  readonly migration: Migration;
}

async function runWhole({ place, owner, migration }: Step, now: number): Promise<void> {
  await place.sql.transaction().execute(async (tx) => {
    // Another process may have run it since the list was read.
    if (!(await notesOf(tx, owner)).has(migration.name)) {
      await migration.up(tx);
      await note(tx, owner, migration.name, now);
    }
  });
}

/** Alone, by the lock under which migrations run. */
async function runInSteps({ place, owner, migration }: Step, now: number): Promise<void> {
  let before = (await notesOf(place.sql, owner)).get(migration.name);
  if (before === UNDOING) {
    await undoInSteps({ place, owner, migration });
    before = undefined;
  }
  if (before === BEGUN) {
    await place.resuming(() => migration.up(place.sql));
  } else {
    await note(place.sql, owner, migration.name, BEGUN);
    await migration.up(place.sql);
  }
  await note(place.sql, owner, migration.name, now);
}

async function undoWhole({ place, owner, migration }: Step): Promise<void> {
  await place.sql.transaction().execute(async (tx) => {
    if ((await notesOf(tx, owner)).has(migration.name)) {
      await downOf(migration)(tx);
      await eraseNote(tx, owner, migration.name);
    }
  });
}

async function undoInSteps({ place, owner, migration }: Step): Promise<void> {
  const down = downOf(migration);
  const before = (await notesOf(place.sql, owner)).get(migration.name);
  await note(place.sql, owner, migration.name, UNDOING);
  try {
    await (before === BEGUN || before === UNDOING ? place.resuming(() => down(place.sql)) : down(place.sql));
  } catch (error) {
    // A refusal comes before the first change and leaves it as it was; what the server stopped is resumed from here.
    if (before !== undefined && before >= 0 && error instanceof Error && !("errno" in error)) {
      await note(place.sql, owner, migration.name, before);
    }
    throw error;
  }
  await eraseNote(place.sql, owner, migration.name);
}

function downOf({ name, down }: Migration): (db: Kysely<unknown>) => Promise<void> {
  if (typeof down === "string") {
    throw new Error(`The migration "${name}" cannot be undone: ${down}`);
  }
  return down;
}

async function note(db: Kysely<unknown>, owner: string, name: string, runTime: number): Promise<void> {
  const tables = db as Kysely<MigrationTables>;
  const { numUpdatedRows } = await tables
    .updateTable("migration")
    .set({ run_time: runTime })
    .where("owner", "=", owner)
    .where("name", "=", name)
    .executeTakeFirst();
  if (numUpdatedRows === 0n) {
    await tables.insertInto("migration").values({ owner, name, run_time: runTime }).execute();
  }
}

async function eraseNote(db: Kysely<unknown>, owner: string, name: string): Promise<void> {
  const tables = db as Kysely<MigrationTables>;
  await tables.deleteFrom("migration").where("owner", "=", owner).where("name", "=", name).execute();
}
