import type { DescMessage, DescMethodUnary, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { CatalogService } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { type Order, OrderService, OrderState } from "#gen/marketplace/order/v1/order_pb.ts";
import { SearchService } from "#gen/marketplace/search/v1/search_pb.ts";
import { newId } from "#runtime/ids.ts";
import { methodName } from "#runtime/policy.ts";
import type { Actor, FlowName } from "./plan.ts";
import type { Flight, Recorder } from "./recorder.ts";
import { type Buyer, draftOf, type Offer, PRICE, type Stock, WORDS } from "./stock.ts";

/** The name under which it is counted how long a stream takes to show a change, from the answer of the command that made it. */
export const CHANGE_SEEN = `${methodName(OrderService.method.watchOrder)} (a change)`;

/** What flows are made with. */
export interface FlowsOptions {
  readonly recorder: Recorder;
  readonly stock: Stock;
  readonly sellers: readonly Actor[];
  readonly random: () => number;
  /** Makes a call, as an account where one is given, and counts it. */
  readonly call: CountedCall;
  /** Opens the stream of an order. */
  readonly watch: (orderId: string, actor: Actor, signal: AbortSignal) => AsyncIterable<Order>;
}

/** Makes a call and counts it. */
export type CountedCall = <I extends DescMessage, O extends DescMessage>(
  method: DescMethodUnary<I, O>,
  flight: Flight,
  actor: Actor | undefined,
  request: MessageInitShape<I>,
) => Promise<MessageShape<O>>;

/** What people do; each flow rejects with `CallFailed` when one of its calls does. */
export type Flows = Readonly<Record<FlowName, (flight: Flight) => Promise<void>>>;

/** The flows on one marketplace. */
export function createFlows({ recorder, stock, sellers, random, call, watch }: FlowsOptions): Flows {
  const anyOf = <T>(all: readonly T[]): T => all[Math.floor(random() * all.length)] as T;

  async function sell(flight: Flight): Promise<Offer> {
    const seller = anyOf(sellers);
    const created = { requestId: newId(), listing: draftOf(anyOf(WORDS), 1) };
    const { listing } = await call(CatalogService.method.createListing, flight, seller, created);
    const listingId = listing?.listingId ?? "";
    await call(CatalogService.method.publishListing, flight, seller, { requestId: newId(), listingId });
    return { listingId, seller };
  }

  async function place(flight: Flight): Promise<{ orderId: string; buyer: Buyer; seller: Actor }> {
    const { listingId, seller } = stock.offers.pop() ?? (await sell(flight));
    const buyer = anyOf(stock.buyers);
    const { order } = await call(OrderService.method.placeOrder, flight, buyer.actor, {
      requestId: newId(),
      addressId: buyer.addressId,
      paymentMethodToken: "tok_approved",
      lines: [{ listingId, unitPrice: PRICE }],
    });
    return { orderId: order?.orderId ?? "", buyer, seller };
  }

  const ship = (flight: Flight, seller: Actor, orderId: string) =>
    call(OrderService.method.shipOrder, flight, seller, { requestId: newId(), orderId, carrier: "UPS" });
  const confirm = (flight: Flight, buyer: Buyer, orderId: string) =>
    call(OrderService.method.confirmOrder, flight, buyer.actor, { requestId: newId(), orderId, rating: { stars: 5 } });

  return {
    async browse(flight) {
      const { results } = await call(SearchService.method.searchListings, flight, undefined, { query: anyOf(WORDS) });
      if (results.length === 0) return;
      await call(CatalogService.method.getListing, flight, undefined, { listingId: anyOf(results).listingId });
      const listingIds = results.map(({ listingId }) => listingId);
      await call(CatalogService.method.batchGetListings, flight, undefined, { listingIds });
    },
    async sell(flight) {
      stock.offers.unshift(await sell(flight));
    },
    async buy(flight) {
      const { orderId, buyer, seller } = await place(flight);
      await ship(flight, seller, orderId);
      await confirm(flight, buyer, orderId);
    },
    async watch(flight) {
      const { orderId, buyer, seller } = await place(flight);
      const ending = new AbortController();
      const stream = watch(orderId, buyer.actor, ending.signal)[Symbol.asyncIterator]();
      try {
        await recorder.call(methodName(OrderService.method.watchOrder), flight, () => shown(stream));
        const seen = shown(stream, OrderState.SHIPPED);
        seen.catch(() => {});
        await ship(flight, seller, orderId);
        await recorder.call(CHANGE_SEEN, flight, () => seen);
        await confirm(flight, buyer, orderId);
      } finally {
        ending.abort();
      }
    },
  };
}

/** Reads a stream up to the first state of the order, or up to this one. */
async function shown(stream: AsyncIterator<Order>, state?: OrderState): Promise<void> {
  for (;;) {
    const { done, value } = await stream.next();
    if (done === true) throw new ConnectError("the stream ended", Code.Unavailable);
    if (state === undefined || value.state === state) return;
  }
}
