import { AccountService, type Address } from "#gen/marketplace/account/v1/account_pb.ts";
import { CatalogService } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import type { PlaceOrderRequest } from "#gen/marketplace/order/v1/order_pb.ts";
import { accountOf, type Call } from "#runtime/call.ts";
import { type Clients, forCall } from "#runtime/clients.ts";
import { fail, reasonOf } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import type { OrderTransaction } from "./entities.ts";
import { ADDRESS_NOT_FOUND } from "./errors.ts";
import { leaseColumns } from "./lease.ts";
import { insertOrder } from "./orders.ts";
import { STEPS_AHEAD } from "./purchase.ts";
import { type Quote, quote } from "./quote.ts";
import type { Lease } from "./saga.ts";
import { stepsAhead, writeSteps } from "./steps.ts";

/** What a buyer and a seller agree on, before anything is written. */
export interface Agreed {
  readonly quote: Quote;
  readonly address: Address;
  readonly paymentMethodToken: string;
}

/** A saga that a command made necessary, and the lease under which this process drives it. */
export interface Started {
  readonly orderId: string;
  readonly lease: Lease;
}

/** The two halves of placing an order: what is read and decided without a trace, and what is written. */
export function placements(clients: Clients) {
  const catalog = clients.of(CatalogService);
  const account = clients.of(AccountService);
  return {
    /** Reads listings and address with the buyer's eyes, and decides. */
    async agree(request: PlaceOrderRequest, call: Call): Promise<Agreed> {
      const listingIds = [...new Set(request.lines.map((line) => line.listingId))];
      // Once: where no time is left it throws, and a call begun before would fail with nobody to hear it, which ends the process.
      const options = forCall(call);
      const [{ listings }, address] = await Promise.all([
        catalog.batchGetListings({ listingIds }, options),
        addressOf(account.getAddress({ addressId: request.addressId }, options)),
      ]);
      const { paymentMethodToken } = request;
      return { quote: quote(accountOf(call), request.lines, listings), address, paymentMethodToken };
    },

    /** Writes the order with the first steps of its saga as begun, and when to look after it should this process die. */
    async insert(tx: OrderTransaction, requestKey: string, agreed: Agreed, call: Call): Promise<Started> {
      const orderId = newId();
      const owner = newId();
      const { recipient, lines, city, region, postalCode, countryCode } = agreed.address;
      const steps = stepsAhead(STEPS_AHEAD, tx.now);
      const order = await insertOrder(tx, {
        orderId,
        buyerId: accountOf(call),
        quote: agreed.quote,
        shipTo: { recipient, lines, city, region, postalCode, countryCode },
        paymentMethodToken: agreed.paymentMethodToken,
        lease: leaseColumns(tx, { owner }),
        saga: writeSteps(steps),
        waitingKey: requestKey,
      });
      return { orderId, lease: { owner, fresh: { order, steps } } };
    },
  };
}

async function addressOf(asked: Promise<{ address?: Address | undefined }>): Promise<Address> {
  try {
    return (await asked).address ?? fail(ADDRESS_NOT_FOUND);
  } catch (error) {
    return reasonOf(error) === ADDRESS_NOT_FOUND.name ? fail(ADDRESS_NOT_FOUND, { cause: error }) : Promise.reject(error);
  }
}
