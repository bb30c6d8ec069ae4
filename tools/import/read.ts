import { createReadStream, statSync } from "node:fs";
import type { Readable } from "node:stream";
import { PassThrough } from "node:stream";
import { createGunzip } from "node:zlib";
import { parse } from "csv-parse";

/** The longest line of an import file in characters; a longer one is reported and passed over. */
export const MAX_LINE_LENGTH = 262_144;

/** One record of an import file, as read: nothing is checked yet. */
export type ImportRecord = { readonly line: number } & (
  | { readonly fields: Readonly<Record<string, unknown>> }
  | { readonly problem: string }
);

/** How records are written: one JSON object a line, or CSV whose first line names the columns. */
export type ImportFormat = "jsonl" | "csv";

/**
 * Opens an import file; "-" is standard input. Gzip is seen by its first two bytes (RFC 1952), whatever the name. `part` says how
 * much of the file is read, from 0 to 1; undefined of standard input.
 *
 * @throws Error (from the stream) when it cannot be read, or the gzip ends too early.
 */
export async function openImport(path: string): Promise<{ input: Readable; part: () => number | undefined }> {
  const source: Readable & { bytesRead?: number } = path === "-" ? process.stdin : createReadStream(path);
  const part = () => (path === "-" ? undefined : (source.bytesRead ?? 0) / Math.max(1, statSync(path).size));
  const start = await firstChunk(source);
  const whole = new PassThrough();
  if (start !== undefined) whole.write(start);
  source.on("error", (error) => whole.destroy(error));
  source.pipe(whole);
  if (start === undefined || start[0] !== 0x1f || start[1] !== 0x8b) return { input: whole, part };
  const plain = createGunzip();
  whole.on("error", (error) => plain.destroy(error));
  return { input: whole.pipe(plain), part };
}

/** The first chunk of at least two bytes; undefined when there are none. */
async function firstChunk(source: Readable): Promise<Buffer | undefined> {
  const chunks: Buffer[] = [];
  return new Promise((resolve, reject) => {
    const done = (): void => {
      source.off("error", reject);
      source.off("end", done);
      source.off("data", take);
      source.pause();
      resolve(chunks.length > 0 ? Buffer.concat(chunks) : undefined);
    };
    const take = (chunk: Buffer): void => {
      chunks.push(chunk);
      if (chunks.reduce((sum, part) => sum + part.length, 0) >= 2) done();
    };
    source.once("error", reject);
    source.once("end", done);
    source.on("data", take);
  });
}

/** Which format a file has: by its name, else by its first character. */
export function formatOf(path: string): ImportFormat | undefined {
  if (/\.csv(\.gz)?$/i.test(path)) return "csv";
  if (/\.(jsonl|ndjson|json)(\.gz)?$/i.test(path)) return "jsonl";
  return undefined;
}

/** Reads records one by one, in bounded memory. A line that cannot be read becomes a problem with its number; reading goes on. */
export function readRecords(input: Readable, format: ImportFormat): AsyncIterable<ImportRecord> {
  return format === "csv" ? readCsv(input) : readJsonLines(input);
}

async function* readJsonLines(input: Readable): AsyncGenerator<ImportRecord> {
  let number = 0;
  for await (const line of lines(input)) {
    number++;
    if (line.length > MAX_LINE_LENGTH) yield { line: number, problem: `the line has more than ${MAX_LINE_LENGTH} characters` };
    else if (line.trim() !== "") yield readJson(number === 1 ? line.replace(/^\uFEFF/, "") : line, number);
  }
}

/**
 * Splits at line feeds and nothing else: JSON may hold U+2028, at which `node:readline` would break a record in two. A line that is too
 * long comes cut to one character more than is allowed, so that memory stays bounded.
 */
async function* lines(input: Readable): AsyncGenerator<string> {
  input.setEncoding("utf8");
  let rest = "";
  for await (const chunk of input as AsyncIterable<string>) {
    const parts = chunk.split("\n");
    for (const [index, part] of parts.entries()) {
      rest = (rest + part).slice(0, MAX_LINE_LENGTH + 1);
      if (index === parts.length - 1) break;
      yield rest.replace(/\r$/, "");
      rest = "";
    }
  }
  if (rest !== "") yield rest;
}

function readJson(text: string, line: number): ImportRecord {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value))
      return { line, fields: value as Record<string, unknown> };
    return { line, problem: "the line is JSON but not an object" };
  } catch (error) {
    return { line, problem: `not JSON: ${(error as Error).message}` };
  }
}

async function* readCsv(input: Readable): AsyncGenerator<ImportRecord> {
  const parser = parse({
    bom: true,
    columns: true,
    info: true,
    relax_column_count: true,
    skip_empty_lines: true,
    max_record_size: MAX_LINE_LENGTH,
  });
  input.on("error", (error) => parser.destroy(error));
  input.pipe(parser);
  let width: number | undefined;
  for await (const { record, info } of parser as AsyncIterable<{ record: Record<string, string>; info: CsvInfo }>) {
    width ??= Array.isArray(info.columns) ? info.columns.length : undefined;
    const found = Object.keys(record).length;
    yield info.error !== undefined || (width !== undefined && found !== width)
      ? { line: info.lines, problem: `the row has ${found} columns; the first line names ${width}` }
      : { line: info.lines, fields: record };
  }
}

interface CsvInfo {
  readonly lines: number;
  readonly columns: boolean | readonly unknown[];
  readonly error?: Error;
}
