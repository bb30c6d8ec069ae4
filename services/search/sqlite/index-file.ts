import { randomUUID } from "node:crypto";
import { readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync, type StatementSync } from "node:sqlite";

/** Raised whenever tables, text rules or tokeniser change: files of another format are built anew. */
const FORMAT = 1;
const FILE = /^search-index-(\d{1,9})\.db$/;

/** A file with an index, by its number: the higher, the newer. */
export interface IndexFile {
  readonly number: number;
  readonly path: string;
}

/** The index files in a folder, newest first. */
export function indexFiles(folder: string): IndexFile[] {
  return readdirSync(folder)
    .flatMap((name) => {
      const number = FILE.exec(name)?.[1];
      return number === undefined ? [] : [{ number: Number(number), path: join(folder, name) }];
    })
    .sort((a, b) => b.number - a.number);
}

/** Where the index of a number stands. */
export function indexFile(folder: string, number: number): IndexFile {
  return { number, path: join(folder, `search-index-${number}.db`) };
}

/** A row of `listing` as it is read. */
export interface ListingRow {
  readonly id: number;
  readonly listing_id: string;
  /** 1 on sale, 0 a tombstone. */
  readonly live: number;
  readonly seller_id: string;
  readonly title: string;
  readonly brand: string;
  readonly category_id: string;
  readonly condition: number;
  readonly currency_code: string;
  readonly price_minor: number;
  readonly photo_url: string;
  readonly publish_time: number;
}

/** Removes an index file with its log. */
export function removeIndexFile(file: IndexFile): void {
  for (const suffix of ["", "-wal", "-shm", "-journal"]) {
    rmSync(file.path + suffix, { force: true });
  }
}

/** Opens a connection that writes to an index. */
export function openForWriting(file: IndexFile): DatabaseSync {
  const db = new DatabaseSync(file.path, { timeout: 5_000 });
  db.exec("pragma journal_mode = wal; pragma synchronous = full; pragma temp_store = memory; pragma cache_size = -16000");
  return db;
}

/** Opens a connection that only reads an index. It never waits for the writer. */
export function openForReading(file: IndexFile): DatabaseSync {
  const db = new DatabaseSync(file.path, { timeout: 1_000 });
  db.exec("pragma query_only = on; pragma temp_store = memory; pragma cache_size = -32000; pragma mmap_size = 268435456");
  return db;
}

/** Whether the file holds a whole index of this program's format. */
export function isUsable(file: IndexFile): boolean {
  try {
    const db = openForReading(file);
    try {
      return readMeta(db, "format") === String(FORMAT) && readMeta(db, "complete") === "yes" && isSound(db);
    } finally {
      db.close();
    }
  } catch {
    return false;
  }
}

function isSound(db: DatabaseSync): boolean {
  return db.prepare("pragma quick_check(1)").get()?.quick_check === "ok";
}

/**
 * Makes an empty index. `listing` has one row for each listing ever seen; one that is not on sale keeps its sequence as a tombstone, so that an older event that
 * comes late does not bring it back (a rebuild drops them). The two text tables hold no text, only the index of it:
 * `words` finds, and `titles` ranks by titles alone, without the length of descriptions.
 */
export function createIndex(file: IndexFile): DatabaseSync {
  const db = openForWriting(file);
  const tokenizer = "tokenize = 'porter unicode61 remove_diacritics 2', content = '', contentless_delete = 1";
  db.exec(`
    pragma synchronous = off;
    create table meta (key text primary key, value text not null) without rowid;
    create table listing (
      id integer primary key,
      listing_id text not null unique,
      sequence integer not null,
      change integer not null unique,
      live integer not null check (live in (0, 1)),
      text_hash blob,
      seller_id text not null default '',
      title text not null default '',
      brand text not null default '',
      category_id text not null default '',
      condition integer not null default 0,
      currency_code text not null default '',
      price_minor integer not null default 0,
      photo_url text not null default '',
      publish_time integer not null default 0
    );
    create virtual table words using fts5(title, brand, description, spellings, heading, ${tokenizer});
    create virtual table titles using fts5(title, brand, ${tokenizer});
  `);
  writeMeta(db, "format", String(FORMAT));
  writeMeta(db, "generation", randomUUID());
  return db;
}

/** Makes a new index whole: compact, on disk, and chosen from now on when the folder is opened. */
export function completeIndex(db: DatabaseSync): void {
  db.exec("insert into words (words) values ('optimize'); insert into titles (titles) values ('optimize')");
  db.exec("pragma synchronous = full; pragma wal_checkpoint(truncate)");
  writeMeta(db, "complete", "yes");
  db.exec("pragma wal_checkpoint(truncate)");
}

/**
 * Prepares a statement that writes. FTS5 leaves row ids of its own as the connection's last one, some above 2^53, and reporting them as a number would
 * throw after the write.
 */
export function prepareWrite(db: DatabaseSync, sql: string): StatementSync {
  const statement = db.prepare(sql);
  statement.setReadBigInts(true);
  return statement;
}

/** A fact about the whole index; undefined when it was never written. */
export function readMeta(db: DatabaseSync, key: string): string | undefined {
  return db.prepare("select value from meta where key = ?").get(key)?.value as string | undefined;
}

/** Writes a fact about the whole index. */
export function writeMeta(db: DatabaseSync, key: string, value: string): void {
  prepareWrite(db, "insert into meta (key, value) values (?, ?) on conflict (key) do update set value = excluded.value").run(
    key,
    value,
  );
}
