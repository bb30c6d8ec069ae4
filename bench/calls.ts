// What a call costs the server on the embedded defaults.

import { fork } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { Agent, request as httpRequest } from "node:http";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { createClient } from "@connectrpc/connect";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { CatalogService, Condition } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { OrderService } from "#gen/marketplace/order/v1/order_pb.ts";
import { SearchService } from "#gen/marketplace/search/v1/search_pb.ts";
import { newId } from "#runtime/ids.ts";
import { connectAs } from "../tools/identity.ts";
import type { Answer, Question } from "./embedded-server.ts";
import { median } from "./figures.ts";

/** One thing that is measured: sends so many calls, a few at a time. */
interface Subject {
  readonly name: string;
  readonly calls: number;
  /** Calls at once; 16 unless given. */
  readonly concurrency?: number;
  prepare?(calls: number): Promise<void>;
  call(index: number): Promise<unknown>;
}

interface Sample {
  readonly cpuUs: number;
  readonly wallUs: number;
}

const CONCURRENCY = 16;
const PRICE = { currencyCode: "USD", amountMinor: 5000n };
const QUERIES = ["jazz", "road bike", "nintendo", "vintage camera", "leather", "レコード", "guitar pedal", "sealed"];

class BenchServer {
  readonly #child;
  constructor(dataDir: string) {
    this.#child = fork(new URL("embedded-server.ts", import.meta.url), [dataDir], { stdio: "inherit" });
  }
  async answer(): Promise<Answer> {
    const [answer] = await once(this.#child, "message");
    return answer as Answer;
  }
  async ask(): Promise<{ cpuUs: number; rssBytes: number }> {
    const answer = this.answer();
    this.#child.send("cpu" satisfies Question);
    return (await answer) as { cpuUs: number; rssBytes: number };
  }
  async stop(): Promise<void> {
    const exit = once(this.#child, "exit");
    this.#child.send("stop" satisfies Question);
    await exit;
  }
}

async function inParallel(calls: number, concurrency: number, call: (index: number) => Promise<unknown>): Promise<void> {
  let next = 0;
  const worker = async () => {
    while (next < calls) await call(next++);
  };
  await Promise.all(Array.from({ length: concurrency }, worker));
}

/** Measures one subject; afterwards waits until the server is idle, so that what its calls caused is counted to it. */
async function measure(server: BenchServer, subject: Subject): Promise<Sample> {
  await subject.prepare?.(subject.calls);
  await idle(server);
  const before = await server.ask();
  const startTime = performance.now();
  await inParallel(subject.calls, subject.concurrency ?? CONCURRENCY, (index) => subject.call(index));
  const wallUs = ((performance.now() - startTime) * 1000) / subject.calls;
  await idle(server);
  const after = await server.ask();
  return { cpuUs: (after.cpuUs - before.cpuUs) / subject.calls, wallUs };
}

async function idle(server: BenchServer): Promise<void> {
  for (let last = (await server.ask()).cpuUs; ; ) {
    await new Promise((resolve) => setTimeout(resolve, 250));
    const { cpuUs } = await server.ask();
    if (cpuUs - last < 10_000) return;
    last = cpuUs;
  }
}

function subjects({ url, floorUrl, tokens }: Extract<Answer, { url: string }>, addressId: string): Subject[] {
  const as = (name: string) => connectAs(url, async () => tokens[name] ?? "");
  const catalog = createClient(CatalogService, as("ben"));
  const seller = createClient(CatalogService, as("ada"));
  const search = createClient(SearchService, as("ben"));
  const orders = createClient(OrderService, as("ben"));
  const agent = new Agent({ keepAlive: true, maxSockets: CONCURRENCY });
  let stock: string[] = [];
  return [
    { name: "node:http floor", calls: 2000, call: () => echo(floorUrl, agent) },
    {
      name: "GetListing",
      calls: 2000,
      async prepare() {
        stock = (await seller.listSellerListings({ pageSize: 40, states: [2] })).listings.map((each) => each.listingId);
      },
      call: (index) => catalog.getListing({ listingId: stock[index % stock.length] ?? "" }),
    },
    {
      name: "SearchListings",
      calls: 400,
      call: (index) => search.searchListings({ query: QUERIES[index % QUERIES.length] ?? "", includeFacets: index % 4 === 0 }),
    },
    {
      name: "PlaceOrder",
      calls: 100,
      concurrency: 4,
      async prepare(calls) {
        const listings = Array.from({ length: calls }, (_, index) => ({
          title: `Bench lamp ${index}`,
          categoryId: "lamps",
          condition: Condition.GOOD,
          price: PRICE,
        }));
        const { results } = await seller.batchCreateListings({ requestId: newId(), listings, publish: true });
        stock = results.map((each) => each.listingId);
      },
      call: (index) =>
        orders.placeOrder({
          requestId: newId(),
          addressId,
          paymentMethodToken: "tok_approved",
          lines: [{ listingId: stock[index] ?? "", unitPrice: PRICE }],
        }),
    },
  ];
}

function echo(url: string, agent: Agent): Promise<void> {
  return new Promise((resolve, reject) => {
    const request = httpRequest(url, { agent, method: "POST" }, (response) => {
      response.resume().on("end", resolve);
    });
    request.on("error", reject).end('{"listingId":"01900000-0000-7000-8000-0000000000a1"}');
  });
}

/**
 * Measures the processor time that one call costs the server, with everything it causes (events, index, jobs), on the embedded defaults: GetListing,
 * SearchListings, PlaceOrder, and as the floor a bare node:http server in the same process. The four are interleaved, round by round; each figure
 * is the median of the rounds, the ratio is to the floor of the same round.
 */
export async function calls({ rounds }: { rounds: number }): Promise<void> {
  const dataDir = mkdtempSync(join(tmpdir(), "souk-bench-"));
  const server = new BenchServer(dataDir);
  try {
    const start = (await server.answer()) as Extract<Answer, { url: string }>;
    const accounts = createClient(
      AccountService,
      connectAs(start.url, async () => start.tokens.ben ?? ""),
    );
    const { addresses } = await accounts.listAddresses({});
    const all = subjects(start, addresses[0]?.addressId ?? "");
    for (const subject of all) await measure(server, subject);
    const samples = new Map<string, Sample[]>(all.map(({ name }) => [name, []]));
    for (let round = 0; round < rounds; round++) {
      for (const subject of all) samples.get(subject.name)?.push(await measure(server, subject));
    }
    const { rssBytes } = await server.ask();
    report(samples, rounds, rssBytes);
  } finally {
    await server.stop();
    rmSync(dataDir, { recursive: true, force: true });
  }
}

function report(samples: Map<string, Sample[]>, rounds: number, rssBytes: number): void {
  const [cpu] = cpus();
  console.log(`Node ${process.version}, ${cpus().length} × ${cpu?.model}, median of ${rounds} interleaved rounds\n`);
  console.log(`${"".padEnd(18)}${"server CPU".padStart(14)}${"of the floor".padStart(14)}${"wall".padStart(14)}`);
  const floor = samples.get("node:http floor") ?? [];
  for (const [name, each] of samples) {
    const ratio = median(each.map((sample, round) => sample.cpuUs / (floor[round]?.cpuUs ?? 1)));
    const cells = [
      `${median(each.map((s) => s.cpuUs)).toFixed(0)} µs`,
      `${ratio.toFixed(1)} ×`,
      `${median(each.map((s) => s.wallUs)).toFixed(0)} µs`,
    ];
    console.log(name.padEnd(18) + cells.map((cell) => cell.padStart(14)).join(""));
  }
  console.log(`\nserver memory ${(rssBytes / 1024 / 1024).toFixed(0)} MiB`);
}
