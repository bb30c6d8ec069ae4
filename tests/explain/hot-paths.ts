import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { AccountService, ListRatingsRequestSchema } from "#gen/marketplace/account/v1/account_pb.ts";
import {
  CatalogService,
  Condition,
  ListBrandsRequestSchema,
  ListingState,
  ListSellerListingsRequestSchema,
  ScanListingsRequestSchema,
} from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { EventSchema } from "#gen/marketplace/event/v1/event_pb.ts";
import { StockChangedSchema } from "#gen/marketplace/inventory/v1/events_pb.ts";
import { InventoryService } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import { ListOwnDeadLettersRequestSchema, MaintenanceService, OpsService } from "#gen/marketplace/ops/v1/ops_pb.ts";
import { ListOrdersRequestSchema, OrderRole, OrderService, OrderState } from "#gen/marketplace/order/v1/order_pb.ts";
import {
  ListPayoutsRequestSchema,
  ListStatementEntriesRequestSchema,
  PaymentService,
} from "#gen/marketplace/payment/v1/payment_pb.ts";
import { SearchService } from "#gen/marketplace/search/v1/search_pb.ts";
import { reasonOf } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { demo } from "../support/marketplace.ts";
import { idOf } from "./numbered.ts";
import type { Shop } from "./shop.ts";

const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;
const price = { currencyCode: "USD", amountMinor: 2_000n };

/** Everything the marketplace does with its tables, once each: all lists with a page from their midst, all commands, all jobs. */
export async function walkHotPaths(shop: Shop): Promise<void> {
  await shop.step("the start", async () => {
    await shop.marketplace.start();
    await shop.marketplace.settle();
  });
  await profiles(shop);
  const listingId = await listings(shop);
  await stock(shop);
  await purchases(shop, listingId);
  await orderLists(shop);
  await money(shop);
  await operators(shop);
  await timers(shop);
  await shop.step("search", async () => {
    const search = shop.as("olga", SearchService);
    await search.searchListings({ query: "lamp" });
    await search.startReindex({ requestId: newId() });
    await shop.marketplace.settle();
    await search.getIndexStatus({});
  });
}

async function profiles(shop: Shop): Promise<void> {
  const [ada, ben] = [shop.as("ada", AccountService), shop.as("ben", AccountService)];
  await shop.step("GetProfile", () => ada.getProfile({ accountId: idOf("account", 5) }));
  await shop.step("BatchGetProfiles", () =>
    ada.batchGetProfiles({ accountIds: Array.from({ length: 100 }, (_, index) => idOf("account", 1 + index * 199)) }),
  );
  await shop.step("UpdateProfile", async () => {
    const { profile } = await ada.updateProfile({ requestId: newId(), displayName: "Ada of old" });
    await ada.updateProfile({ requestId: newId(), displayName: "Ada", etag: profile?.etag ?? "" });
    await refused("DISPLAY_NAME_TAKEN", ben.updateProfile({ requestId: newId(), displayName: "Somebody 7" }));
    await ben.updateProfile({ requestId: newId(), displayName: "Ben" });
  });
  await shop.step("addresses", async () => {
    const place = { recipient: "Ben", lines: ["1 Long Road"], city: "Springfield", postalCode: "97477", countryCode: "US" };
    const { address } = await ben.createAddress({ requestId: newId(), ...place });
    await ben.createAddress({ requestId: newId(), ...place });
    await ben.deleteAddress({ requestId: newId(), addressId: address?.addressId ?? "" });
    const { addresses } = await ben.listAddresses({ pageSize: 1 });
    await ben.getAddress({ addressId: addresses[0]?.addressId ?? "" });
    await ben.createAddress({ requestId: newId(), ...place });
    const { nextPageToken } = await ben.listAddresses({ pageSize: 1 });
    await ben.listAddresses({ pageSize: 1, pageToken: nextPageToken });
  });
  await shop.step("payout destinations", async () => {
    const destination = { destinationToken: "bank_demo_ada", currencyCode: "USD" };
    await ada.setPayoutDestination({ requestId: newId(), ...destination });
    await ada.setPayoutDestination({ requestId: newId(), ...destination });
    await ada.getPayoutDestination({ currencyCode: "USD" });
  });
  const ratings = { accountId: demo("ada").account };
  await shop.step("ListRatings", () => ada.listRatings(ratings));
  await shop.step("ListRatings, a page from the midst", async () => {
    const [middle] = (await ada.listRatings({ ...ratings, pageSize: 100 })).ratings.slice(-1);
    const request = create(ListRatingsRequestSchema, ratings);
    const at = Number(middle?.createTime?.seconds ?? 0n) * 1000 - 20 * DAY_MS;
    const pageToken = shop.pageAfter(AccountService.method.listRatings, request, [at, idOf("order", 50_000)]);
    await ada.listRatings({ ...ratings, pageToken });
  });
}

/** Gives a listing of ada's with three units. */
async function listings(shop: Shop): Promise<string> {
  const [ada, ben] = [shop.as("ada", CatalogService), shop.as("ben", CatalogService)];
  const sellerId = demo("ada").account;
  await shop.step("GetListing", async () => {
    await ben.getListing({ listingId: idOf("listing", 100) });
    await refused("LISTING_NOT_FOUND", ben.getListing({ listingId: newId() }));
  });
  await shop.step("BatchGetListings", () =>
    ben.batchGetListings({ listingIds: Array.from({ length: 100 }, (_, index) => idOf("listing", 1 + index * 997)) }),
  );
  await shop.step("ListSellerListings", async () => {
    const at = shop.clock.now() - 40 * DAY_MS;
    for (const states of [[], [ListingState.ACTIVE], [ListingState.SOLD, ListingState.RESERVED]]) {
      for (const client of [ada, ben]) {
        await client.listSellerListings({ sellerId, states });
        const request = create(ListSellerListingsRequestSchema, { sellerId, states });
        const pageToken = shop.pageAfter(CatalogService.method.listSellerListings, request, [at, idOf("listing", 50_000)]);
        await client.listSellerListings({ sellerId, states, pageSize: 100, pageToken });
      }
    }
  });
  await shop.step("ScanListings", async () => {
    const scanner = shop.of("search", CatalogService);
    const position = shop.pageAfter(CatalogService.method.scanListings, create(ScanListingsRequestSchema), [
      idOf("listing", 50_000),
    ]);
    for (const pageToken of ["", position]) await scanner.scanListings({ pageSize: 1_000, pageToken });
  });
  await shop.step("ListCategories, ListBrands", async () => {
    await ben.listCategories({});
    const request = create(ListBrandsRequestSchema);
    const pageToken = shop.pageAfter(CatalogService.method.listBrands, request, ["brand 3"]);
    await ben.listBrands({});
    await ben.listBrands({ pageToken });
    await ben.listBrands({ prefix: "Brand 1" });
  });
  return listingCommands(shop);
}

async function listingCommands(shop: Shop): Promise<string> {
  const ada = shop.as("ada", CatalogService);
  const draft = (index: number) => ({
    externalId: `fresh-${index}`,
    title: "Seven iron",
    brand: `Brand of club ${index}`,
    categoryId: "golf-clubs",
    condition: Condition.GOOD,
    price,
    units: 3,
  });
  let listingId = "";
  await shop.step("CreateListing", async () => {
    const request = { requestId: newId(), listing: draft(0), publish: true };
    listingId = (await ada.createListing(request)).listing?.listingId ?? "";
    await ada.createListing(request);
    await ada.createListing({ ...request, requestId: newId() });
    await shop.marketplace.settle();
  });
  await shop.step("BatchCreateListings", async () => {
    await ada.batchCreateListings({
      requestId: newId(),
      publish: true,
      listings: Array.from({ length: 100 }, (_, index) => draft(index)),
    });
    await shop.marketplace.settle();
  });
  await shop.step("UpdateListing, PublishListing, WithdrawListing", async () => {
    const { listing } = await ada.createListing({ requestId: newId(), listing: { ...draft(0), externalId: "" } });
    const id = { listingId: listing?.listingId ?? "" };
    await ada.updateListing({ requestId: newId(), ...id, etag: listing?.etag ?? "", title: "Eight iron" });
    await ada.publishListing({ requestId: newId(), ...id });
    await ada.withdrawListing({ requestId: newId(), ...id });
    await shop.marketplace.settle();
  });
  return listingId;
}

async function stock(shop: Shop): Promise<void> {
  const ada = shop.as("ada", InventoryService);
  await shop.step("GetAvailability", async () => {
    await ada.getAvailability({ listingId: idOf("listing", 40) });
    await ada.batchGetAvailability({ listingIds: Array.from({ length: 100 }, (_, index) => idOf("listing", 1 + index * 997)) });
  });
  await shop.step("SetUnits", () => ada.setUnits({ requestId: newId(), listingId: idOf("listing", 100), units: 2 }));
  await shop.step("reservations", async () => {
    const order = shop.of("order", InventoryService);
    const reservationId = newId();
    const lines = [100, 200, 300].map((number) => ({ listingId: idOf("listing", number), units: 1 }));
    const expireTime = timestampFromMs(shop.clock.now() + 5 * MINUTE_MS);
    await order.reserve({ requestId: newId(), reservationId, lines, expireTime });
    await order.getReservation({ reservationId });
    await refused(
      "OUT_OF_STOCK",
      order.reserve({
        requestId: newId(),
        reservationId: newId(),
        lines: [{ listingId: idOf("listing", 200), units: 1 }],
        expireTime,
      }),
    );
    await order.releaseReservation({ requestId: newId(), reservationId: newId() });
    shop.clock.advance(6 * MINUTE_MS);
    await shop.marketplace.settle();
  });
}

async function purchases(shop: Shop, listingId: string): Promise<void> {
  const [ada, ben] = [shop.as("ada", OrderService), shop.as("ben", OrderService)];
  const { addresses } = await shop.as("ben", AccountService).listAddresses({});
  const place = (id: string, paymentMethodToken = "tok_approved") => ({
    requestId: newId(),
    addressId: addresses[0]?.addressId ?? "",
    paymentMethodToken,
    lines: [{ listingId: id, unitPrice: price }],
  });
  const ordered = async (request: ReturnType<typeof place>) => (await ben.placeOrder(request)).order?.orderId ?? "";
  let orderId = "";
  await shop.step("PlaceOrder", async () => {
    const request = place(listingId);
    orderId = await ordered(request);
    await ordered(request);
    await shop.marketplace.settle();
  });
  await shop.step("PlaceOrder, refused", async () => {
    const sold = { listingId: idOf("listing", 40), unitPrice: { currencyCode: "USD", amountMinor: 1_980n } };
    await refused("LISTING_NOT_AVAILABLE", ben.placeOrder({ ...place(listingId), lines: [sold] }));
    const many = { listingId, units: 9, unitPrice: price };
    await refused("OUT_OF_STOCK", ben.placeOrder({ ...place(listingId), lines: [many] }));
    await refused("PAYMENT_DECLINED", ben.placeOrder(place(listingId, "tok_declined")));
    await shop.marketplace.settle();
  });
  await shop.step("ShipOrder, ConfirmOrder", async () => {
    await ada.shipOrder({ requestId: newId(), orderId, carrier: "UPS" });
    await ben.confirmOrder({ requestId: newId(), orderId, rating: { stars: 5 } });
    await shop.marketplace.settle();
  });
  await shop.step("CancelOrder", async () => {
    await ben.cancelOrder({ requestId: newId(), orderId: await ordered(place(listingId)) });
    await shop.marketplace.settle();
  });
  await shop.step("ContinueOrder", async () => {
    const id = await ordered(place(listingId, "tok_needs_confirmation"));
    const { order } = await ben.getOrder({ orderId: id });
    await confirmed(shop, order?.confirmationUrl ?? "");
    await ben.continueOrder({ requestId: newId(), orderId: id });
    await ordered(place(listingId, "tok_capture_timeout_charged")).catch(() => {});
    await shop.marketplace.settle();
  });
}

/** Presses the button on the simulator's page. */
async function confirmed(shop: Shop, url: string): Promise<void> {
  const doors = shop.marketplace.modules.flatMap((module) => module.doors ?? []);
  const door = doors.find(({ method, path }) => method === "POST" && url.includes(path));
  await door?.handle(new Request(`${url}/confirm`, { method: "POST" }));
}

async function orderLists(shop: Shop): Promise<void> {
  await shop.step("GetOrder", () => shop.as("ben", OrderService).getOrder({ orderId: idOf("order", 50_003) }));
  await shop.step("WatchOrder", async () => {
    const ending = new AbortController();
    const { orders } = await shop.as("ben", OrderService).listOrders({ states: [OrderState.PAID], pageSize: 1 });
    const orderId = orders[0]?.orderId ?? "";
    const stream = shop.as("ben", OrderService).watchOrder({ orderId }, { signal: ending.signal })[Symbol.asyncIterator]();
    const first = (await stream.next()).value?.order;
    // As another process changes it.
    await shop.sql(`update souk_order.orders set version = version + 1 where order_id = '${orderId}'`);
    const second = (await stream.next()).value?.order;
    assert.equal(second?.sequence, (first?.sequence ?? 0n) + 1n);
    ending.abort();
  });
  await shop.step("ListOrders", async () => {
    for (const [who, role] of [
      ["ben", OrderRole.BUYER],
      ["ada", OrderRole.SELLER],
    ] as const) {
      for (const states of [[], [OrderState.PAID], [OrderState.PAID, OrderState.SHIPPED, OrderState.COMPLETED]]) {
        const request = create(ListOrdersRequestSchema, { role, states });
        const pageToken = shop.pageAfter(OrderService.method.listOrders, request, [idOf("order", 50_000)]);
        const client = shop.as(who, OrderService);
        await client.listOrders({ role, states });
        await client.listOrders({ role, states, pageSize: 100, pageToken });
      }
    }
  });
}

async function money(shop: Shop): Promise<void> {
  const ada = shop.as("ada", PaymentService);
  const order = shop.of("order", PaymentService);
  await shop.step("GetPayment", () => order.getPayment({ paymentId: idOf("payment", 40) }));
  await shop.step("GetBalance", () => ada.getBalance({}));
  await shop.step("ListStatementEntries", async () => {
    const request = create(ListStatementEntriesRequestSchema, { currencyCode: "USD" });
    const pageToken = shop.pageAfter(PaymentService.method.listStatementEntries, request, [2_000]);
    for (const token of ["", pageToken]) await ada.listStatementEntries({ currencyCode: "USD", pageToken: token });
  });
  await shop.step("payouts", async () => {
    const { payout } = await ada.createPayout({ requestId: newId(), amount: { currencyCode: "USD", amountMinor: 100n } });
    await refused(
      "BALANCE_TOO_LOW",
      ada.createPayout({ requestId: newId(), amount: { currencyCode: "USD", amountMinor: 99_000_000n } }),
    );
    await shop.marketplace.settle();
    await ada.getPayout({ payoutId: payout?.payoutId ?? "" });
    const position = [shop.clock.now() - 40 * DAY_MS, idOf("payout", 50_000)];
    const pageToken = shop.pageAfter(PaymentService.method.listPayouts, create(ListPayoutsRequestSchema), position);
    for (const token of ["", pageToken]) await ada.listPayouts({ pageToken: token });
  });
  await shop.step("GetFeeSchedule", () => ada.getFeeSchedule({}));
}

async function operators(shop: Shop): Promise<void> {
  const olga = shop.as("olga", OpsService);
  await shop.step("ListOrderTransfers", () => olga.listOrderTransfers({ orderId: idOf("order", 40) }));
  await shop.step("CheckBooks", () => olga.checkBooks({}));
  await shop.step("GetTrialBalance", () => olga.getTrialBalance({}));
  await shop.step("ListDeadLetters", async () => {
    const { nextPageToken, deadLetters } = await olga.listDeadLetters({ service: "order" });
    await olga.listDeadLetters({ service: "order", pageToken: nextPageToken });
    const [retried, discarded] = deadLetters.map(({ deadLetterId }) => deadLetterId);
    await olga.retryDeadLetter({ requestId: newId(), service: "order", deadLetterId: retried ?? "" });
    await olga.discardDeadLetter({ requestId: newId(), service: "order", deadLetterId: discarded ?? "", note: "An exercise." });
    const pageToken = shop.pageAfter(MaintenanceService.method.listOwnDeadLetters, create(ListOwnDeadLettersRequestSchema), [
      idOf("letter", 200),
    ]);
    await shop.of("ops", MaintenanceService, { module: "order" }).listOwnDeadLetters({ pageToken });
  });
  await shop.step("ListJobs", async () => {
    const { nextPageToken } = await olga.listJobs({ service: "order", pageSize: 100 });
    await olga.listJobs({ service: "order", pageSize: 100, pageToken: nextPageToken });
  });
}

/** What happens by itself later. */
async function timers(shop: Shop): Promise<void> {
  const { listings: mine } = await shop
    .as("ada", CatalogService)
    .listSellerListings({ states: [ListingState.ACTIVE], pageSize: 1 });
  const { addresses } = await shop.as("ben", AccountService).listAddresses({});
  const [listing] = mine;
  await shop.step("an order that is not confirmed in time", async () => {
    await shop.as("ben", OrderService).placeOrder({
      requestId: newId(),
      addressId: addresses[0]?.addressId ?? "",
      paymentMethodToken: "tok_needs_confirmation",
      lines: [
        { listingId: listing?.listingId ?? "", unitPrice: { currencyCode: "USD", amountMinor: listing?.price?.amountMinor ?? 0n } },
      ],
    });
    shop.clock.advance(16 * MINUTE_MS);
    await shop.marketplace.settle();
  });
  await shop.step("an authorization that expires", async () => {
    const paymentId = newId();
    await shop.of("order", PaymentService).authorizePayment({
      requestId: newId(),
      paymentId,
      orderId: newId(),
      buyerId: demo("ben").account,
      sellerId: demo("ada").account,
      paymentMethodToken: "tok_approved",
      lines: [{ listingId: idOf("listing", 40), amount: price, listingTime: timestampFromMs(shop.clock.now() - DAY_MS) }],
    });
    // Its clock is turned rather than everybody's: seven days later retention would empty the tables.
    await shop.sql(
      `update souk_payment.payment set authorization_expire_time = create_time, watch_time = 1 where payment_id = '${paymentId}'`,
    );
    await shop.marketplace.settle();
  });
  await shop.step("an event that fails", async () => {
    const consumer = shop.marketplace.modules
      .flatMap(({ consumers }) => consumers)
      .find((each) => each.consumer.startsWith("catalog."));
    const broken = (sequence: bigint) =>
      create(EventSchema, {
        eventId: newId(),
        aggregateType: "stock",
        aggregateId: idOf("listing", 100),
        sequence,
        payload: { typeUrl: `type.googleapis.com/${StockChangedSchema.typeName}`, value: new Uint8Array([255]) },
      });
    await consumer?.handle([broken(101n)]);
    await consumer?.handle([broken(102n)]);
    shop.clock.advance(MINUTE_MS);
    await shop.marketplace.settle();
  });
  await shop.step("what is old is removed", async () => {
    shop.clock.advance(61 * MINUTE_MS);
    await shop.marketplace.settle();
  });
}

/** Expects a refusal for this reason. */
async function refused(reason: string, answer: Promise<unknown>): Promise<void> {
  await assert.rejects(
    answer,
    (error) => reasonOf(error) === reason || assert.fail(`${reason} was expected, and it is ${reasonOf(error)}: ${error}`),
  );
}
