import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { create, type DescMethodUnary, fromJson, type MessageInitShape, type MessageShape, toJson } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { CatalogService, Condition } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { InventoryService } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import { OpsService } from "#gen/marketplace/ops/v1/ops_pb.ts";
import { OrderService, OrderState } from "#gen/marketplace/order/v1/order_pb.ts";
import { PaymentService } from "#gen/marketplace/payment/v1/payment_pb.ts";
import { SearchService } from "#gen/marketplace/search/v1/search_pb.ts";
import { newId } from "#runtime/ids.ts";
import { signedIn } from "../support/server.ts";
import { tool, until } from "./cluster.ts";
import { IMAGE, installSouk, type Release, valuesBehind } from "./release.ts";
import { type Secured, secure, securely } from "./secure.ts";
import { ADA, askGateway, bearer } from "./through-gateway.ts";
import { timeoutsMs, type Watched, watch } from "./watched.ts";

const HOST = "purchase-test.souk.example";
const BEN = "01900000-0000-7000-8000-0000000000a2";
const OLGA = "01900000-0000-7000-8000-0000000000a3";
const PRICE = { currencyCode: "USD", amountMinor: 5000n };
/** Who trusts the gateway's certificate finds here by whom it is. */
const AUTHORITY = "gateway-authority";
/** A watched order's stream is silent for longer, 15 s, than the mesh lets a connection be without a call. */
const IDLE = "10s";
/** By how much a stream outlives the last time-out, in ms. */
const MARGIN_MS = 5_000;
/** How long at most a change may take to be shown, with a busy machine's share, in seconds. */
const SHOWN_S = 10;

describe("the marketplace on a cluster with the mesh, over HTTPS", function () {
  this.timeout(420_000);
  let secured: Secured;
  let release: Release;
  let watched: Promise<{ orderId: string; seller: string; buyer: string; streams: Watched[]; beginTime: number }>;
  before(async () => {
    secured = await secure("purchase-test-tls", HOST);
    release = await installSouk((jwks) => {
      const { mesh, ...values } = valuesBehind(HOST)(jwks);
      const gateway = { ...mesh.gateway, plainHttp: "redirect", tlsSecret: secured.secret };
      const tests = { gatewayAuthority: { configMap: AUTHORITY, key: "authority.pem" } };
      return { ...values, mesh: { ...mesh, gateway, connections: { idleTimeout: IDLE } }, tests };
    });
    await until(
      "the gateway lets calls in",
      async () => (await answer(CatalogService.method.listCategories, undefined, {})).status === 200,
    );
    // It is watched while the other tests run, because that takes longer than they do.
    watched = watchFromBothSides();
    watched.catch(() => {});
  });
  after(async () => {
    await release?.end();
    await secured?.end();
  });

  async function answer<M extends DescMethodUnary>(method: M, account: string | undefined, input: MessageInitShape<M["input"]>) {
    const token = account && (await bearer(release.keys, { account, operator: account === OLGA }));
    const body = JSON.stringify(toJson(method.input, create(method.input, input)));
    const { authority } = secured;
    return askGateway({ host: HOST, authority }, `/${method.parent.typeName}/${method.name}`, { headers: token || {}, body });
  }

  async function call<M extends DescMethodUnary>(
    method: M,
    account: string | undefined,
    input: MessageInitShape<M["input"]>,
  ): Promise<MessageShape<M["output"]>> {
    const { status, text } = await answer(method, account, input);
    assert.equal(status, 200, text);
    return fromJson(method.output, JSON.parse(text)) as MessageShape<M["output"]>;
  }

  async function offer(seller: string, title: string): Promise<string> {
    const { listing } = await call(CatalogService.method.createListing, seller, {
      requestId: newId(),
      publish: true,
      listing: { title, categoryId: "road-bikes", condition: Condition.GOOD, price: PRICE },
    });
    return listing?.listingId ?? "";
  }

  /** Buys what is offered; gives the order, which is paid. */
  async function buy(buyer: string, listingId: string): Promise<string> {
    const { address } = await call(AccountService.method.createAddress, buyer, {
      requestId: newId(),
      recipient: "Ben",
      lines: ["1 Way"],
      city: "Springfield",
      postalCode: "12345",
      countryCode: "US",
    });
    const { order } = await call(OrderService.method.placeOrder, buyer, {
      requestId: newId(),
      addressId: address?.addressId ?? "",
      paymentMethodToken: "tok_approved",
      lines: [{ listingId, unitPrice: PRICE }],
    });
    assert.equal(order?.state, OrderState.PAID);
    return order.orderId;
  }

  const ship = (seller: string, orderId: string) =>
    call(OrderService.method.shipOrder, seller, { requestId: newId(), orderId, carrier: "UPS", trackingNumber: "1Z999" });
  const confirm = (buyer: string, orderId: string) =>
    call(OrderService.method.confirmOrder, buyer, { requestId: newId(), orderId, rating: { stars: 5 } });

  /** Has a new order watched by its buyer over gRPC and by its seller as a web page does, over Connect and HTTP/1.1. */
  async function watchFromBothSides() {
    const [seller, buyer] = [newId(), newId()];
    const orderId = await buy(buyer, await offer(seller, "Chesini racing bike"));
    const beginTime = performance.now();
    const by = (account: string, how: "grpc" | "1.1") => {
      const transport = securely(HOST, secured.authority, how, [signedIn(release.keys, { account })]);
      return watch(createClient(OrderService, transport), orderId);
    };
    return { orderId, seller, buyer, streams: [by(buyer, "grpc"), by(seller, "1.1")], beginTime };
  }

  it("sells a thing from its listing to the seller's balance, and the books are right", async () => {
    const listingId = await offer(ADA, "Celeste racing bike");
    const searched = () => answer(SearchService.method.searchListings, undefined, { query: "celeste" });
    await until("search knows the listing", async () => (await searched()).text.includes(listingId));
    const orderId = await buy(BEN, listingId);
    await ship(ADA, orderId);
    await confirm(BEN, orderId);
    await until("the seller has the money", async () => {
      const { balances } = await call(PaymentService.method.getBalance, ADA, {});
      return balances.some(({ available }) => available?.amountMinor === 4500n);
    });
    const books = await call(OpsService.method.checkBooks, OLGA, {});
    assert.equal(books.balanced, true);
  });

  it("shows a stranger no method of the inside, and an account no operator's", async () => {
    assert.equal((await answer(InventoryService.method.reserve, undefined, {})).status, 403);
    assert.equal((await answer(OpsService.method.checkBooks, ADA, {})).status, 403);
  });

  it("refuses who comes without the mesh's identity", async () => {
    const { name } = release;
    const ask = `fetch("http://${name}-payment:8080/healthz").then((answer) => console.log("answered", answer.status), (error) => console.log("cut off", error.cause?.code))`;
    const pod = ["run", "stranger", "-n", name, "--restart=Never", `--image=${IMAGE}`, "--labels=sidecar.istio.io/inject=false"];
    await tool("kubectl", ...pod, "--command", "--", "node", "-e", ask);
    const said = () => tool("kubectl", "-n", name, "logs", "stranger");
    await until("the stranger has tried", async () => /answered|cut off/.test(await said()));
    assert.match(await said(), /cut off/);
  });

  it("sells by `helm test` to who is told of the gateway's authority, which says what to do where that is another", async () => {
    const { name } = release;
    const helmTest = () => tool("helm", "test", name, "-n", name, "--logs", "--timeout", "4m");
    const configMap = ["-n", name, "configmap", AUTHORITY];
    const trust = (authority: string) => tool("kubectl", "create", ...configMap, `--from-literal=authority.pem=${authority}`);
    await trust(secured.otherAuthority);
    await assert.rejects(helmTest(), /does not work: the certificate of https:.* is not trusted: .*tests\.gatewayAuthority/);
    await tool("kubectl", "delete", ...configMap);
    await trust(secured.authority);
    assert.match(await helmTest(), /The books balance\.\n.*This installation works\./s);
  });

  it("keeps the streams of a watched order open longer than any time-out, and shows on them what then happens", async () => {
    const { orderId, seller, buyer, streams, beginTime } = await watched;
    const timeouts = await timeoutsMs(release.name);
    assert.ok(timeouts.length > 100, String(timeouts.length));
    const longestMs = Math.max(...timeouts);
    const early = Promise.race(streams.map(({ ended }) => ended.then((ms) => assert.fail(`a stream ended after ${ms} ms`))));
    await Promise.race([sleep(beginTime + longestMs + MARGIN_MS - performance.now(), undefined, { ref: false }), early]);
    for (const { states } of streams) assert.deepEqual(states, [OrderState.PAID]);
    const shows = (state: OrderState) => async () => streams.every(({ states }) => states.at(-1) === state);
    await ship(seller, orderId);
    await until("the streams show the order shipped", shows(OrderState.SHIPPED), SHOWN_S);
    await confirm(buyer, orderId);
    await until("the streams show the order completed", shows(OrderState.COMPLETED), SHOWN_S);
    for (const { states, heartbeats, ended } of streams) {
      assert.ok((await ended) > longestMs);
      assert.ok(heartbeats > 0);
      // One that somebody had opened again would have begun with what was so then.
      assert.deepEqual(
        states.filter((state) => state !== OrderState.COMPLETING),
        [OrderState.PAID, OrderState.SHIPPED, OrderState.COMPLETED],
      );
    }
  });
});
