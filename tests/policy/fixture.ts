import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { CatalogService, Condition } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { OrderService } from "#gen/marketplace/order/v1/order_pb.ts";
import { PaymentService } from "#gen/marketplace/payment/v1/payment_pb.ts";
import { newId } from "#runtime/ids.ts";
import { seed } from "../../tools/seed/seed.ts";
import { demo, type TestMarketplace } from "../support/marketplace.ts";

/** Every service that has an identity. */
export const SERVICES = ["account", "catalog", "inventory", "order", "payment", "search", "ops"] as const;

/** Things that belong to somebody: ada sells, ben buys. */
export interface AccessFixture {
  readonly activeId: string;
  readonly draftId: string;
  readonly draftEtag: string;
  /** Visible to its seller, operators and services only. */
  readonly withdrawnId: string;
  readonly stockedId: string;
  readonly paidOrderId: string;
  readonly shippedOrderId: string;
  readonly addressId: string;
  readonly payoutId: string;
  readonly accountId: string;
  /** An id that nothing has. */
  readonly nobody: string;
  /** A request_id that was never used. */
  requestId(): string;
}

/** Puts the fixture in, through the public RPCs. */
export async function accessFixture(marketplace: TestMarketplace): Promise<AccessFixture> {
  await seed((account, service) => marketplace.as(account.name, service));
  const catalog = marketplace.as("ada", CatalogService);
  const { addresses } = await marketplace.as("ben", AccountService).listAddresses({});
  const addressId = addresses[0]?.addressId ?? "";
  const create = async (publish: boolean) =>
    (await catalog.createListing({ requestId: newId(), publish, listing: draft() })).listing;
  const buy = async () => {
    const listing = await create(true);
    const { order } = await marketplace.as("ben", OrderService).placeOrder({
      requestId: newId(),
      addressId,
      paymentMethodToken: "tok_approved",
      lines: [{ listingId: listing?.listingId ?? "", unitPrice: PRICE }],
    });
    return order?.orderId ?? "";
  };
  const ship = async (orderId: string) => {
    await marketplace.as("ada", OrderService).shipOrder({ requestId: newId(), orderId, carrier: "UPS" });
    return orderId;
  };
  const confirm = (orderId: string) =>
    marketplace.as("ben", OrderService).confirmOrder({ requestId: newId(), orderId, rating: { stars: 5 } });
  await confirm(await ship(await buy()));
  await marketplace.settle();
  const { payout } = await marketplace
    .as("ada", PaymentService)
    .createPayout({ requestId: newId(), amount: { currencyCode: "USD", amountMinor: 100n } });
  const withdrawnId = (await create(true))?.listingId ?? "";
  await catalog.withdrawListing({ requestId: newId(), listingId: withdrawnId });
  const drafted = await create(false);
  return {
    activeId: (await create(true))?.listingId ?? "",
    draftId: drafted?.listingId ?? "",
    draftEtag: drafted?.etag ?? "",
    withdrawnId,
    stockedId: (await create(true))?.listingId ?? "",
    paidOrderId: await buy(),
    shippedOrderId: await ship(await buy()),
    addressId,
    payoutId: payout?.payoutId ?? "",
    accountId: demo("ada").account,
    nobody: newId(),
    requestId: newId,
  };
}

const PRICE = { currencyCode: "USD", amountMinor: 5000n };

function draft() {
  return { title: "A lamp", categoryId: "lamps", condition: Condition.GOOD, price: PRICE };
}
