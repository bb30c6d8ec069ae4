// `npm run import`: listings from a file, through the public RPC.

import { parseArgs } from "node:util";
import { type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { CatalogService, type Condition, type ListingDraft } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { SearchService } from "#gen/marketplace/search/v1/search_pb.ts";
import { retryAfterMsOf } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { connectAs, DEFAULT_URL, runTool, tokenFor, UsageError, urlOf } from "./identity.ts";
import { conditionOf, draftOf, type ImportDefaults } from "./import/draft.ts";
import { Progress } from "./import/progress.ts";
import { formatOf, type ImportFormat, type ImportRecord, openImport, readRecords } from "./import/read.ts";

/** The most listings one call takes. */
const BATCH_SIZE = 250;
/** Calls under way at once. */
const CONCURRENCY = 2;
/** How often a batch is sent in all. */
const MAX_ATTEMPTS = 4;
/** How many bad lines are told one by one. */
const MAX_TOLD_LINES = 100;
const SEARCHABLE_TIMEOUT_MS = 120_000;

const HELP = `npm run import -- FILE [options]

Creates and publishes listings from a file: JSON lines or CSV with a first line of column names, plain or gzip; "-" is standard input.
Fields: id or external_id, title, price_minor, currency_code; optional description, brand, category_id, condition, units,
handling_days, ships_from (date is read over). A bad line is reported with its number and reason, the rest goes in. Running it again
creates nothing twice: external_id is unique per seller.

Options
  --as NAME           the seller: a demo account's name or an account's id (ada)
  --url URL           where the marketplace listens (${DEFAULT_URL})
  --format FORMAT     jsonl or csv (by the file's name, else jsonl)
  --category ID       the category of lines without category_id (other-electronics)
  --condition NAME    the condition of lines without condition (good)
  --no-wait           do not wait until search has them all

SOUK_TOKEN, when set, is sent instead of a token signed with the local key; whether search has them is then not waited for.`;

interface Result {
  created: number;
  existed: number;
  refused: number;
}

interface Settings {
  readonly file: string;
  readonly url: string;
  readonly seller: string;
  readonly format: ImportFormat;
  readonly defaults: ImportDefaults;
  readonly wait: boolean;
}

const options = {
  as: { type: "string", default: "ada" },
  url: { type: "string", default: DEFAULT_URL },
  format: { type: "string" },
  category: { type: "string", default: "other-electronics" },
  condition: { type: "string", default: "good" },
  "no-wait": { type: "boolean", default: false },
  help: { type: "boolean", short: "h" },
} as const;

function readSettings(): Settings | undefined {
  let parsed: ReturnType<typeof parse>;
  const parse = () => parseArgs({ options, allowPositionals: true });
  try {
    parsed = parse();
  } catch (error) {
    throw new UsageError(`${(error as Error).message}\n\n${HELP}`);
  }
  const { values, positionals } = parsed;
  if (values.help) return undefined;
  const [file, ...rest] = positionals;
  if (file === undefined || rest.length > 0) throw new UsageError(`Which file? One, please.\n\n${HELP}`);
  const format = values.format ?? formatOf(file) ?? "jsonl";
  if (format !== "jsonl" && format !== "csv") throw new UsageError(`--format is jsonl or csv, not "${format}".`);
  return {
    file,
    format,
    url: urlOf(values.url),
    seller: values.as,
    defaults: { categoryId: values.category, condition: usable(() => conditionOf(values.condition)) },
    wait: !values["no-wait"] && process.env.SOUK_TOKEN === undefined,
  };
}

function usable(read: () => Condition): Condition {
  try {
    return read();
  } catch (error) {
    throw new UsageError(`--condition: ${(error as Error).message}`);
  }
}

async function importFile(settings: Settings): Promise<void> {
  const given = process.env.SOUK_TOKEN;
  const transport = connectAs(settings.url, () => (given ? Promise.resolve(given) : tokenFor(settings.seller)));
  const catalog = createClient(CatalogService, transport);
  const search = createClient(
    SearchService,
    connectAs(settings.url, () => tokenFor("olga")),
  );
  const before = settings.wait ? (await search.getIndexStatus({})).listingCount : 0;
  const startTime = performance.now();
  const progress = new Progress();
  const result: Result = { created: 0, existed: 0, refused: 0 };
  const { input, part } = await openImport(settings.file).catch((error: Error) => {
    throw new UsageError(`${settings.file} cannot be read: ${error.message}.`);
  });
  const records = readRecords(input, settings.format);
  const show = () => progress.show(part(), summary(result));
  try {
    await createAll(catalog, batches(records, settings.defaults, result, progress), result, progress, show);
  } catch (error) {
    // A file that breaks off in the middle: what came before is in, and the sentence says so.
    if (error instanceof Error && "code" in error && typeof error.code === "string") {
      progress.end();
      throw new UsageError(`${settings.file} breaks off: ${error.message}. ${summary(result)} so far; mend it and run it again.`);
    }
    throw error;
  }
  progress.end();
  console.log(`${summary(result)} in ${seconds(startTime)} s.`);
  if (settings.wait && result.created > 0) {
    await untilSearchable(search, before, before + result.created, progress);
    console.log(`All searchable after ${seconds(startTime)} s.`);
  }
  if (result.refused > 0) process.exitCode = 1;
}

interface Batch {
  readonly drafts: readonly ListingDraft[];
  readonly lines: readonly number[];
}

async function* batches(
  records: AsyncIterable<ImportRecord>,
  defaults: ImportDefaults,
  result: Result,
  progress: Progress,
): AsyncGenerator<Batch> {
  let drafts: ListingDraft[] = [];
  let lines: number[] = [];
  let broken: { error: unknown } | undefined;
  try {
    for await (const record of records) {
      const draft = "fields" in record ? attempt(() => draftOf(record.fields, defaults)) : record.problem;
      if (typeof draft === "string") refuse(record.line, draft, result, progress);
      else {
        drafts.push(draft);
        lines.push(record.line);
      }
      if (drafts.length === BATCH_SIZE) {
        yield { drafts, lines };
        [drafts, lines] = [[], []];
      }
    }
  } catch (error) {
    // What was read before the file broke off still goes in.
    broken = { error };
  }
  if (drafts.length > 0) yield { drafts, lines };
  if (broken) throw broken.error;
}

function attempt(work: () => ListingDraft): ListingDraft | string {
  try {
    return work();
  } catch (error) {
    return (error as Error).message;
  }
}

async function createAll(
  catalog: Client<typeof CatalogService>,
  source: AsyncIterable<Batch>,
  result: Result,
  progress: Progress,
  show: () => void,
): Promise<void> {
  const iterator = source[Symbol.asyncIterator]();
  const worker = async (): Promise<void> => {
    for (let next = await iterator.next(); !next.done; next = await iterator.next()) {
      await createBatch(catalog, next.value, result, progress);
      show();
    }
  };
  // When one fails, what the others have under way is still waited for, and counts.
  const ended = await Promise.allSettled(Array.from({ length: CONCURRENCY }, worker));
  const failed = ended.find((each) => each.status === "rejected");
  if (failed !== undefined) throw failed.reason;
}

async function createBatch(
  catalog: Client<typeof CatalogService>,
  batch: Batch,
  result: Result,
  progress: Progress,
): Promise<void> {
  const listings = [...batch.drafts];
  const request = { requestId: `import/${newId()}`, listings, publish: true };
  const { results } = await retried(() => catalog.batchCreateListings(request));
  for (const [index, each] of results.entries()) {
    const line = batch.lines[index] ?? 0;
    if (each.reason !== "") refuse(line, `${each.reason}: ${each.message}`, result, progress);
    else if (each.alreadyExisted) result.existed++;
    else result.created++;
  }
}

/** Sends a batch again, under the same request_id, when its answer was lost. */
async function retried<T>(call: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await call();
    } catch (error) {
      const lost =
        error instanceof ConnectError &&
        (error.code === Code.Unavailable || error.code === Code.DeadlineExceeded || retryAfterMsOf(error) !== undefined);
      if (!lost || attempt === MAX_ATTEMPTS) throw error;
      await new Promise((resolve) => setTimeout(resolve, attempt * 500));
    }
  }
}

function refuse(line: number, problem: string, result: Result, progress: Progress): void {
  result.refused++;
  if (result.refused <= MAX_TOLD_LINES) progress.tell(`line ${line}: ${problem}`);
  else if (result.refused === MAX_TOLD_LINES + 1) progress.tell("more lines are refused; only the first 100 are told");
}

async function untilSearchable(
  search: Client<typeof SearchService>,
  before: number,
  count: number,
  progress: Progress,
): Promise<void> {
  const deadline = performance.now() + SEARCHABLE_TIMEOUT_MS;
  for (;;) {
    const { listingCount } = await search.getIndexStatus({});
    if (listingCount >= count) return progress.end();
    if (performance.now() > deadline) {
      throw new UsageError(
        `Search has ${listingCount} of ${count} listings after ${SEARCHABLE_TIMEOUT_MS / 1000} s; it goes on by itself.`,
      );
    }
    progress.show(Math.max(0, listingCount - before) / (count - before), `search has ${listingCount} of ${count}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

function summary({ created, existed, refused }: Result): string {
  return `${created} created, ${existed} there already, ${refused} refused`;
}

function seconds(startTime: number): string {
  return ((performance.now() - startTime) / 1000).toFixed(1);
}

let url: string = DEFAULT_URL;
await runTool(
  () => url,
  async () => {
    const settings = readSettings();
    if (settings === undefined) return console.log(HELP);
    url = settings.url;
    await importFile(settings);
  },
);
