// `npm run reindex`: rebuilds the search index beside the live one, and waits until it is done.

import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { timestampMs } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { type Reindex, ReindexState, SearchService } from "#gen/marketplace/search/v1/search_pb.ts";
import { newId } from "#runtime/ids.ts";
import { connectAs, DEFAULT_URL, runTool, tokenFor, UsageError, urlOf } from "./identity.ts";

const HELP = `npm run reindex -- [--url URL] [--as NAME]

Rebuilds the search index from the catalog, beside the live one, which serves on until the new one takes its place. If a rebuild runs already, waits for that one.

Options
  --url URL    where the marketplace listens (${DEFAULT_URL})
  --as NAME    the operator to act as, by name or id (olga); SOUK_TOKEN, if set, is used instead`;

const POLL_MS = 250;

const options = parse();
const url = options.url ?? DEFAULT_URL;

await runTool(url, async () => {
  if (options.mistake !== undefined) {
    throw new UsageError(`${options.mistake}\n\n${HELP}`);
  }
  if (options.help) {
    return console.log(HELP);
  }
  const token = process.env.SOUK_TOKEN;
  const operator = options.as ?? "olga";
  const search = createClient(SearchService, connectAs(urlOf(url), token ? async () => token : () => tokenFor(operator)));
  const { reindex: begun } = await search.startReindex({ requestId: newId() });
  const ended = await waitFor(begun as Reindex, async () => (await search.getIndexStatus({})).reindex);
  const seconds = ((timeOf(ended.endTime) - timeOf(ended.startTime)) / 1000).toFixed(1);
  if (ended.state === ReindexState.DONE) {
    console.log(`The search index is rebuilt: ${ended.listingsRead.toLocaleString("en")} listings in ${seconds} s.`);
  } else {
    console.error(`The rebuild was given up after ${seconds} s, and the old index serves on: ${ended.failure}`);
    process.exitCode = 1;
  }
});

/** Shows the progress until the rebuild has ended. If another one has begun since, ours has ended too, and the other one is followed. */
async function waitFor(begun: Reindex, read: () => Promise<Reindex | undefined>): Promise<Reindex> {
  const shown = process.stderr.isTTY;
  let current = begun;
  while (current.state === ReindexState.RUNNING) {
    if (shown) {
      process.stderr.write(`\r${current.listingsRead.toLocaleString("en")} listings read `);
    }
    await sleep(POLL_MS);
    current = (await read()) ?? current;
  }
  if (shown) {
    process.stderr.write("\r\x1b[K");
  }
  return current;
}

function timeOf(time: Reindex["startTime"]): number {
  return time === undefined ? 0 : timestampMs(time);
}

function parse(): { url?: string; as?: string; help?: boolean; mistake?: string } {
  try {
    return parseArgs({ options: { url: { type: "string" }, as: { type: "string" }, help: { type: "boolean", short: "h" } } })
      .values;
  } catch (error) {
    return { mistake: (error as Error).message };
  }
}
