import type { DescMessage, DescMethodUnary, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { CatalogService, Condition } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { newId } from "#runtime/ids.ts";
import type { Actor, LoadPlan } from "./plan.ts";
import { expectedArrivals } from "./schedule.ts";

/** What one unit costs. */
export const PRICE = { currencyCode: "USD", amountMinor: 1250n };
/** What things are called; people search for these words. */
export const WORDS = ["lamp", "bicycle", "camera", "guitar", "jacket", "kettle", "novel", "skates", "tripod", "violin"] as const;

const LISTINGS_OF_ONE_CALL = 250;
/** Beyond that many listings each has several units. */
const LISTINGS_MAX = 20_000;
const SETUP_AT_ONCE = 4;

/** A unit that can be bought. */
export interface Offer {
  readonly listingId: string;
  readonly seller: Actor;
}

/** A buyer and where its parcels go. */
export interface Buyer {
  readonly actor: Actor;
  readonly addressId: string;
}

/** What a load works with. */
export interface Stock {
  readonly buyers: readonly Buyer[];
  /** One entry for each unit. */
  readonly offers: Offer[];
}

/** Makes a call as an account, uncounted. */
export type PlainCall = <I extends DescMessage, O extends DescMessage>(
  method: DescMethodUnary<I, O>,
  actor: Actor,
  request: MessageInitShape<I>,
) => Promise<MessageShape<O>>;

/** A thing to sell, called by one of the words. */
export function draftOf(word: string, units: number) {
  const title = `${word[0]?.toUpperCase()}${word.slice(1)}, made for a load test`;
  return { title, categoryId: "other-electronics", condition: Condition.GOOD, price: PRICE, units };
}

/** Gives buyers an address, and puts on sale what will be bought: a unit for each purchase that is to be expected, and some more. */
export async function fillStock(plan: LoadPlan, call: PlainCall): Promise<Stock> {
  const { sellers, shape, rampMs, durationMs } = plan;
  const perSecond = plan.rates.buy + plan.rates.watch;
  const purchases = perSecond === 0 ? 0 : expectedArrivals({ shape, rampMs, durationMs, perSecond });
  const units = purchases === 0 ? 0 : Math.ceil(purchases + 4 * Math.sqrt(purchases) + 1);
  const listings = Math.min(units, LISTINGS_MAX);
  const unitsOfEach = listings === 0 ? 0 : Math.ceil(units / listings);
  const offers: Offer[] = [];
  const batches: (() => Promise<void>)[] = [];
  for (let begin = 0; begin < listings; begin += LISTINGS_OF_ONE_CALL) {
    const seller = sellers[batches.length % sellers.length] as Actor;
    const drafts = Array.from({ length: Math.min(LISTINGS_OF_ONE_CALL, listings - begin) }, (_, index) =>
      draftOf(WORDS[index % WORDS.length] as string, unitsOfEach),
    );
    batches.push(async () => {
      const request = { requestId: newId(), publish: true, listings: drafts };
      const { results } = await call(CatalogService.method.batchCreateListings, seller, request);
      const refused = results.find(({ reason }) => reason !== "");
      if (refused !== undefined) throw new Error(`a listing was refused: ${refused.reason}: ${refused.message}`);
      for (const { listingId } of results) for (let unit = 0; unit < unitsOfEach; unit++) offers.push({ listingId, seller });
    });
  }
  const buyers: Buyer[] = [];
  const place = {
    recipient: "Load Test",
    lines: ["1 Long Road"],
    city: "Reno",
    region: "NV",
    postalCode: "89501",
    countryCode: "US",
  };
  const addresses = (perSecond === 0 ? [] : plan.buyers).map((actor) => async () => {
    const { address } = await call(AccountService.method.createAddress, actor, { requestId: newId(), ...place });
    buyers.push({ actor, addressId: address?.addressId ?? "" });
  });
  await atMost(SETUP_AT_ONCE, [...batches, ...addresses]);
  return { buyers, offers };
}

/** Does all, so many at once; ends with the first error. */
async function atMost(atOnce: number, all: readonly (() => Promise<void>)[]): Promise<void> {
  const rest = [...all];
  const worker = async () => {
    for (let work = rest.shift(); work !== undefined; work = rest.shift()) await work();
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
}
