// Measures how well search ranks, against queries that people judged: `node bench/relevance.ts <folder>`.
// The folder holds listings.jsonl.gz, queries.tsv and judgments.tsv; the project does not ship one.
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import pino from "pino";
import { newId } from "#runtime/ids.ts";
import type { Change, IndexQuery } from "../services/search/index.ts";
import { sqliteIndex } from "../services/search/sqlite/sqlite-index.ts";

const TOP = 10;
const HITS = 100;

interface Product {
  readonly id: string;
  readonly title: string;
  readonly brand: string;
  readonly price_minor: number;
  readonly currency_code: string;
  readonly description: string;
}

/** The discounted gain of a list of grades: 2^grade - 1, over the first ten. */
function gain(grades: readonly number[]): number {
  return grades.slice(0, TOP).reduce((sum, grade, i) => sum + (2 ** grade - 1) / Math.log2(i + 2), 0);
}

function rows(path: string): string[][] {
  return readFileSync(path, "utf8")
    .trim()
    .split("\n")
    .map((line) => line.split("\t"));
}

function query(text: string): IndexQuery {
  return { text, brandKeys: [], conditions: [], currencyCode: "", sellerId: "", sort: "relevance", limit: HITS, withFacets: false };
}

async function main(folder: string, verbose: boolean): Promise<void> {
  const products: Product[] = gunzipSync(readFileSync(join(folder, "listings.jsonl.gz")))
    .toString()
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  const judgments = new Map<string, Map<string, number>>();
  for (const [queryId = "", id = "", grade] of rows(join(folder, "judgments.tsv"))) {
    judgments.set(queryId, (judgments.get(queryId) ?? new Map()).set(id, Number(grade)));
  }
  const temporary = mkdtempSync(join(tmpdir(), "souk-relevance-"));
  const index = sqliteIndex({ folder: temporary, log: pino({ level: "error" }) });
  try {
    await index.open();
    const ids = new Map<string, string>();
    const changes = products.map((product): Change => {
      const listingId = newId();
      ids.set(listingId, product.id);
      const { title, brand, description, price_minor: priceMinor, currency_code: currencyCode } = product;
      const rest = { sellerId: newId(), categoryId: "electronics", condition: 4, photoUrl: "", publishTime: 0 };
      return { listingId, sequence: 1, document: { title, brand, description, priceMinor, currencyCode, ...rest } };
    });
    const start = performance.now();
    await index.beginRebuild();
    await index.addToRebuild(changes);
    await index.finishRebuild();
    console.log(`indexed ${changes.length} listings, ${Math.round(((performance.now() - start) * 1000) / changes.length)} µs each`);
    const results: { text: string; plain: number; condensed: number; ms: number }[] = [];
    for (const [queryId = "", text = ""] of rows(join(folder, "queries.tsv"))) {
      const grades = judgments.get(queryId) ?? new Map<string, number>();
      const ideal = gain([...grades.values()].sort((a, b) => b - a));
      if (ideal > 0) {
        const before = performance.now();
        const answer = await index.search(query(text));
        const ms = performance.now() - before;
        const found = answer.hits.map((hit) => ids.get(hit.listingId) as string);
        const judged = found.filter((id) => grades.has(id));
        const grade = (id: string) => grades.get(id) ?? 0;
        results.push({ text, plain: gain(found.map(grade)) / ideal, condensed: gain(judged.map(grade)) / ideal, ms });
      }
    }
    if (verbose) {
      for (const { text, plain, condensed } of results.sort((a, b) => a.plain - b.plain)) {
        console.log(`${plain.toFixed(3)} ${condensed.toFixed(3)} ${text}`);
      }
    }
    const mean = (of: (result: (typeof results)[number]) => number) =>
      results.reduce((sum, result) => sum + of(result), 0) / results.length;
    console.log(
      `queries ${results.length}, nDCG@10 ${mean((r) => r.plain).toFixed(3)}, of judged results only ${mean((r) => r.condensed).toFixed(3)}`,
    );
    console.log(`a search takes ${mean((r) => r.ms).toFixed(2)} ms on average`);
  } finally {
    await index.close();
    rmSync(temporary, { recursive: true, force: true });
  }
}

const [folder] = process.argv.slice(2).filter((word) => !word.startsWith("-"));
if (folder === undefined) {
  console.error("usage: node bench/relevance.ts <folder with listings.jsonl.gz, queries.tsv, judgments.tsv> [--verbose]");
  process.exitCode = 2;
} else {
  await main(folder, process.argv.includes("--verbose"));
}
