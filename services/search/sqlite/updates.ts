import { createHash } from "node:crypto";
import type { DatabaseSync, StatementSync } from "node:sqlite";
import { headingOf } from "../heading.ts";
import type { Change, ListingDocument } from "../index.ts";
import { fold, spellings, withBigrams } from "../text.ts";
import { prepareWrite, readMeta, writeMeta } from "./index-file.ts";

interface Known {
  readonly id: number;
  readonly sequence: number;
  readonly live: number;
  readonly text_hash: Uint8Array | null;
}

/** Writes changes into one index file. */
export class Updates {
  readonly #db: DatabaseSync;
  readonly #find: StatementSync;
  readonly #insert: StatementSync;
  readonly #update: StatementSync;
  readonly #bury: StatementSync;
  readonly #insertWords: StatementSync;
  readonly #deleteWords: StatementSync;
  readonly #insertTitle: StatementSync;
  readonly #deleteTitle: StatementSync;
  #change: number;
  /** The time of the latest event applied, in milliseconds since the epoch; 0 before the first. */
  lastEventTime: number;

  constructor(db: DatabaseSync) {
    const columns = "seller_id, title, brand, category_id, condition, currency_code, price_minor, photo_url, publish_time";
    this.#db = db;
    this.#find = db.prepare("select id, sequence, live, text_hash from listing where listing_id = ?");
    this.#insert = prepareWrite(
      db,
      `insert into listing (listing_id, sequence, change, live, text_hash, ${columns}) values (?, ?, ?, 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    );
    this.#update = prepareWrite(
      db,
      `update listing set sequence = ?, change = ?, live = 1, text_hash = ?, (${columns}) = (?, ?, ?, ?, ?, ?, ?, ?, ?) where id = ?`,
    );
    this.#bury = prepareWrite(
      db,
      `insert into listing (listing_id, sequence, change, live) values (?, ?, ?, 0)
       on conflict (listing_id) do update set sequence = excluded.sequence, change = excluded.change, live = 0, text_hash = null, title = '', brand = '', photo_url = ''`,
    );
    this.#insertWords = prepareWrite(
      db,
      "insert into words (rowid, title, brand, description, spellings, heading) values (?, ?, ?, ?, ?, ?)",
    );
    this.#deleteWords = prepareWrite(db, "delete from words where rowid = ?");
    this.#insertTitle = prepareWrite(db, "insert into titles (rowid, title, brand) values (?, ?, ?)");
    this.#deleteTitle = prepareWrite(db, "delete from titles where rowid = ?");
    this.#change = (db.prepare("select max(change) as change from listing").get()?.change as number | null) ?? 0;
    this.lastEventTime = Number(readMeta(db, "last_event_time") ?? 0);
  }

  /** Applies changes in their order, all or none. A change that is not newer than what the index has of its listing is skipped. */
  apply(changes: readonly Change[], lastEventTime: number): void {
    const before = this.#change;
    this.#db.exec("begin immediate");
    try {
      for (const change of changes) {
        this.#applyOne(change);
      }
      if (lastEventTime > this.lastEventTime) {
        writeMeta(this.#db, "last_event_time", String(lastEventTime));
      }
      this.#db.exec("commit");
      this.lastEventTime = Math.max(lastEventTime, this.lastEventTime);
    } catch (error) {
      this.#change = before;
      if (this.#db.isTransaction) {
        this.#db.exec("rollback");
      }
      throw error;
    }
  }

  #applyOne({ listingId, sequence, document }: Change): void {
    const known = this.#find.get(listingId) as Known | undefined;
    if (known !== undefined && known.sequence >= sequence) {
      return;
    }
    this.#change++;
    if (document === undefined) {
      this.#bury.run(listingId, sequence, this.#change);
      if (known?.live === 1) {
        this.#forgetText(known.id);
      }
      return;
    }
    const hash = textHash(document);
    const values = valuesOf(document);
    if (known === undefined) {
      const { lastInsertRowid } = this.#insert.run(listingId, sequence, this.#change, hash, ...values);
      this.#learnText(Number(lastInsertRowid), document);
      return;
    }
    this.#update.run(sequence, this.#change, hash, ...values, known.id);
    // Most updates move a price: the text, which costs most, is then left alone.
    if (known.live === 0 || known.text_hash === null || !hash.equals(known.text_hash)) {
      if (known.live === 1) {
        this.#forgetText(known.id);
      }
      this.#learnText(known.id, document);
    }
  }

  #learnText(id: number, document: ListingDocument): void {
    const title = fold(document.title);
    const brand = withBigrams(fold(document.brand));
    const titleWords = withBigrams(title);
    const description = withBigrams(fold(document.description));
    this.#insertWords.run(id, titleWords, brand, description, spellings(title), withBigrams(headingOf(title)));
    this.#insertTitle.run(id, titleWords, brand);
  }

  #forgetText(id: number): void {
    this.#deleteWords.run(id);
    this.#deleteTitle.run(id);
  }
}

function valuesOf(document: ListingDocument) {
  return [
    document.sellerId,
    document.title,
    document.brand,
    document.categoryId,
    document.condition,
    document.currencyCode,
    document.priceMinor,
    document.photoUrl,
    document.publishTime,
  ] as const;
}

function textHash(document: ListingDocument): Buffer {
  return createHash("sha1").update(`${document.title}\0${document.brand}\0${document.description}`).digest();
}
