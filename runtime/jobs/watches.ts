import type { Kysely } from "kysely";
import type { Database } from "#runtime/database/database.ts";
import type { Transaction } from "#runtime/database/transaction.ts";

/** Rows that are looked at, and become jobs, at once. */
const BATCH = 32;

/**
 * Rows of a service's own table of which each becomes a job when its time comes. For what is planned with a row and almost always taken back with it: that costs a
 * column, where a job would cost a row. From its time on it is a job like any other: leased, tried again, a dead letter in the end.
 */
export interface Watch {
  readonly table: string;
  /** The primary key's column: the key of the job. */
  readonly key: string;
  /** The column with the time in milliseconds, indexed; null when nothing is to be done. Set to null when the job is planned, so that each time becomes one job. */
  readonly time: string;
}

type Row = Record<string, string | number | null>;

/** Plans the jobs of rows whose time has come. Gives when the next one's comes: in milliseconds since the epoch, Infinity when there is none. */
export async function planWatched(database: Database, kind: string, watch: Watch): Promise<number> {
  const now = database.clock.now();
  // By the index on the time: these are its first rows.
  const rows = await (database.sql as unknown as Kysely<Record<string, Row>>)
    .selectFrom(watch.table)
    .select([watch.key, watch.time])
    .where(watch.time, "is not", null)
    .orderBy(watch.time)
    .limit(BATCH)
    .execute();
  const found = rows.map((row) => ({ key: row[watch.key] as string, time: row[watch.time] as number }));
  const due = found.filter(({ time }) => time <= now);
  if (due.length > 0) {
    await database.transaction(async (tx) => {
      for (const { key, time } of due.toSorted((a, b) => (a.key < b.key ? -1 : 1))) {
        if (await taken(tx, watch, key, time)) {
          tx.schedule({ kind, key, dueTime: time });
        }
      }
    });
  }
  return due.length === BATCH ? now : (found[due.length]?.time ?? Number.POSITIVE_INFINITY);
}

/** Of several processes one has it, and none when the row has another time by now. */
async function taken(tx: Transaction, { table, key, time }: Watch, id: string, was: number): Promise<boolean> {
  const rows = tx.sql as unknown as Kysely<Record<string, Row>>;
  const [{ changed }] = await tx.together(
    rows
      .updateTable(table)
      .set({ [time]: null })
      .where(key, "=", id)
      .where(time, "=", was),
  );
  return changed === 1n;
}
