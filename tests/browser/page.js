// A page of somebody else's, bundled with the packed client: what a person would click is called by the test.
import { createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { createSoukTransport, formatMoney, metadataOf, newRequestId, reasonOf, soukInterceptors, watchOrder } from "@souk/client";
import { AccountService } from "@souk/client/account/v1";
import { CatalogService } from "@souk/client/catalog/v1";
import { OrderService, OrderState } from "@souk/client/order/v1";
import { SearchService } from "@souk/client/search/v1";

const { baseUrl, token } = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
const visitor = createSoukTransport({ baseUrl, maxAttempts: 1 });
const buyer = createSoukTransport({ baseUrl, token: () => token });
const grpcWeb = createGrpcWebTransport({ baseUrl, interceptors: soukInterceptors({ token: () => token }) });
const orders = createClient(OrderService, buyer);
const states = [];

globalThis.shop = {
  async categories() {
    const { categories } = await createClient(CatalogService, visitor).listCategories({});
    return categories.length;
  },
  /** A seller's draft: nobody else sees it, also not in the browser that has just shown it. */
  async draft(listingId, sellersToken) {
    const seller = createSoukTransport({ baseUrl, token: () => sellersToken });
    const see = (transport) =>
      createClient(CatalogService, transport)
        .getListing({ listingId })
        .then(() => "seen", reasonOf);
    return [await see(seller), await see(buyer), await see(visitor), await see(seller)];
  },
  async buy(query) {
    const { results } = await createClient(SearchService, buyer).searchListings({ query });
    const { addresses } = await createClient(AccountService, buyer).listAddresses({});
    const [{ listingId, price }] = results;
    const { order } = await orders.placeOrder({
      requestId: newRequestId(),
      addressId: addresses[0].addressId,
      paymentMethodToken: "tok_approved",
      lines: [{ listingId, unitPrice: price }],
    });
    return { orderId: order.orderId, sellerId: order.sellerId, total: formatMoney(order.total, "en") };
  },
  async watch(orderId) {
    for await (const { state } of watchOrder(orders, orderId))
      states.push(Object.keys(OrderState).find((name) => OrderState[name] === state));
  },
  states: () => states,
  async confirm(orderId) {
    await orders.confirmOrder({ requestId: newRequestId(), orderId, rating: { stars: 5 } });
  },
  async ordersOverGrpcWeb() {
    const { orders: mine } = await createClient(OrderService, grpcWeb).listOrders({});
    return mine.map(({ orderId }) => orderId);
  },
  /** What becomes of it, whoever carries it. */
  async missing(orderId) {
    return Promise.all(
      [orders, createClient(OrderService, grpcWeb)].map((client) =>
        client.getOrder({ orderId }).catch((error) => ({ reason: reasonOf(error), metadata: { ...metadataOf(error) } })),
      ),
    );
  },
  refusal: () =>
    createClient(CatalogService, visitor)
      .listCategories({})
      .then(() => "none", reasonOf),
};
