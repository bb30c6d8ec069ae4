import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { CatalogService, Condition } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { OrderService, OrderState } from "#gen/marketplace/order/v1/order_pb.ts";
import { newId } from "#runtime/ids.ts";
import { until } from "./cluster.ts";
import { installSouk, type Release, valuesBehind } from "./release.ts";
import { type Through, throughGateway } from "./through.ts";

/** A marketplace with two pods of each service, and stores of its own, behind the gateway. */
export interface SharedRelease extends Release {
  readonly host: string;
  readonly through: Through;
  /** From the beginning of `helm install` until a purchase was answered, in ms. */
  readonly firstPurchaseMs: number;
}

let shared: Promise<SharedRelease> | undefined;

/** The release that several files look at, one after the other: the first that asks installs it, and it goes when all tests have run. */
export function sharedRelease(): Promise<SharedRelease> {
  shared ??= installShared();
  return shared;
}

/**
 * Ends the shared release, if there is one, to make room: a proxy takes three inotify instances, of which Linux gives all of them on a node together 128
 * unless told otherwise.
 */
export async function endShared(): Promise<void> {
  const ending = shared;
  shared = undefined;
  // One that could not be installed has been taken away.
  const release = await ending?.catch(() => undefined);
  release?.through.close();
  await release?.end();
}

// Outside of any suite: mocha runs it behind all files.
after(function () {
  this.timeout(120_000);
  return endShared();
});

async function installShared(): Promise<SharedRelease> {
  const host = "shared-test.souk.example";
  const release = await installSouk(valuesBehind(host, 2), { ownStores: true });
  const through = throughGateway({ keys: release.keys, host });
  try {
    const beginTime = performance.now();
    await until("the gateway lets calls in", async () => {
      await through.client(CatalogService).listCategories({});
      return true;
    });
    await buy(through);
    return { ...release, host, through, firstPurchaseMs: release.installMs + performance.now() - beginTime };
  } catch (error) {
    through.close();
    await release.end();
    throw error;
  }
}

/** Sells and buys one thing. */
export async function buy(through: Through): Promise<void> {
  const [seller, buyer] = [newId(), newId()];
  const price = { currencyCode: "USD", amountMinor: 1250n };
  const { listing } = await through.client(CatalogService, { account: seller }).createListing({
    requestId: newId(),
    publish: true,
    listing: { title: "Seven iron", categoryId: "golf-clubs", condition: Condition.GOOD, price },
  });
  const place = { recipient: "Ben", lines: ["1 Long Road"], city: "Springfield", postalCode: "97477", countryCode: "US" };
  const { address } = await through.client(AccountService, { account: buyer }).createAddress({ requestId: newId(), ...place });
  const { order } = await through.client(OrderService, { account: buyer }).placeOrder({
    requestId: newId(),
    addressId: address?.addressId ?? "",
    paymentMethodToken: "tok_approved",
    lines: [{ listingId: listing?.listingId ?? "", unitPrice: price }],
  });
  if (order?.state !== OrderState.PAID) throw new Error(`the order is in state ${order?.state}`);
}
