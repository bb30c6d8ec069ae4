import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { CatalogService, Condition } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { InventoryService } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import { OrderService } from "#gen/marketplace/order/v1/order_pb.ts";
import { PaymentService } from "#gen/marketplace/payment/v1/payment_pb.ts";
import { newId } from "#runtime/ids.ts";
import { type AccessFixture, accessFixture } from "../policy/fixture.ts";
import { demo, type TestMarketplace } from "../support/marketplace.ts";

const MINUTE_MS = 60_000;

/** What one unit costs. */
export const PRICE = { currencyCode: "USD", amountMinor: 5_000n };

/** Things to do something with, each for one command only: ada sells, ben buys. */
export interface Goods extends AccessFixture {
  readonly completedOrderId: string;
  readonly orders: Readonly<Record<"toShip" | "toConfirm" | "toCancel" | "toContinue", string>>;
  /** On sale, with many units. */
  readonly listingId: string;
  readonly drafts: Readonly<Record<"toUpdate" | "toPublish" | "toWithdraw", { readonly listingId: string; readonly etag: string }>>;
  readonly addressToDelete: string;
  readonly reservations: Readonly<Record<"kept" | "toCommit" | "toRelease", string>>;
  readonly payments: Readonly<Record<"kept" | "toConfirm" | "toCapture" | "toVoid" | "toRefund" | "toRelease", string>>;
  /** The time of the marketplace. */
  now(): number;
}

/** Puts them in, through the RPCs. */
export async function goodsIn(marketplace: TestMarketplace): Promise<Goods> {
  const base = await accessFixture(marketplace);
  const now = () => marketplace.clock.now();
  const [ada, ben] = [marketplace.as("ada", CatalogService), marketplace.as("ben", OrderService)];
  const created = async (publish: boolean, units = 1) => {
    const { listing } = await ada.createListing({ requestId: newId(), publish, listing: { ...draft(), units } });
    return { listingId: listing?.listingId ?? "", etag: listing?.etag ?? "" };
  };
  const { listingId } = await created(true, 50);
  const ordered = async (paymentMethodToken = "tok_approved") => {
    const { order } = await ben.placeOrder({
      requestId: newId(),
      addressId: base.addressId,
      paymentMethodToken,
      lines: [{ listingId, unitPrice: PRICE }],
    });
    return order?.orderId ?? "";
  };
  const shipped = async (orderId: string) => {
    await marketplace.as("ada", OrderService).shipOrder({ requestId: newId(), orderId, carrier: "UPS" });
    return orderId;
  };
  const completedOrderId = await shipped(await ordered());
  await ben.confirmOrder({ requestId: newId(), orderId: completedOrderId, rating: { stars: 5 } });
  const { address } = await marketplace.as("ben", AccountService).createAddress({ requestId: newId(), ...shippingAddress() });
  const goods = {
    ...base,
    now,
    listingId,
    completedOrderId,
    orders: {
      toShip: await ordered(),
      toConfirm: await shipped(await ordered()),
      toCancel: await ordered(),
      toContinue: await ordered("tok_needs_confirmation"),
    },
    drafts: { toUpdate: await created(false), toPublish: await created(false), toWithdraw: await created(true) },
    addressToDelete: address?.addressId ?? "",
    reservations: await reservationsIn(marketplace, listingId),
    payments: await paymentsIn(marketplace, listingId),
  };
  await marketplace.settle();
  return goods;
}

async function reservationsIn(marketplace: TestMarketplace, listingId: string): Promise<Goods["reservations"]> {
  const inventory = marketplace.as({ service: "order" }, InventoryService);
  const reserve = async () => {
    const reservationId = newId();
    const expireTime = timestampFromMs(marketplace.clock.now() + 60 * MINUTE_MS);
    await inventory.reserve({ requestId: newId(), reservationId, lines: [{ listingId, units: 1 }], expireTime });
    return reservationId;
  };
  return { kept: await reserve(), toCommit: await reserve(), toRelease: await reserve() };
}

async function paymentsIn(marketplace: TestMarketplace, listingId: string): Promise<Goods["payments"]> {
  const payments = marketplace.as({ service: "order" }, PaymentService);
  const authorize = async (token = "tok_approved") => {
    const request = authorization(listingId, marketplace.clock.now(), token);
    await payments.authorizePayment({ requestId: newId(), ...request });
    return request.paymentId;
  };
  // The buyer said yes on the processor's page: ConfirmPayment finds something to do.
  const confirmed = async (paymentId: string) => {
    const { payment } = await payments.getPayment({ paymentId });
    const url = payment?.confirmationUrl ?? "";
    const doors = marketplace.modules.flatMap((module) => module.doors ?? []);
    const door = doors.find(({ method, path }) => method === "POST" && url.includes(path));
    await door?.handle(new Request(`${url}/confirm`, { method: "POST" }));
    return paymentId;
  };
  const capture = async (paymentId: string) => {
    await payments.capturePayment({ requestId: newId(), paymentId });
    return paymentId;
  };
  return {
    kept: await authorize(),
    toConfirm: await confirmed(await authorize("tok_needs_confirmation")),
    toCapture: await authorize(),
    toVoid: await authorize(),
    toRefund: await capture(await authorize()),
    toRelease: await capture(await authorize()),
  };
}

/** What a listing is made of. */
export function draft() {
  return { title: "A brass lamp", categoryId: "lamps", condition: Condition.GOOD, price: PRICE };
}

/** What AuthorizePayment takes beside its request_id. */
export function authorization(listingId: string, now: number, paymentMethodToken = "tok_approved") {
  return {
    paymentId: newId(),
    orderId: newId(),
    buyerId: demo("ben").account,
    sellerId: demo("ada").account,
    paymentMethodToken,
    lines: [{ listingId, amount: PRICE, listingTime: timestampFromMs(now - MINUTE_MS) }],
  };
}

/** A place to send things to. */
export function shippingAddress() {
  return { recipient: "Ben", lines: ["1 Long Road"], city: "Reno", countryCode: "US" };
}
