import type { AccessFixture } from "./fixture.ts";

/** What becomes of a call: a reason that refuses it, or "admitted" whatever else is said of it. */
export type Expected = "admitted" | (string & {});

/** Who may call one method, written by hand: it must not be derived from what it checks. */
export interface Row {
  /** The message sent; empty unless given. */
  readonly request?: (fixture: AccessFixture) => object;
  readonly anonymous: Expected;
  /** An account to which nothing in the request belongs. */
  readonly other: Expected;
  /** An operator to whom nothing in the request belongs. */
  readonly operator: Expected;
  /** The services that may call it. */
  readonly services: readonly string[];
  /** The demo account to which the things in the request belong; "ada" unless given. */
  readonly owner?: "ada" | "ben";
  /** What becomes of the owner's call; "admitted" unless given. */
  readonly ownerMay?: Expected;
}

type Rest = Partial<Row>;
const anyone = (request: Row["request"], rest: Rest = {}): Row => ({
  ...(request && { request }),
  anonymous: "admitted",
  other: "admitted",
  operator: "admitted",
  services: [],
  ...rest,
});
const signedIn = (request: Row["request"], rest: Rest = {}): Row => anyone(request, { anonymous: "TOKEN_MISSING", ...rest });
/** Only whom it belongs to; others get this reason. */
const owned = (refusal: string, request: Row["request"], rest: Rest = {}): Row =>
  signedIn(request, { other: refusal, operator: refusal, ...rest });
const operators = (request?: Row["request"], rest: Rest = {}): Row =>
  signedIn(request, { other: "PERMISSION_DENIED", ownerMay: "PERMISSION_DENIED", ...rest });
const internal = (services: readonly string[], request?: Row["request"], rest: Rest = {}): Row =>
  operators(request, { anonymous: "PERMISSION_DENIED", operator: "PERMISSION_DENIED", services, ...rest });

const command =
  (fields: (fixture: AccessFixture) => object = () => ({})): Row["request"] =>
  (fixture) => ({ requestId: fixture.requestId(), ...fields(fixture) });
const ofOrder = (fixture: AccessFixture) => ({ orderId: fixture.paidOrderId });

/** One row for each method of the contract. */
export const rows: Readonly<Record<string, Row>> = {
  "account.v1.AccountService/GetProfile": anyone((f) => ({ accountId: f.accountId }), { services: ["order"] }),
  "account.v1.AccountService/BatchGetProfiles": anyone((f) => ({ accountIds: [f.accountId] }), { services: ["order", "search"] }),
  "account.v1.AccountService/UpdateProfile": signedIn(command(() => ({ displayName: "Somebody else" }))),
  "account.v1.AccountService/ListRatings": anyone((f) => ({ accountId: f.accountId })),
  "account.v1.AccountService/ListAddresses": signedIn(undefined),
  "account.v1.AccountService/GetAddress": owned("ADDRESS_NOT_FOUND", (f) => ({ addressId: f.addressId }), {
    owner: "ben",
    services: ["order"],
  }),
  "account.v1.AccountService/CreateAddress": signedIn(
    command(() => ({ recipient: "A", lines: ["1 Main St"], city: "Reno", countryCode: "US" })),
  ),
  "account.v1.AccountService/DeleteAddress": owned(
    "ADDRESS_NOT_FOUND",
    command((f) => ({ addressId: f.addressId })),
    {
      owner: "ben",
    },
  ),
  "account.v1.AccountService/SetPayoutDestination": signedIn(
    command(() => ({ destinationToken: "bank_demo_x", currencyCode: "USD" })),
  ),
  "account.v1.AccountService/GetPayoutDestination": signedIn(() => ({ currencyCode: "USD" }), { services: ["payment"] }),
  "account.v1.AccountService/SuspendAccount": operators(command((f) => ({ accountId: f.nobody, note: "n" }))),
  "account.v1.AccountService/ReinstateAccount": operators(command((f) => ({ accountId: f.nobody, note: "n" }))),
  "account.v1.AccountService/SetRoles": operators(command((f) => ({ accountId: f.nobody, roles: [1] }))),
  "account.v1.AccountService/EraseAccount": signedIn(command()),

  "catalog.v1.CatalogService/CreateListing": signedIn(command()),
  "catalog.v1.CatalogService/BatchCreateListings": signedIn(command()),
  "catalog.v1.CatalogService/UpdateListing": owned(
    "NOT_YOUR_LISTING",
    command((f) => ({ listingId: f.draftId, etag: f.draftEtag, title: "Another lamp" })),
    { other: "LISTING_NOT_FOUND" },
  ),
  "catalog.v1.CatalogService/PublishListing": owned(
    "NOT_YOUR_LISTING",
    command((f) => ({ listingId: f.draftId })),
    { other: "LISTING_NOT_FOUND" },
  ),
  "catalog.v1.CatalogService/WithdrawListing": owned(
    "NOT_YOUR_LISTING",
    command((f) => ({ listingId: f.activeId })),
    { operator: "admitted" },
  ),
  "catalog.v1.CatalogService/GetListing": anyone((f) => ({ listingId: f.withdrawnId }), {
    anonymous: "LISTING_NOT_FOUND",
    other: "LISTING_NOT_FOUND",
    services: ["order", "search", "payment"],
  }),
  "catalog.v1.CatalogService/BatchGetListings": anyone((f) => ({ listingIds: [f.withdrawnId] }), {
    services: ["order", "search"],
  }),
  "catalog.v1.CatalogService/ListSellerListings": anyone((f) => ({ sellerId: f.accountId })),
  "catalog.v1.CatalogService/ScanListings": internal(["search"]),
  "catalog.v1.CatalogService/ListCategories": anyone(undefined, { services: ["search"] }),
  "catalog.v1.CatalogService/ListBrands": anyone(undefined),
  "catalog.v1.CatalogService/SetPhotos": signedIn(command((f) => ({ listingId: f.nobody, etag: "1" }))),
  "catalog.v1.CatalogService/LikeListing": signedIn(command((f) => ({ listingId: f.nobody }))),
  "catalog.v1.CatalogService/UnlikeListing": signedIn(command((f) => ({ listingId: f.nobody }))),
  "catalog.v1.CatalogService/ListLikedListings": signedIn(undefined),
  "catalog.v1.CatalogService/AskQuestion": signedIn(command((f) => ({ listingId: f.nobody, text: "?" }))),
  "catalog.v1.CatalogService/AnswerQuestion": signedIn(command((f) => ({ questionId: f.nobody, answer: "!" }))),
  "catalog.v1.CatalogService/ListQuestions": anyone((f) => ({ listingId: f.nobody })),

  "inventory.v1.InventoryService/SetUnits": owned(
    "NOT_YOUR_LISTING",
    command((f) => ({ listingId: f.stockedId, units: 1 })),
    {
      services: ["catalog"],
    },
  ),
  "inventory.v1.InventoryService/BatchSetUnits": internal(["catalog"], command()),
  "inventory.v1.InventoryService/GetAvailability": anyone((f) => ({ listingId: f.stockedId })),
  "inventory.v1.InventoryService/BatchGetAvailability": anyone((f) => ({ listingIds: [f.stockedId] })),
  "inventory.v1.InventoryService/Reserve": internal(["order"], command()),
  "inventory.v1.InventoryService/CommitReservation": internal(
    ["order"],
    command((f) => ({ reservationId: f.nobody })),
  ),
  "inventory.v1.InventoryService/ReleaseReservation": internal(
    ["order"],
    command((f) => ({ reservationId: f.nobody })),
  ),
  "inventory.v1.InventoryService/GetReservation": operators((f) => ({ reservationId: f.nobody }), { services: ["order", "ops"] }),
  "inventory.v1.InventoryService/CheckStock": internal(["ops"]),

  "payment.v1.PaymentService/AuthorizePayment": internal(["order"], command()),
  "payment.v1.PaymentService/ConfirmPayment": internal(
    ["order"],
    command((f) => ({ paymentId: f.nobody })),
  ),
  "payment.v1.PaymentService/CapturePayment": internal(
    ["order"],
    command((f) => ({ paymentId: f.nobody })),
  ),
  "payment.v1.PaymentService/VoidPayment": internal(
    ["order"],
    command((f) => ({ paymentId: f.nobody })),
  ),
  "payment.v1.PaymentService/RefundPayment": internal(
    ["order"],
    command((f) => ({ paymentId: f.nobody })),
  ),
  "payment.v1.PaymentService/ReleaseEscrow": internal(
    ["order"],
    command((f) => ({ paymentId: f.nobody })),
  ),
  "payment.v1.PaymentService/GetPayment": operators((f) => ({ paymentId: f.nobody }), { services: ["order", "ops"] }),
  "payment.v1.PaymentService/GetBalance": signedIn(undefined),
  "payment.v1.PaymentService/ListStatementEntries": signedIn(() => ({ currencyCode: "USD" })),
  "payment.v1.PaymentService/CreatePayout": signedIn(command(() => ({ amount: { currencyCode: "USD", amountMinor: 1n } }))),
  "payment.v1.PaymentService/GetPayout": owned("PAYOUT_NOT_FOUND", (f) => ({ payoutId: f.payoutId }), { operator: "admitted" }),
  "payment.v1.PaymentService/ListPayouts": signedIn(undefined),
  "payment.v1.PaymentService/GetFeeSchedule": anyone(undefined),
  "payment.v1.PaymentService/CreateFeeSchedule": operators(command(() => ({ effectiveTime: { seconds: 4_000_000_000n } }))),
  "payment.v1.PaymentService/GetTrialBalance": internal(["ops"]),
  "payment.v1.PaymentService/CheckLedger": internal(["ops"]),
  "payment.v1.PaymentService/ListTransfers": operators(ofOrder, { services: ["ops"] }),
  "payment.v1.PaymentService/ListChargebacks": operators(),
  "payment.v1.PaymentService/ReconcileDay": operators(command(() => ({ day: "2026-01-01" }))),

  "order.v1.OrderService/PlaceOrder": signedIn(command()),
  "order.v1.OrderService/ContinueOrder": owned("ORDER_NOT_FOUND", command(ofOrder), { owner: "ben" }),
  "order.v1.OrderService/GetOrder": owned("ORDER_NOT_FOUND", ofOrder, { operator: "admitted", owner: "ben" }),
  "order.v1.OrderService/ListOrders": signedIn(undefined),
  "order.v1.OrderService/CancelOrder": owned(
    "ORDER_NOT_FOUND",
    command((f) => ({ orderId: f.shippedOrderId })),
    {
      operator: "admitted",
      owner: "ben",
    },
  ),
  "order.v1.OrderService/ShipOrder": owned(
    "ORDER_NOT_FOUND",
    command((f) => ({ orderId: f.paidOrderId, carrier: "UPS" })),
  ),
  "order.v1.OrderService/ConfirmOrder": owned(
    "ORDER_NOT_FOUND",
    command((f) => ({ orderId: f.shippedOrderId, rating: { stars: 4 } })),
    { owner: "ben" },
  ),
  "order.v1.OrderService/WatchOrder": owned("ORDER_NOT_FOUND", ofOrder, { operator: "admitted", owner: "ben" }),
  "order.v1.OrderService/OpenDispute": signedIn(command((f) => ({ orderId: f.nobody, statement: "s" }))),
  "order.v1.OrderService/ResolveDispute": operators(command((f) => ({ orderId: f.nobody, note: "n" }))),
  "order.v1.OrderService/GetEscrowTotals": internal(["ops"]),

  "search.v1.SearchService/SearchListings": anyone(undefined),
  "search.v1.SearchService/Autocomplete": anyone(() => ({ prefix: "a" })),
  "search.v1.SearchService/ListSimilarListings": anyone((f) => ({ listingId: f.nobody })),
  "search.v1.SearchService/GetPriceGuidance": signedIn(() => ({})),
  "search.v1.SearchService/CreateSavedSearch": signedIn(command()),
  "search.v1.SearchService/ListSavedSearches": signedIn(undefined),
  "search.v1.SearchService/DeleteSavedSearch": signedIn(command((f) => ({ savedSearchId: f.nobody }))),
  "search.v1.SearchService/StartReindex": operators(command()),
  "search.v1.SearchService/GetIndexStatus": operators(undefined, { services: ["ops"] }),

  "ops.v1.OpsService/GetTrialBalance": operators(),
  "ops.v1.OpsService/CheckBooks": operators(),
  "ops.v1.OpsService/ListOrderTransfers": operators(ofOrder),
  "ops.v1.OpsService/ListDeadLetters": operators(() => ({ service: "payment" })),
  "ops.v1.OpsService/RetryDeadLetter": operators(command((f) => ({ service: "payment", deadLetterId: f.nobody }))),
  "ops.v1.OpsService/DiscardDeadLetter": operators(command((f) => ({ service: "payment", deadLetterId: f.nobody, note: "n" }))),
  "ops.v1.OpsService/ListJobs": operators(() => ({ service: "payment" })),
  "ops.v1.MaintenanceService/ListOwnDeadLetters": internal(["ops"]),
  "ops.v1.MaintenanceService/RetryOwnDeadLetter": internal(
    ["ops"],
    command((f) => ({ deadLetterId: f.nobody })),
  ),
  "ops.v1.MaintenanceService/DiscardOwnDeadLetter": internal(
    ["ops"],
    command((f) => ({ deadLetterId: f.nobody, operatorId: f.nobody, note: "n" })),
  ),
  "ops.v1.MaintenanceService/ListOwnJobs": internal(["ops"]),
};
