import { setTimeout as sleep } from "node:timers/promises";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { CatalogService, Condition, type Listing, ListingState } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { type Order, OrderService, OrderState } from "#gen/marketplace/order/v1/order_pb.ts";
import { PaymentService, type Payout } from "#gen/marketplace/payment/v1/payment_pb.ts";
import { newId } from "#runtime/ids.ts";
import type { Fleet } from "../support/processes.ts";
import { type Chance, chanceOf } from "./chance.ts";
import type { Ledger } from "./ledger.ts";

const CURRENCIES = ["USD", "USD", "JPY"] as const;
const TOKENS = ["tok_approved", "tok_approved", "tok_approved", "tok_approved", "tok_declined", "tok_capture_timeout_charged"];
/** What the buyer of something that others want, too, may be told. */
const LOST = ["OUT_OF_STOCK", "LISTING_NOT_AVAILABLE", "PRICE_CHANGED", "PAYMENT_DECLINED"];
/** A seller has at least so many listings on sale, as far as he knows. */
const LISTINGS_LEAST = 5;
const THINK_MAX_MS = 200;

/** What all traders know of the market, from answers only. */
export interface Market {
  readonly fleet: Pick<Fleet, "client">;
  readonly ledger: Ledger;
  readonly sellers: Map<string, Listing[]>;
  /** The last answer about each order, listing and payout. */
  readonly orders: Map<string, Order>;
  readonly listings: Map<string, Listing>;
  readonly payouts: Map<string, Payout>;
}

/** Begins a market that nobody has come to. */
export function openMarket(fleet: Pick<Fleet, "client">, ledger: Ledger): Market {
  return { fleet, ledger, sellers: new Map(), orders: new Map(), listings: new Map(), payouts: new Map() };
}

/** Sells and buys with two accounts, one command at a time, whatever becomes of the processes behind. */
export class Trader {
  readonly #market: Market;
  readonly #chance: Chance;
  readonly #seller = newId();
  readonly #buyer = newId();
  readonly #currency: string;
  readonly #mine: Listing[] = [];
  /** Orders of this buyer that go on. */
  readonly #open: Order[] = [];
  #addressId = "";

  constructor(market: Market, seed: number) {
    this.#market = market;
    this.#chance = chanceOf(seed);
    this.#currency = this.#chance.of(CURRENCIES);
    market.sellers.set(this.#seller, this.#mine);
  }

  /** Gives the buyer an address, the seller a bank and something to sell. */
  async open(): Promise<void> {
    const { ledger } = this.#market;
    const place = { recipient: "Ben", lines: ["1 Long Road"], city: "Springfield", postalCode: "97477", countryCode: "US" };
    const created = await ledger.send(this.#buyer, AccountService.method.createAddress, { requestId: newId(), ...place });
    this.#addressId = created?.address?.addressId ?? "";
    const bank = { destinationToken: "bank_demo", currencyCode: this.#currency };
    await ledger.send(this.#seller, AccountService.method.setPayoutDestination, { requestId: newId(), ...bank });
    await this.#offer();
  }

  /** Trades until told to stop; ends with a command that was answered. */
  async trade(stopped: AbortSignal): Promise<void> {
    while (!stopped.aborted) {
      await this.#act();
      await sleep(this.#chance.between(0, THINK_MAX_MS));
    }
  }

  #act(): Promise<unknown> {
    const { between } = this.#chance;
    const dice = between(1, 100);
    if (this.#mine.length < LISTINGS_LEAST || dice <= 6) return this.#offer();
    if (dice <= 11) return this.#change();
    if (dice <= 14) return this.#withdraw();
    if (dice <= 20) return this.#payOut();
    if (dice <= 26) return this.#look();
    if (this.#open.length > 0 && dice <= 65) return this.#proceed();
    return this.#buy();
  }

  #learn(listing: Listing | undefined): Listing | undefined {
    if (listing === undefined) return undefined;
    this.#market.listings.set(listing.listingId, listing);
    const at = this.#mine.findIndex(({ listingId }) => listingId === listing.listingId);
    if (at >= 0) this.#mine.splice(at, 1);
    if (listing.state === ListingState.ACTIVE) this.#mine.push(listing);
    return listing;
  }

  async #offer(): Promise<void> {
    const { chance, draft } = { chance: this.#chance, draft: this.#draft() };
    const { createListing, publishListing } = CatalogService.method;
    const publish = chance.next() < 0.7;
    const created = await this.#market.ledger.send(this.#seller, createListing, { requestId: newId(), publish, listing: draft });
    const listing = this.#learn(created?.listing);
    if (listing === undefined || publish || chance.next() < 0.2) return;
    const request = { requestId: newId(), listingId: listing.listingId };
    this.#learn((await this.#market.ledger.send(this.#seller, publishListing, request))?.listing);
  }

  #draft() {
    const { of, between } = this.#chance;
    const price = { currencyCode: this.#currency, amountMinor: BigInt(between(500, 20_000)) };
    const units = of([1, 1, 1, 2, 3, 20]);
    return {
      title: `Seven iron ${newId().slice(-12)}`,
      description: "Hardly used.",
      categoryId: "golf-clubs",
      condition: of([Condition.NEW, Condition.GOOD, Condition.FOR_PARTS]),
      price,
      units,
    };
  }

  async #change(): Promise<void> {
    const listing = this.#chance.of(this.#mine);
    const price = { currencyCode: this.#currency, amountMinor: BigInt(this.#chance.between(500, 20_000)) };
    const request = { requestId: newId(), listingId: listing.listingId, etag: listing.etag, price };
    const refusals = ["ETAG_MISMATCH", "LISTING_NOT_EDITABLE"];
    const changed = await this.#market.ledger.send(this.#seller, CatalogService.method.updateListing, request, refusals);
    if (changed === undefined) this.#forget(listing);
    else this.#learn(changed.listing);
  }

  async #withdraw(): Promise<void> {
    const listing = this.#chance.of(this.#mine);
    const request = { requestId: newId(), listingId: listing.listingId };
    const refusals = ["UNITS_RESERVED", "LISTING_NOT_EDITABLE"];
    const { ledger } = this.#market;
    const withdrawn = await ledger.send(this.#seller, CatalogService.method.withdrawListing, request, refusals);
    if (withdrawn === undefined) this.#forget(listing);
    else this.#learn(withdrawn.listing);
  }

  /** It was reserved, sold or changed without this seller. */
  #forget({ listingId }: Listing): void {
    const at = this.#mine.findIndex((listing) => listing.listingId === listingId);
    if (at >= 0) this.#mine.splice(at, 1);
  }

  async #payOut(): Promise<void> {
    const amount = { currencyCode: this.#currency, amountMinor: BigInt(this.#chance.between(1, 5_000)) };
    const { createPayout } = PaymentService.method;
    const answer = await this.#market.ledger.send(this.#seller, createPayout, { requestId: newId(), amount }, ["BALANCE_TOO_LOW"]);
    if (answer?.payout) this.#market.payouts.set(answer.payout.payoutId, answer.payout);
  }

  /** Reads as anybody does, so that caches have something to be wrong about. What is refused is no command. */
  async #look(): Promise<void> {
    const [, listings] = this.#chance.of([...this.#market.sellers]);
    const listing = listings.at(this.#chance.between(0, listings.length - 1));
    if (listing === undefined) return;
    const catalog = this.#market.fleet.client(CatalogService, undefined, "catalog");
    await catalog.getListing({ listingId: listing.listingId }, { timeoutMs: 1_000 }).catch(() => undefined);
  }

  async #buy(): Promise<void> {
    const { of, next, shuffled } = this.#chance;
    const others = [...this.#market.sellers].filter(([seller, { length }]) => seller !== this.#seller && length > 0);
    if (others.length === 0) return this.#offer();
    const [, listings] = of(others);
    const lines = shuffled(listings)
      .slice(0, next() < 0.3 ? 2 : 1)
      .map(({ listingId, price }) => ({ listingId, ...(price && { unitPrice: price }) }));
    const request = { requestId: newId(), lines, addressId: this.#addressId, paymentMethodToken: of(TOKENS) };
    const answer = await this.#market.ledger.send(this.#buyer, OrderService.method.placeOrder, request, LOST);
    if (answer?.order) this.#heard(answer.order);
    // Nobody tells a seller that his last unit was sold.
    else for (const { listingId } of lines) this.#retire(listings, listingId);
  }

  #retire(listings: Listing[], listingId: string): void {
    const at = listings.findIndex((listing) => listing.listingId === listingId);
    if (at >= 0 && this.#chance.next() < 0.5) listings.splice(at, 1);
  }

  /** The next step of an order: the seller ships or somebody cancels, the buyer confirms. */
  async #proceed(): Promise<void> {
    const { ledger } = this.#market;
    const { of, next, between } = this.#chance;
    const { orderId, sellerId, state } = of(this.#open);
    const requestId = newId();
    const { cancelOrder, shipOrder, confirmOrder } = OrderService.method;
    const rating = { stars: between(1, 5), comment: "As described." };
    const answer =
      state === OrderState.SHIPPED
        ? await ledger.send(this.#buyer, confirmOrder, { requestId, orderId, rating })
        : next() < 0.25
          ? await ledger.send(of([this.#buyer, sellerId]), cancelOrder, { requestId, orderId })
          : await ledger.send(sellerId, shipOrder, { requestId, orderId, carrier: "Pigeon" });
    if (answer?.order) this.#heard(answer.order);
  }

  #heard(order: Order): void {
    this.#market.orders.set(order.orderId, order);
    const at = this.#open.findIndex(({ orderId }) => orderId === order.orderId);
    if (at >= 0) this.#open.splice(at, 1);
    if (order.state === OrderState.PAID || order.state === OrderState.SHIPPED) this.#open.push(order);
  }
}
