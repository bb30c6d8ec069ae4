import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { newId } from "#runtime/ids.ts";
import { demo } from "../support/marketplace.ts";
import type { Identity } from "../support/server.ts";
import { authorization, draft, type Goods, PRICE, shippingAddress } from "./goods.ts";

/** A good request of one method. */
export interface Row {
  readonly as: Identity;
  readonly request: (goods: Goods) => object;
  /** The reason that even a good request is refused with: the method is not built yet, or what it needs cannot be had here. */
  readonly refused?: string;
}

type Request = (goods: Goods) => object;
const DAY_MS = 86_400_000;
const nothing: Request = () => ({});
const row = (as: Identity, request: Request = nothing, refused?: string): Row => ({ as, request, ...(refused && { refused }) });
const by = (name: string) => (request?: Request, refused?: string) => row(demo(name), request, refused);
const [ada, ben, olga] = [by("ada"), by("ben"), by("olga")] as const;
const service = (name: string, request?: Request, refused?: string) => row({ service: name }, request, refused);
const command =
  (fields: Request = nothing): Request =>
  (goods) => ({ requestId: newId(), ...fields(goods) });
const LATER = "UNIMPLEMENTED";

/** One row for each method of the contract. */
export const rows: Readonly<Record<string, Row>> = {
  "account.v1.AccountService/GetProfile": row(undefined, (g) => ({ accountId: g.accountId })),
  "account.v1.AccountService/BatchGetProfiles": row(undefined, (g) => ({ accountIds: [g.accountId, g.nobody] })),
  "account.v1.AccountService/UpdateProfile": ben(command(() => ({ displayName: "Ben of the equal answers", etag: "1" }))),
  "account.v1.AccountService/ListRatings": row(undefined, (g) => ({ accountId: g.accountId })),
  "account.v1.AccountService/ListAddresses": ben(),
  "account.v1.AccountService/GetAddress": ben((g) => ({ addressId: g.addressId })),
  "account.v1.AccountService/CreateAddress": ben(command(shippingAddress)),
  "account.v1.AccountService/DeleteAddress": ben(command((g) => ({ addressId: g.addressToDelete }))),
  "account.v1.AccountService/SetPayoutDestination": ben(command(() => ({ destinationToken: "bank_x", currencyCode: "USD" }))),
  "account.v1.AccountService/GetPayoutDestination": ada(() => ({ currencyCode: "USD" })),
  "account.v1.AccountService/SuspendAccount": olga(
    command((g) => ({ accountId: g.nobody, note: "n" })),
    LATER,
  ),
  "account.v1.AccountService/ReinstateAccount": olga(
    command((g) => ({ accountId: g.nobody, note: "n" })),
    LATER,
  ),
  "account.v1.AccountService/SetRoles": olga(
    command((g) => ({ accountId: g.nobody, roles: [1] })),
    LATER,
  ),
  "account.v1.AccountService/EraseAccount": ben(command(), LATER),

  "catalog.v1.CatalogService/CreateListing": ada(command(() => ({ listing: draft() }))),
  "catalog.v1.CatalogService/BatchCreateListings": ada(command(() => ({ listings: [draft(), { ...draft(), title: "Another" }] }))),
  "catalog.v1.CatalogService/UpdateListing": ada(command((g) => ({ ...g.drafts.toUpdate, title: "A polished lamp" }))),
  "catalog.v1.CatalogService/PublishListing": ada(command((g) => ({ listingId: g.drafts.toPublish.listingId }))),
  "catalog.v1.CatalogService/WithdrawListing": ada(command((g) => ({ listingId: g.drafts.toWithdraw.listingId }))),
  "catalog.v1.CatalogService/GetListing": row(undefined, (g) => ({ listingId: g.listingId })),
  "catalog.v1.CatalogService/BatchGetListings": row(undefined, (g) => ({ listingIds: [g.listingId, g.activeId] })),
  "catalog.v1.CatalogService/ListSellerListings": row(undefined, (g) => ({ sellerId: g.accountId, pageSize: 3 })),
  "catalog.v1.CatalogService/ScanListings": service("search", () => ({ pageSize: 2 })),
  "catalog.v1.CatalogService/ListCategories": row(undefined),
  "catalog.v1.CatalogService/ListBrands": row(undefined, () => ({ pageSize: 2 })),
  "catalog.v1.CatalogService/SetPhotos": ada(
    command((g) => ({ listingId: g.nobody, etag: "1" })),
    LATER,
  ),
  "catalog.v1.CatalogService/LikeListing": ben(
    command((g) => ({ listingId: g.nobody })),
    LATER,
  ),
  "catalog.v1.CatalogService/UnlikeListing": ben(
    command((g) => ({ listingId: g.nobody })),
    LATER,
  ),
  "catalog.v1.CatalogService/ListLikedListings": ben(nothing, LATER),
  "catalog.v1.CatalogService/AskQuestion": ben(
    command((g) => ({ listingId: g.nobody, text: "?" })),
    LATER,
  ),
  "catalog.v1.CatalogService/AnswerQuestion": ada(
    command((g) => ({ questionId: g.nobody, answer: "!" })),
    LATER,
  ),
  "catalog.v1.CatalogService/ListQuestions": row(undefined, (g) => ({ listingId: g.nobody }), LATER),

  "inventory.v1.InventoryService/SetUnits": ada(command((g) => ({ listingId: g.stockedId, units: 2 }))),
  "inventory.v1.InventoryService/BatchSetUnits": service(
    "catalog",
    command((g) => ({ sellerId: g.accountId, listings: [{ listingId: newId(), units: 1 }] })),
  ),
  "inventory.v1.InventoryService/GetAvailability": row(undefined, (g) => ({ listingId: g.stockedId })),
  "inventory.v1.InventoryService/BatchGetAvailability": row(undefined, (g) => ({ listingIds: [g.stockedId] })),
  "inventory.v1.InventoryService/Reserve": service(
    "order",
    command((g) => ({
      reservationId: newId(),
      lines: [{ listingId: g.listingId, units: 1 }],
      expireTime: timestampFromMs(g.now() + DAY_MS / 24),
    })),
  ),
  "inventory.v1.InventoryService/CommitReservation": service(
    "order",
    command((g) => ({ reservationId: g.reservations.toCommit })),
  ),
  "inventory.v1.InventoryService/ReleaseReservation": service(
    "order",
    command((g) => ({ reservationId: g.reservations.toRelease })),
  ),
  "inventory.v1.InventoryService/GetReservation": olga((g) => ({ reservationId: g.reservations.kept })),
  "inventory.v1.InventoryService/CheckStock": service("ops"),

  "payment.v1.PaymentService/AuthorizePayment": service(
    "order",
    command((g) => authorization(g.listingId, g.now())),
  ),
  "payment.v1.PaymentService/ConfirmPayment": service(
    "order",
    command((g) => ({ paymentId: g.payments.toConfirm })),
  ),
  "payment.v1.PaymentService/CapturePayment": service(
    "order",
    command((g) => ({ paymentId: g.payments.toCapture })),
  ),
  "payment.v1.PaymentService/VoidPayment": service(
    "order",
    command((g) => ({ paymentId: g.payments.toVoid })),
  ),
  "payment.v1.PaymentService/RefundPayment": service(
    "order",
    command((g) => ({ paymentId: g.payments.toRefund })),
  ),
  "payment.v1.PaymentService/ReleaseEscrow": service(
    "order",
    command((g) => ({ paymentId: g.payments.toRelease })),
  ),
  "payment.v1.PaymentService/GetPayment": olga((g) => ({ paymentId: g.payments.kept })),
  "payment.v1.PaymentService/GetBalance": ada(),
  "payment.v1.PaymentService/ListStatementEntries": ada(() => ({ currencyCode: "USD", pageSize: 2 })),
  "payment.v1.PaymentService/CreatePayout": ada(command(() => ({ amount: { currencyCode: "USD", amountMinor: 1n } }))),
  "payment.v1.PaymentService/GetPayout": ada((g) => ({ payoutId: g.payoutId })),
  "payment.v1.PaymentService/ListPayouts": ada(),
  "payment.v1.PaymentService/GetFeeSchedule": row(undefined),
  "payment.v1.PaymentService/CreateFeeSchedule": olga(
    command(() => ({ effectiveTime: { seconds: 4_000_000_000n }, feeBasisPoints: 900, minimumFees: [PRICE] })),
    LATER,
  ),
  "payment.v1.PaymentService/GetTrialBalance": service("ops"),
  "payment.v1.PaymentService/CheckLedger": service("ops"),
  "payment.v1.PaymentService/ListTransfers": olga((g) => ({ orderId: g.completedOrderId })),
  "payment.v1.PaymentService/ListChargebacks": olga(nothing, LATER),
  "payment.v1.PaymentService/ReconcileDay": olga(
    command(() => ({ day: "2026-01-01" })),
    LATER,
  ),

  "order.v1.OrderService/PlaceOrder": ben(
    command((g) => ({
      addressId: g.addressId,
      paymentMethodToken: "tok_approved",
      lines: [{ listingId: g.listingId, units: 2, unitPrice: PRICE }],
    })),
  ),
  "order.v1.OrderService/ContinueOrder": ben(command((g) => ({ orderId: g.orders.toContinue }))),
  "order.v1.OrderService/GetOrder": ben((g) => ({ orderId: g.paidOrderId })),
  "order.v1.OrderService/ListOrders": ben(() => ({ pageSize: 2 })),
  "order.v1.OrderService/CancelOrder": ben(command((g) => ({ orderId: g.orders.toCancel }))),
  "order.v1.OrderService/ShipOrder": ada(command((g) => ({ orderId: g.orders.toShip, carrier: "UPS", trackingNumber: "1Z" }))),
  "order.v1.OrderService/ConfirmOrder": ben(
    command((g) => ({ orderId: g.orders.toConfirm, rating: { stars: 4, comment: "Ü 🎁" } })),
  ),
  "order.v1.OrderService/WatchOrder": ben((g) => ({ orderId: g.completedOrderId })),
  "order.v1.OrderService/OpenDispute": ben(
    command((g) => ({ orderId: g.nobody, statement: "s" })),
    LATER,
  ),
  "order.v1.OrderService/ResolveDispute": olga(
    command((g) => ({ orderId: g.nobody, note: "n" })),
    LATER,
  ),
  "order.v1.OrderService/GetEscrowTotals": service("ops"),

  "search.v1.SearchService/SearchListings": row(undefined, () => ({ query: "lamp", pageSize: 3, includeFacets: true })),
  "search.v1.SearchService/Autocomplete": row(undefined, () => ({ prefix: "a" }), LATER),
  "search.v1.SearchService/ListSimilarListings": row(undefined, (g) => ({ listingId: g.nobody }), LATER),
  "search.v1.SearchService/GetPriceGuidance": ada(
    () => ({ title: "Lamp", categoryId: "lamps", condition: 1, currencyCode: "USD" }),
    LATER,
  ),
  "search.v1.SearchService/CreateSavedSearch": ben(
    command(() => ({ query: "lamp" })),
    LATER,
  ),
  "search.v1.SearchService/ListSavedSearches": ben(nothing, LATER),
  "search.v1.SearchService/DeleteSavedSearch": ben(
    command((g) => ({ savedSearchId: g.nobody })),
    LATER,
  ),
  "search.v1.SearchService/StartReindex": olga(command()),
  "search.v1.SearchService/GetIndexStatus": olga(),

  "ops.v1.OpsService/GetTrialBalance": olga(),
  "ops.v1.OpsService/CheckBooks": olga(),
  "ops.v1.OpsService/ListOrderTransfers": olga((g) => ({ orderId: g.completedOrderId })),
  "ops.v1.OpsService/ListDeadLetters": olga(() => ({ service: "payment" })),
  "ops.v1.OpsService/RetryDeadLetter": olga(
    command((g) => ({ service: "payment", deadLetterId: g.nobody })),
    "DEAD_LETTER_NOT_FOUND",
  ),
  "ops.v1.OpsService/DiscardDeadLetter": olga(
    command((g) => ({ service: "payment", deadLetterId: g.nobody, note: "n" })),
    "DEAD_LETTER_NOT_FOUND",
  ),
  "ops.v1.OpsService/ListJobs": olga(() => ({ service: "payment" })),
  "ops.v1.MaintenanceService/ListOwnDeadLetters": service("ops"),
  "ops.v1.MaintenanceService/RetryOwnDeadLetter": service(
    "ops",
    command((g) => ({ deadLetterId: g.nobody })),
    "DEAD_LETTER_NOT_FOUND",
  ),
  "ops.v1.MaintenanceService/DiscardOwnDeadLetter": service(
    "ops",
    command((g) => ({ deadLetterId: g.nobody, operatorId: g.nobody, note: "n" })),
    "DEAD_LETTER_NOT_FOUND",
  ),
  "ops.v1.MaintenanceService/ListOwnJobs": service("ops"),
};
