import type { Client } from "@connectrpc/connect";
import { type Order, type OrderService, OrderState } from "#gen/marketplace/order/v1/order_pb.ts";
import { reasonOf } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";

/** How the order service is reached as an account, as long as the process lives. */
export type Reach = (accountId: string) => Client<typeof OrderService>;

/** What is sold: one listing of one seller. */
export interface Offer {
  readonly sellerId: string;
  readonly listingId: string;
  readonly unitPrice: { readonly currencyCode: string; readonly amountMinor: bigint };
}

/** A command with its request_id: sent again and again until it is answered, to whichever process lives then. */
type Wish = (reach: Reach) => Promise<{ order?: Order | undefined }>;

const TOKENS = ["tok_approved", "tok_approved", "tok_approved", "tok_declined", "tok_capture_expired"];

/** One buyer who buys one unit after the other and sees to some of the orders, whatever happens to the process behind. */
export class Shopper {
  /** How far each order was answered to have come. */
  readonly acknowledged = new Map<string, OrderState>();
  /** Refusals that nobody should get. */
  readonly odd: string[] = [];
  readonly buyerId: string;
  readonly #addressId: string;
  readonly #offer: Offer;
  /** Sent, and not answered. */
  #open: Wish | undefined;
  /** The order of the last answer. */
  #last: Order | undefined;

  constructor(buyerId: string, addressId: string, offer: Offer) {
    this.buyerId = buyerId;
    this.#addressId = addressId;
    this.#offer = offer;
  }

  /** Buys until the process is gone. */
  async shop(reach: Reach): Promise<void> {
    do {
      this.#open ??= this.#next();
    } while (await this.#send(reach));
  }

  /** Sends again what was not answered; answers whether it is now. */
  async finish(reach: Reach): Promise<boolean> {
    return this.#send(reach);
  }

  async #send(reach: Reach): Promise<boolean> {
    try {
      const { order } = (await this.#open?.(reach)) ?? {};
      this.#last = order;
      if (order !== undefined) this.acknowledged.set(order.orderId, order.state);
    } catch (error) {
      const reason = reasonOf(error);
      if (reason === undefined || ["UNAVAILABLE", "DEPENDENCY_UNAVAILABLE", "DEADLINE_EXCEEDED"].includes(reason)) return false;
      this.#last = undefined;
      if (reason !== "PAYMENT_DECLINED") this.odd.push(String(error));
    }
    this.#open = undefined;
    return true;
  }

  #next(): Wish {
    const requestId = newId();
    const orderId = this.#last?.orderId ?? "";
    const chance = Math.random();
    if (this.#last?.state === OrderState.PAID && chance < 0.25) {
      return (reach) => reach(this.buyerId).cancelOrder({ requestId, orderId });
    }
    if (this.#last?.state === OrderState.PAID && chance < 0.6) {
      return (reach) => reach(this.#offer.sellerId).shipOrder({ requestId, orderId, carrier: "Pigeon" });
    }
    if (this.#last?.state === OrderState.SHIPPED) {
      return (reach) => reach(this.buyerId).confirmOrder({ requestId, orderId, rating: { stars: 5 } });
    }
    const { listingId, unitPrice } = this.#offer;
    const paymentMethodToken = TOKENS[Math.floor(Math.random() * TOKENS.length)] as string;
    const request = { requestId, lines: [{ listingId, unitPrice }], addressId: this.#addressId, paymentMethodToken };
    return (reach) => reach(this.buyerId).placeOrder(request);
  }
}
