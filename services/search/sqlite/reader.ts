import type { DatabaseSync, StatementSync } from "node:sqlite";
import type { Hit, IndexAnswer, IndexQuery, IndexStatus, Position } from "../index.ts";
import { parseQuery } from "../query.ts";
import { firstInOrder, orderOf, type Selected, select, sortValue } from "../selection.ts";
import { type IndexFile, type ListingRow, openForReading, readMeta } from "./index-file.ts";
import { ListingColumns } from "./listing-columns.ts";
import { Matching } from "./matching.ts";
import { serve } from "./thread.ts";

/** Answers searches from one index file. Each sees the file as of one moment. */
class Reader {
  readonly #db: DatabaseSync;
  readonly #columns: ListingColumns;
  readonly #matching: Matching;
  readonly #hit: StatementSync;
  readonly #generation: string;

  constructor(file: IndexFile) {
    this.#db = openForReading(file);
    this.#generation = readMeta(this.#db, "generation") ?? "";
    this.#columns = new ListingColumns(this.#db);
    this.#matching = new Matching(this.#db);
    this.#hit = this.#db.prepare(
      `select listing_id, seller_id, title, brand, category_id, condition, currency_code, price_minor, photo_url, publish_time
       from listing where id = ?`,
    );
    this.#atOneMoment(() => {});
  }

  search(query: IndexQuery): IndexAnswer {
    return this.#atOneMoment(() => this.#search(query));
  }

  status(): IndexStatus {
    return this.#atOneMoment(() => {
      const lastEventTime = readMeta(this.#db, "last_event_time");
      return {
        listingCount: this.#columns.liveCount,
        ...(lastEventTime === undefined ? {} : { lastEventTime: Number(lastEventTime) }),
      };
    });
  }

  close(): void {
    this.#db.close();
  }

  #search(query: IndexQuery): IndexAnswer {
    const { from, sort } = query;
    const columns = this.#columns;
    const text = query.text === "" ? undefined : parseQuery(query.text);
    if (query.text !== "" && text === undefined) {
      // There is no word in it, so nothing has its words.
      return {
        hits: [],
        total: 0,
        relaxed: false,
        ...(query.withFacets ? { facets: select(columns, { rows: [] }, query).facets } : {}),
      } as IndexAnswer;
    }
    const matches = text === undefined ? undefined : this.#matching.match(text, sort === "relevance");
    const lastRow = from?.kind === "offset" && from.generation === this.#generation ? from.lastRow : columns.lastRow;
    const selected = select(columns, matches ?? { rows: columns.allRows() }, query, lastRow);
    const order = orderOf(columns, selected, sort);
    const offset = from?.kind === "offset" ? from.offset : 0;
    const places = firstInOrder(selected.rows.length, offset + query.limit + 1, order, this.#after(selected, query)).slice(offset);
    const page = places.slice(0, query.limit);
    const next = places.length > query.limit ? this.#nextPosition(selected, page, query, offset, lastRow) : undefined;
    return {
      hits: page.map((place) => this.#hitOf(selected.rows[place] as number)),
      ...(next === undefined ? {} : { next }),
      total: selected.rows.length,
      relaxed: matches?.relaxed ?? false,
      ...(selected.facets === undefined ? {} : { facets: selected.facets }),
    };
  }

  #after(selected: Selected, { from, sort }: IndexQuery): (place: number) => boolean {
    if (from?.kind !== "after" || sort === "relevance") {
      return () => true;
    }
    return (place) => {
      const row = selected.rows[place] as number;
      const value = sortValue(this.#columns, row, sort);
      return value > from.value || (value === from.value && (this.#columns.listingIds[row] as string) < from.listingId);
    };
  }

  #nextPosition(selected: Selected, page: readonly number[], { sort }: IndexQuery, offset: number, lastRow: number): Position {
    if (sort === "relevance") {
      return { kind: "offset", offset: offset + page.length, generation: this.#generation, lastRow };
    }
    const row = selected.rows[page.at(-1) as number] as number;
    return { kind: "after", value: sortValue(this.#columns, row, sort), listingId: this.#columns.listingIds[row] as string };
  }

  #hitOf(id: number): Hit {
    const row = this.#hit.get(id) as unknown as ListingRow;
    return {
      listingId: row.listing_id,
      sellerId: row.seller_id,
      title: row.title,
      brand: row.brand,
      categoryId: row.category_id,
      condition: row.condition,
      currencyCode: row.currency_code,
      priceMinor: row.price_minor,
      photoUrl: row.photo_url,
      publishTime: row.publish_time,
    };
  }

  #atOneMoment<T>(work: () => T): T {
    this.#db.exec("begin");
    try {
      this.#columns.refresh();
      return work();
    } finally {
      this.#db.exec("commit");
    }
  }
}

/** The calls that the reading thread answers. */
export interface ReaderCalls {
  /** Goes over to another index file. */
  open(file: IndexFile): void;
  search(query: IndexQuery): IndexAnswer;
  status(): IndexStatus;
}

let reader: Reader | undefined;

function current(): Reader {
  if (reader === undefined) {
    throw new Error("there is no index to read.");
  }
  return reader;
}

serve<ReaderCalls>({
  open(file) {
    const next = new Reader(file);
    reader?.close();
    reader = next;
  },
  search: (query) => current().search(query),
  status: () => current().status(),
});
