// `npm run bench -- purchase`: what a purchase costs on MariaDB and Redis.

import { Agent, request as httpRequest } from "node:http";
import { createClient } from "@connectrpc/connect";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { CatalogService, Condition } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { OrderService } from "#gen/marketplace/order/v1/order_pb.ts";
import { newId } from "#runtime/ids.ts";
import { connectAs } from "../tools/identity.ts";
import { median } from "./figures.ts";
import { type Production, startProduction, type Usage } from "./production.ts";

const PRICE = { currencyCode: "USD", amountMinor: 5000n };
const CONCURRENCY = 8;

interface Sample {
  readonly processUs: number;
  readonly databaseUs: number;
  readonly redisUs: number;
  readonly perSecond: number;
  /** Processor time of all of them in a second in which nobody buys. */
  readonly restUs: number;
}

interface Subject {
  readonly name: string;
  prepare?(calls: number): Promise<void>;
  call(index: number): Promise<unknown>;
}

async function measure(production: Production, subject: Subject, calls: number): Promise<Sample> {
  await subject.prepare?.(calls);
  await production.idle();
  const atRest = await restOf(production);
  const before = await production.usage();
  const startTime = performance.now();
  let next = 0;
  const worker = async () => {
    while (next < calls) await subject.call(next++);
  };
  await Promise.all(Array.from({ length: CONCURRENCY }, worker));
  const seconds = (performance.now() - startTime) / 1000;
  await production.idle();
  const after = await production.usage();
  const elapsed = (performance.now() - startTime) / 1000;
  const spent = (part: keyof Usage) => ((after[part] ?? 0) - (before[part] ?? 0) - atRest[part] * elapsed) / calls;
  return {
    processUs: spent("processUs"),
    databaseUs: spent("databaseUs"),
    redisUs: spent("redisUs"),
    perSecond: calls / seconds,
    restUs: atRest.processUs + atRest.databaseUs + atRest.redisUs,
  };
}

const REST_MS = 2_000;

/** What all of them spend in a second while nobody buys: relays, jobs and consumers look for work. Counted apart. */
async function restOf(production: Production): Promise<Record<keyof Usage, number>> {
  const before = await production.usage();
  await new Promise((resolve) => setTimeout(resolve, REST_MS));
  const after = await production.usage();
  const perSecond = (part: keyof Usage) => (((after[part] ?? 0) - (before[part] ?? 0)) * 1000) / REST_MS;
  return { processUs: perSecond("processUs"), databaseUs: perSecond("databaseUs"), redisUs: perSecond("redisUs") };
}

async function subjectsOf({ url, floorUrl, tokens }: Production): Promise<Subject[]> {
  const as = (name: string) => connectAs(url, async () => tokens[name] ?? "");
  const { addresses } = await createClient(AccountService, as("ben")).listAddresses({});
  const addressId = addresses[0]?.addressId ?? "";
  const seller = createClient(CatalogService, as("ada"));
  const orders = createClient(OrderService, as("ben"));
  const agent = new Agent({ keepAlive: true, maxSockets: CONCURRENCY });
  let stock: string[] = [];
  return [
    { name: "floor", call: () => post(floorUrl, agent) },
    {
      name: "PlaceOrder",
      async prepare(calls) {
        stock = [];
        for (let left = calls; left > 0; left -= 100) {
          const listings = Array.from({ length: Math.min(100, left) }, (_, index) => ({
            title: `Bench lamp ${index}`,
            categoryId: "lamps",
            condition: Condition.GOOD,
            price: PRICE,
          }));
          const { results } = await seller.batchCreateListings({ requestId: newId(), listings, publish: true });
          stock.push(...results.map((each) => each.listingId));
        }
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

function post(url: string, agent: Agent): Promise<void> {
  return new Promise((resolve, reject) => {
    const request = httpRequest(url, { agent, method: "POST" }, (response) => {
      response.resume().on("end", () => (response.statusCode === 200 ? resolve() : reject(new Error("the floor failed."))));
    });
    request.on("error", reject).end("{}");
  });
}

function report(samples: ReadonlyMap<string, Sample[]>): void {
  const floor = samples.get("floor") ?? [];
  const cells = (each: readonly string[]) => each.map((cell) => cell.padStart(13)).join("");
  console.log(
    "".padEnd(12) + cells(["process CPU", "of floor", "database CPU", "of floor", "both", "of floor", "Redis CPU", "a second"]),
  );
  for (const [name, each] of samples) {
    const of = (value: (sample: Sample) => number) => {
      const ratio = median(each.map((sample, round) => value(sample) / value(floor[round] ?? sample)));
      return [`${median(each.map(value)).toFixed(0)} µs`, `${ratio.toFixed(1)} ×`];
    };
    console.log(
      name.padEnd(12) +
        cells([
          ...of((s) => s.processUs),
          ...of((s) => s.databaseUs),
          ...of((s) => s.processUs + s.databaseUs),
          `${median(each.map((s) => s.redisUs)).toFixed(0)} µs`,
          median(each.map((s) => s.perSecond)).toFixed(0),
        ]),
    );
  }
  const rest = [...samples.values()].flat().map((sample) => sample.restUs);
  console.log(`\nat rest, not counted above: ${(median(rest) / 1000).toFixed(0)} ms a second of all three together`);
}

/**
 * Runs the benchmark. `SOUK_BENCH_CALLS` purchases a round (200), `SOUK_BENCH_PROFILE` names a folder for the profile of the server's
 * process, `SOUK_BENCH_ALONE` leaves out relays, consumers and jobs: what the call does itself.
 */
export async function purchase({ rounds }: { rounds: number }): Promise<void> {
  const calls = Number(process.env.SOUK_BENCH_CALLS ?? 200);
  const profile = process.env.SOUK_BENCH_PROFILE;
  const production = await startProduction({
    started: process.env.SOUK_BENCH_ALONE === undefined,
    execArgv: [...process.execArgv, ...(profile === undefined ? [] : ["--cpu-prof", `--cpu-prof-dir=${profile}`])],
  });
  try {
    const subjects = await subjectsOf(production);
    for (const subject of subjects) await measure(production, subject, calls);
    const samples = new Map<string, Sample[]>(subjects.map(({ name }) => [name, []]));
    for (let round = 0; round < rounds; round++) {
      for (const subject of subjects) samples.get(subject.name)?.push(await measure(production, subject, calls));
    }
    report(samples);
  } finally {
    await production.stop();
  }
}
