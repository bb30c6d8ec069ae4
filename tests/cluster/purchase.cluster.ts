import assert from "node:assert/strict";
import { create, type DescMethodUnary, fromJson, type MessageInitShape, type MessageShape, toJson } from "@bufbuild/protobuf";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { CatalogService, Condition } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { InventoryService } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import { OpsService } from "#gen/marketplace/ops/v1/ops_pb.ts";
import { OrderService, OrderState } from "#gen/marketplace/order/v1/order_pb.ts";
import { PaymentService } from "#gen/marketplace/payment/v1/payment_pb.ts";
import { SearchService } from "#gen/marketplace/search/v1/search_pb.ts";
import { newId } from "#runtime/ids.ts";
import { tool, until } from "./cluster.ts";
import { IMAGE, installSouk, type Release, valuesBehind } from "./release.ts";
import { ADA, askGateway, bearer } from "./through-gateway.ts";

const HOST = "purchase-test.souk.example";
const BEN = "01900000-0000-7000-8000-0000000000a2";
const OLGA = "01900000-0000-7000-8000-0000000000a3";
const PRICE = { currencyCode: "USD", amountMinor: 5000n };

describe("the marketplace on a cluster with the mesh", function () {
  this.timeout(420_000);
  let release: Release;
  before(async () => {
    release = await installSouk(valuesBehind(HOST));
    await until(
      "the gateway lets calls in",
      async () => (await answer(CatalogService.method.listCategories, undefined, {})).status === 200,
    );
  });
  after(() => release?.end());

  async function answer<M extends DescMethodUnary>(method: M, account: string | undefined, input: MessageInitShape<M["input"]>) {
    const signedIn = account && (await bearer(release.keys, { account, operator: account === OLGA }));
    const body = JSON.stringify(toJson(method.input, create(method.input, input)));
    return askGateway({ host: HOST }, `/${method.parent.typeName}/${method.name}`, { headers: signedIn || {}, body });
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

  it("sells a thing from its listing to the seller's balance, and the books are right", async () => {
    const { listing } = await call(CatalogService.method.createListing, ADA, {
      requestId: newId(),
      publish: true,
      listing: { title: "Celeste racing bike", categoryId: "road-bikes", condition: Condition.GOOD, price: PRICE },
    });
    const listingId = listing?.listingId ?? "";
    const searched = () => answer(SearchService.method.searchListings, undefined, { query: "celeste" });
    await until("search knows the listing", async () => (await searched()).text.includes(listingId));
    const { address } = await call(AccountService.method.createAddress, BEN, {
      requestId: newId(),
      recipient: "Ben",
      lines: ["1 Way"],
      city: "Springfield",
      postalCode: "12345",
      countryCode: "US",
    });
    const { order } = await call(OrderService.method.placeOrder, BEN, {
      requestId: newId(),
      addressId: address?.addressId ?? "",
      paymentMethodToken: "tok_approved",
      lines: [{ listingId, unitPrice: PRICE }],
    });
    assert.equal(order?.state, OrderState.PAID);
    const orderId = order?.orderId ?? "";
    await call(OrderService.method.shipOrder, ADA, { requestId: newId(), orderId, carrier: "UPS", trackingNumber: "1Z999" });
    await call(OrderService.method.confirmOrder, BEN, { requestId: newId(), orderId, rating: { stars: 5 } });
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
});
