import type { DescService, MessageInitShape } from "@bufbuild/protobuf";
import { type CallOptions, type Client, Code, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { CatalogService, Condition, type Listing } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { type Order, OrderService, type PlaceOrderRequestSchema } from "#gen/marketplace/order/v1/order_pb.ts";
import { PaymentService } from "#gen/marketplace/payment/v1/payment_pb.ts";
import { manualClock } from "#runtime/clock.ts";
import { newId } from "#runtime/ids.ts";
import { embeddedVerifiers } from "#runtime/tokens.ts";
import { openMarketplace } from "../../services/marketplace.ts";
import { quietLog } from "../support/database.ts";
import { type Identity, signedIn } from "../support/server.ts";
import type { Drill } from "./drill.ts";

/** Gives a client that calls as an account. */
export type Reach = <S extends DescService>(accountId: string, service: S) => Client<S>;

/** What each listing costs, in USD cents. */
export const PRICE_MINOR = 45_000n;

/** How long a person waits for what cannot end. */
export const BRIEFLY = { timeoutMs: 2_000 };

/** A seller and a buyer who trade one listing of one unit an order. */
export class Trade {
  readonly sellerId = newId();
  readonly buyerId = newId();
  readonly #reach: Reach;
  #addressId = "";

  constructor(reach: Reach) {
    this.#reach = reach;
  }

  get seller() {
    return {
      catalog: this.#reach(this.sellerId, CatalogService),
      order: this.#reach(this.sellerId, OrderService),
      payment: this.#reach(this.sellerId, PaymentService),
    };
  }

  get buyer() {
    return this.#reach(this.buyerId, OrderService);
  }

  /** Gives the buyer an address and the seller a bank. */
  async open(): Promise<void> {
    const { address } = await this.#reach(this.buyerId, AccountService).createAddress({
      requestId: newId(),
      recipient: "B. Buyer",
      lines: ["1 Main St"],
      city: "Springfield",
      countryCode: "US",
    });
    this.#addressId = address?.addressId ?? "";
    await this.#reach(this.sellerId, AccountService).setPayoutDestination({
      requestId: newId(),
      destinationToken: "bank_demo",
      currencyCode: "USD",
    });
  }

  /** Puts something on sale. */
  async offer(title: string): Promise<Listing> {
    const price = { currencyCode: "USD", amountMinor: PRICE_MINOR };
    const { listing } = await this.seller.catalog.createListing({
      requestId: newId(),
      publish: true,
      listing: { title, categoryId: "road-bikes", condition: Condition.GOOD, price },
    });
    return listing as Listing;
  }

  /** Buys it. */
  async buy(listing: Listing, paymentMethodToken?: string): Promise<Order> {
    const { order } = await this.buyer.placeOrder(this.purchaseOf(listing, paymentMethodToken));
    return order as Order;
  }

  /** What is sent to buy it; sent again with the same request_id it is the same purchase. */
  purchaseOf({ listingId, price }: Listing, paymentMethodToken = "tok_approved"): MessageInitShape<typeof PlaceOrderRequestSchema> {
    const lines = [{ listingId, ...(price && { unitPrice: price }) }];
    return { requestId: newId(), addressId: this.#addressId, paymentMethodToken, lines };
  }

  /** A paid order for something new. */
  async paid(title: string): Promise<Order> {
    return this.buy(await this.offer(title));
  }

  async shipped(title: string): Promise<Order> {
    const { orderId } = await this.paid(title);
    return this.ship(orderId);
  }

  async completed(title: string): Promise<Order> {
    const { orderId } = await this.shipped(title);
    return this.confirm(orderId);
  }

  async cancel(orderId: string, options: CallOptions = {}): Promise<Order> {
    const { order } = await this.buyer.cancelOrder({ requestId: newId(), orderId }, options);
    return order as Order;
  }

  async ship(orderId: string): Promise<Order> {
    const { order } = await this.seller.order.shipOrder({ requestId: newId(), orderId, carrier: "Pigeon" });
    return order as Order;
  }

  async confirm(orderId: string, options: CallOptions = {}): Promise<Order> {
    const { order } = await this.buyer.confirmOrder({ requestId: newId(), orderId, rating: { stars: 5 } }, options);
    return order as Order;
  }
}

/** A marketplace to trade on, in this process. */
export interface Stall {
  readonly trade: Trade;
  /** The methods whose answers are lost between services: they take effect, and nobody hears of it. */
  readonly lost: Set<string>;
  as<S extends DescService>(identity: Identity, service: S): Client<S>;
  /** Waits until every event is applied and every due job is done. */
  settle(): Promise<void>;
  stop(): Promise<void>;
}

/** Opens one on the first machine of a drill. Its clock stands: what it plans for later is still to be done when it is backed up. */
export async function openStall({ keys, dataDir, databaseUrl, redisUrl }: Drill): Promise<Stall> {
  const lost = new Set<string>();
  const market = await openMarketplace({
    dataDir,
    databaseUrl,
    redisUrl,
    keys,
    verifiers: embeddedVerifiers(keys),
    clock: manualClock(),
    log: quietLog,
    baseUrl: () => "http://localhost:8080",
    interceptors: () => [losing(lost)],
  });
  await market.start();
  const as: Stall["as"] = (identity, service) =>
    createClient(service, market.directory.transport(service, undefined, [signedIn(keys, identity)]));
  const trade = new Trade((accountId, service) => as({ account: accountId }, service));
  return { trade, lost, as, settle: () => market.settle(), stop: () => market.stop() };
}

function losing(lost: ReadonlySet<string>): Interceptor {
  return (next) => async (request) => {
    const response = await next(request);
    if (lost.has(request.method.name)) throw new ConnectError("the answer was lost", Code.Unavailable);
    return response;
  };
}
