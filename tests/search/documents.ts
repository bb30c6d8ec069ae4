import assert from "node:assert/strict";
import { newId } from "#runtime/ids.ts";
import type { Change, Hit, IndexAnswer, IndexQuery, ListingDocument, SearchIndex } from "../../services/search/index.ts";
import { type SqliteIndexOptions, sqliteIndex } from "../../services/search/sqlite/sqlite-index.ts";
import { quietLog, temporaryFolder } from "../support/database.ts";

/** A listing on sale of which a test cares about some fields. */
export function document(over: Partial<ListingDocument> = {}): ListingDocument {
  return {
    sellerId: "0198a0de-0000-7000-8000-000000000001",
    title: "Seven iron",
    brand: "",
    description: "",
    categoryId: "golf-clubs",
    condition: 4,
    currencyCode: "USD",
    priceMinor: 1_250,
    photoUrl: "",
    publishTime: 1_700_000_000_000,
    ...over,
  };
}

/** A change that puts a new listing on sale. */
export function published(over: Partial<ListingDocument> = {}, listingId = newId()): Change & { document: ListingDocument } {
  return { listingId, sequence: 1, document: document(over) };
}

/** A search of which a test cares about some fields. */
export function query(over: Partial<IndexQuery> = {}): IndexQuery {
  const conditions = { brandKeys: [], conditions: [], currencyCode: "", sellerId: "" };
  const text = over.text ?? "";
  return { text, ...conditions, sort: text === "" ? "newest" : "relevance", limit: 20, withFacets: false, ...over };
}

/** An open index in a folder of its own. */
export interface TestIndex {
  readonly index: SearchIndex;
  readonly folder: string;
  titles(text: string): Promise<string[]>;
  close(): Promise<void>;
}

/** Opens an empty index, or the one in `folder`. The test closes it. */
export async function openIndex(
  options: { folder?: string } & Pick<SqliteIndexOptions, "modules" | "onCorrupt"> = {},
): Promise<TestIndex> {
  const { folder: given, ...rest } = options;
  const temporary = given === undefined ? temporaryFolder() : undefined;
  const folder = given ?? (temporary?.path as string);
  const index = sqliteIndex({ folder, log: quietLog, ...rest });
  if (!(await index.open())) {
    await index.beginRebuild();
    await index.finishRebuild();
  }
  return {
    index,
    folder,
    titles: async (text) => (await index.search(query({ text }))).hits.map((hit) => hit.title),
    async close() {
      await index.close();
      temporary?.remove();
    },
  };
}

/** All hits of a search, page by page. */
export async function allPages(
  index: SearchIndex,
  first: IndexQuery,
  between: () => Promise<void> = async () => {},
): Promise<Hit[]> {
  const hits: Hit[] = [];
  let answer: IndexAnswer = await index.search(first);
  for (;;) {
    hits.push(...answer.hits);
    if (answer.next === undefined) {
      return hits;
    }
    assert.ok(answer.hits.length > 0 && hits.length < 10_000, "the pages do not end");
    await between();
    answer = await index.search({ ...first, from: answer.next });
  }
}
