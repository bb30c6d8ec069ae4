import assert from "node:assert/strict";
import { SpanKind, SpanStatusCode } from "@opentelemetry/api";
import { InMemorySpanExporter, type ReadableSpan, SimpleSpanProcessor } from "@opentelemetry/sdk-trace";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { CatalogService, Condition } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { OrderService } from "#gen/marketplace/order/v1/order_pb.ts";
import { PaymentService } from "#gen/marketplace/payment/v1/payment_pb.ts";
import { SearchService } from "#gen/marketplace/search/v1/search_pb.ts";
import { newId } from "#runtime/ids.ts";
import { ATTRIBUTE } from "#runtime/telemetry/conventions.ts";
import { openTelemetry, type Telemetry } from "#runtime/telemetry/telemetry.ts";
import { DURATION, METHOD, STATUS } from "../../mesh/plugin/metrics.ts";
import { quietLog } from "../support/database.ts";
import { type TestMarketplace, testMarketplace } from "../support/marketplace.ts";
import { refused } from "../support/refused.ts";

const price = { currencyCode: "USD", amountMinor: 1250n };
/** What people write and what nobody may read later: each is found whatever surrounds it. */
const PRIVATE = ["Quagga", "Zephyrine", "Larkspur", "94117", "tok_", "eyJ", "Pigeon", "XR-77-TRACK", "liked-it-a-lot"];
const ALLOWED: ReadonlySet<string> = new Set(Object.values(ATTRIBUTE));
/** What the SDK says of its own queue and exports. */
const OF_SDK = new Set(["otel.component.type", "otel.component.name"]);
const OF_PROCESS = /^(service|telemetry\.sdk)\./;

describe("the telemetry of a whole purchase", function () {
  this.timeout(60_000);
  const exporter = new InMemorySpanExporter();
  let telemetry: Telemetry;
  let market: TestMarketplace;
  let text: string;
  let orderId: string;
  before(async () => {
    const processors = [new SimpleSpanProcessor({ exporter })];
    telemetry = openTelemetry({ serviceName: "test", ratio: 1, intervalMs: 60_000, log: quietLog, processors });
    market = await testMarketplace({ observer: telemetry.observer });
    telemetry.watch(market.modules.flatMap(({ database }) => database ?? []));
    orderId = await buy();
    text = await telemetry.metrics();
  });
  after(async () => {
    await market?.stop();
    await telemetry?.stop();
  });

  async function buy(): Promise<string> {
    const [seller, buyer] = [{ account: newId() }, { account: newId() }];
    const { listing } = await market.as(seller, CatalogService).createListing({
      requestId: newId(),
      publish: true,
      listing: {
        title: "Quagga iron",
        description: "Quagga",
        categoryId: "golf-clubs",
        condition: Condition.GOOD,
        price,
        units: 1,
      },
    });
    const listingId = listing?.listingId ?? "";
    await market.settle();
    await market.as(undefined, CatalogService).getListing({ listingId });
    await market.as(undefined, SearchService).searchListings({ query: "quagga" });
    const { address } = await market.as(buyer, AccountService).createAddress({
      requestId: newId(),
      ...{ recipient: "Zephyrine", lines: ["1 Larkspur Road"], city: "Larkspur", postalCode: "94117", countryCode: "US" },
    });
    const order = (paymentMethodToken: string) => ({
      requestId: newId(),
      lines: [{ listingId, unitPrice: price }],
      addressId: address?.addressId ?? "",
      paymentMethodToken,
    });
    await refused(market.as(buyer, OrderService).placeOrder(order("tok_declined")), "PAYMENT_DECLINED");
    const placed = await market.as(buyer, OrderService).placeOrder(order("tok_approved"));
    const id = placed.order?.orderId ?? "";
    await refused(market.as(buyer, OrderService).placeOrder(order("tok_approved")), "LISTING_NOT_AVAILABLE");
    await refused(market.as({ token: "eyJhbGciOi" }, OrderService).getOrder({ orderId: id }), "TOKEN_INVALID");
    await market.settle();
    const shipment = { carrier: "Pigeon", trackingCode: "XR-77-TRACK" };
    await market.as(seller, OrderService).shipOrder({ requestId: newId(), orderId: id, ...shipment });
    const rating = { stars: 5, comment: "liked-it-a-lot" };
    await market.as(buyer, OrderService).confirmOrder({ requestId: newId(), orderId: id, rating });
    await market.settle();
    await market.as(seller, PaymentService).getBalance({});
    return id;
  }

  const spans = () => exporter.getFinishedSpans();
  const methodOf = (span: ReadableSpan) => String(span.attributes[ATTRIBUTE.rpcMethod] ?? "");
  /** The spans of the trace in which a method succeeded. */
  function traceOf(method: string): ReadableSpan[] {
    const first = spans().find((span) => methodOf(span).endsWith(method) && span.attributes[ATTRIBUTE.rpcStatus] === "OK");
    assert.ok(first, `nothing tells of ${method}`);
    return spans().filter((span) => span.spanContext().traceId === first.spanContext().traceId);
  }

  it("has no attribute beside those of the list", () => {
    const told = spans().flatMap((span) => Object.keys(span.attributes));
    assert.ok(told.length > 1000);
    assert.deepEqual([...new Set(told.filter((name) => !ALLOWED.has(name)))], []);
    assert.deepEqual([...new Set(spans().flatMap(({ events, links }) => [...events, ...links]))], []);
    const labels = [...text.matchAll(/([a-z][a-zA-Z0-9_]*)="/g)].map(([, name]) => name as string);
    assert.ok(labels.length > 1000);
    const underscored = new Set([...ALLOWED, ...OF_SDK].map((name) => name.replaceAll(".", "_")));
    const unknown = labels.filter((name) => name !== "le" && !underscored.has(name) && !OF_PROCESS.test(name.replaceAll("_", ".")));
    assert.deepEqual([...new Set(unknown)], []);
  });

  it("has no value that somebody wrote, no token and no statement", () => {
    const all = JSON.stringify(spans().map(({ name, attributes, status }) => ({ name, attributes, status })));
    assert.match(all, /"PAYMENT_DECLINED"/);
    for (const word of [...PRIVATE, " where ", " values "]) {
      assert.ok(!all.toLowerCase().includes(word.toLowerCase()), `a span tells "${word}"`);
      assert.ok(!text.toLowerCase().includes(word.toLowerCase()), `a measurement tells "${word}"`);
    }
  });

  it("is one trace from PlaceOrder through the services to what their events bring about", () => {
    const trace = traceOf("OrderService/PlaceOrder");
    const services = new Set(trace.map((span) => /^marketplace\.(\w+)\./.exec(methodOf(span))?.[1]).filter(Boolean));
    assert.deepEqual([...services].sort(), ["account", "catalog", "inventory", "order", "payment"]);
    const consumers = new Set(trace.map((span) => span.attributes[ATTRIBUTE.messagingConsumer]).filter(Boolean));
    // The units' event changes the listing in the catalog, whose own event then reaches cache and index.
    assert.deepEqual([...consumers].sort(), ["catalog.cache", "catalog.stock", "search.index"]);
    const ids = new Map(trace.map((span) => [span.spanContext().spanId, span]));
    const roots = trace.filter(({ parentSpanContext }) => parentSpanContext === undefined);
    assert.equal(roots.length, 1);
    assert.ok(trace.every(({ parentSpanContext }) => parentSpanContext === undefined || ids.has(parentSpanContext.spanId)));
    for (const span of trace.filter(({ kind }) => kind === SpanKind.CONSUMER)) {
      const parent = ids.get(span.parentSpanContext?.spanId ?? "");
      assert.equal(parent?.kind, SpanKind.PRODUCER);
      assert.equal(parent?.attributes[ATTRIBUTE.messagingMessageId], span.attributes[ATTRIBUTE.messagingMessageId]);
    }
  });

  it("tells of each statement within the call that sent it, by what it does and to which table", () => {
    const trace = traceOf("OrderService/PlaceOrder");
    const summaries = trace.flatMap((span) => String(span.attributes[ATTRIBUTE.dbSummary] ?? "").split("; "));
    for (const expected of ["INSERT replay", "INSERT outbox", "SELECT listing", "COMMIT"]) {
      assert.ok(summaries.includes(expected), `${expected} is not among ${[...new Set(summaries)].join(", ")}`);
    }
    assert.ok(!summaries.some((summary) => summary.startsWith("OTHER")));
  });

  it("takes the reason of a refusal, and calls only the server's own faults errors", () => {
    const declined = spans().filter(({ attributes }) => attributes[ATTRIBUTE.reason] === "PAYMENT_DECLINED");
    assert.ok(declined.some((span) => methodOf(span) === "marketplace.order.v1.OrderService/PlaceOrder"));
    assert.ok(
      declined.every(({ status, attributes }) => status.code === SpanStatusCode.UNSET && !(ATTRIBUTE.errorType in attributes)),
    );
    assert.match(
      text,
      /rpc_server_call_duration_seconds_count\{[^}]*rpc_status_code="UNAUTHENTICATED",souk_reason="TOKEN_INVALID"\} 1/,
    );
  });

  it("measures calls, statements, consumers, jobs and what waits", () => {
    const count = (name: string, label: string) =>
      [...text.matchAll(new RegExp(`^${name}\\{[^}]*${label}[^}]*\\} (\\S+)$`, "gm"))].reduce(
        (sum, [, value]) => sum + Number(value),
        0,
      );
    assert.equal(count("rpc_server_call_duration_seconds_count", 'OrderService/PlaceOrder",rpc_status_code="OK"'), 1);
    // What the alert rules and the dashboard ask for.
    assert.equal(count(`${DURATION}_count`, `${METHOD}="marketplace.order.v1.OrderService/PlaceOrder",${STATUS}="OK"`), 1);
    assert.equal(
      count(`${DURATION}_bucket`, `${METHOD}="marketplace.order.v1.OrderService/PlaceOrder",${STATUS}="OK",le="\\+Inf"`),
      1,
    );
    assert.ok(count("db_client_operation_duration_seconds_count", 'db_collection_name="outbox"') > 0);
    assert.ok(count("messaging_process_duration_seconds_count", 'messaging_consumer_group_name="account.orders"') > 0);
    assert.ok(count("souk_event_delay_seconds_count", 'messaging_consumer_group_name="catalog.stock"') > 0);
    assert.ok(count("souk_job_duration_seconds_count", "souk_job_kind=") > 0);
    assert.ok(count("souk_cache_reads_total", 'souk_cache_name="listing",souk_cache_result="miss"') > 0);
    assert.match(text, /^souk_outbox_rows\{souk_service="order"\} 0$/m);
    assert.match(text, /^souk_dead_letters\{souk_service="order"\} 0$/m);
    assert.match(text, /^souk_database_reachable\{souk_service="order"\} 1$/m);
    assert.match(text, /^nodejs_eventloop_delay_p99_seconds \S+$/m);
    assert.notEqual(orderId, "");
  });
});
