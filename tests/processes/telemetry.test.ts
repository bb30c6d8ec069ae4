import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { CatalogService, Condition, ListingState } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { OrderService } from "#gen/marketplace/order/v1/order_pb.ts";
import { newId } from "#runtime/ids.ts";
import { ATTRIBUTE } from "#runtime/telemetry/conventions.ts";
import { type Fleet, startFleet } from "../support/processes.ts";
import { type Collector, startCollector, type ToldSpan } from "../telemetry/collector.ts";

const price = { currencyCode: "USD", amountMinor: 1250n };
/** Kinds of spans, as the protocol numbers them. */
const [SERVER, CLIENT, PRODUCER, CONSUMER] = [2, 3, 4, 5];
const ALLOWED: ReadonlySet<string> = new Set(Object.values(ATTRIBUTE));

describe("the telemetry of several processes", function () {
  this.timeout(120_000);
  let collector: Collector;
  let trace: ToldSpan[];
  before(async () => {
    collector = await startCollector();
    const env = { OTEL_EXPORTER_OTLP_ENDPOINT: collector.endpoint, OTEL_METRIC_EXPORT_INTERVAL: "1000" };
    const fleet = await startFleet({
      processes: [
        ["catalog", "account", "inventory"],
        ["order", "payment", "search", "ops"],
      ],
      env,
    });
    try {
      await buy(fleet);
    } finally {
      assert.deepEqual(await fleet.stop(), [0, 0]);
    }
    const placed = collector.spans.find(({ name, kind }) => name.endsWith("OrderService/PlaceOrder") && kind === SERVER);
    trace = collector.spans.filter(({ traceId }) => traceId === placed?.traceId);
  });
  after(() => collector?.die());

  async function buy(fleet: Fleet): Promise<void> {
    const [seller, buyer] = [{ account: newId() }, { account: newId() }];
    const catalog = fleet.client(CatalogService, seller, "catalog");
    const { listing } = await catalog.createListing({
      requestId: newId(),
      publish: true,
      listing: { title: "Seven iron", categoryId: "golf-clubs", condition: Condition.GOOD, price, units: 1 },
    });
    const listingId = listing?.listingId ?? "";
    const place = { recipient: "Ben", lines: ["1 Long Road"], city: "Springfield", postalCode: "97477", countryCode: "US" };
    const { address } = await fleet.client(AccountService, buyer, "account").createAddress({ requestId: newId(), ...place });
    const order = {
      lines: [{ listingId, unitPrice: price }],
      addressId: address?.addressId ?? "",
      paymentMethodToken: "tok_approved",
    };
    await fleet.client(OrderService, buyer, "order").placeOrder({ requestId: newId(), ...order });
    for (let state: ListingState | undefined; state !== ListingState.SOLD; await sleep(30)) {
      state = (await catalog.getListing({ listingId })).listing?.state;
    }
    // The catalog's own event of that reaches the other process' index.
    const applied = () =>
      collector.spans.filter((span) => span.attributes.get(ATTRIBUTE.messagingConsumer) === "search.index").length;
    for (const before = applied(); applied() < before + 1; ) await sleep(30);
  }

  it("is one trace over the network and through Redis, with each span under one that was told", () => {
    assert.equal(new Set(trace.map(({ instance }) => instance)).size, 2);
    const spans = new Map(trace.map((span) => [span.spanId, span]));
    const roots = trace.filter(({ parentSpanId }) => !spans.has(parentSpanId));
    assert.deepEqual(
      roots.map(({ name, parentSpanId }) => [name, parentSpanId]),
      [["marketplace.order.v1.OrderService/PlaceOrder", ""]],
    );
    const across = trace.filter((span) => spans.get(span.parentSpanId)?.instance !== span.instance && span.parentSpanId !== "");
    const kinds = new Set(across.map((span) => `${spans.get(span.parentSpanId)?.kind} to ${span.kind}`));
    assert.ok(kinds.has(`${CLIENT} to ${SERVER}`));
    assert.ok(kinds.has(`${PRODUCER} to ${CONSUMER}`));
    assert.equal(kinds.size, 2);
  });

  it("tells of MariaDB and of Redis, and nothing beside what the list allows", () => {
    const systems = new Set(collector.spans.map((span) => span.attributes.get(ATTRIBUTE.dbSystem)));
    assert.ok(systems.has("mariadb"));
    assert.ok(systems.has("redis"));
    const names = collector.spans.flatMap(({ attributes }) => [...attributes.keys()]);
    assert.deepEqual([...new Set(names.filter((name) => !ALLOWED.has(name)))], []);
    assert.ok(collector.spans.every(({ statusMessage }) => statusMessage === ""));
    for (const metric of [
      "rpc.server.call.duration",
      "rpc.client.call.duration",
      "db.client.operation.duration",
      "souk.outbox.age",
    ]) {
      assert.ok(collector.metrics.has(metric), metric);
    }
  });
});
