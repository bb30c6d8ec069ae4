// Somebody else's program, in JavaScript: buys what the arguments name, prints what it got as one line of JSON.
import { createClient } from "@connectrpc/connect";
import {
  addMoney,
  createSoukTransport,
  formatMoney,
  metadataOf,
  moneyToJson,
  newRequestId,
  queryKey,
  reasonOf,
  violationsOf,
} from "@souk/client";
import { AccountService } from "@souk/client/account/v1";
import { OrderService } from "@souk/client/order/v1";
import { SearchService } from "@souk/client/search/v1";

const { SOUK_URL: baseUrl = "", SOUK_TOKEN } = process.env;
const transport = createSoukTransport({ baseUrl, token: () => SOUK_TOKEN });
const [search, orders, accounts] = [SearchService, OrderService, AccountService].map((service) => createClient(service, transport));

const { results } = await search.searchListings({ query: process.argv[2] });
const [{ listingId, price, title }] = results;
const { addresses } = await accounts.listAddresses({});
const requestId = newRequestId();
const place = (unitPrice) =>
  orders.placeOrder({
    requestId,
    addressId: addresses[0].addressId,
    paymentMethodToken: "tok_approved",
    lines: [{ listingId, unitPrice }],
  });
const dearer = addMoney(price, { currencyCode: price.currencyCode, amountMinor: 1n });
const refused = await place(dearer).catch((error) => ({ reason: reasonOf(error), metadata: { ...metadataOf(error) } }));
const { order } = await place(price);
const again = await place(price);
const wrong = await orders.getOrder({ orderId: "1" }).catch((error) => violationsOf(error).map(({ field }) => field));
console.log(
  JSON.stringify({
    title,
    refused,
    total: moneyToJson(order.total),
    shown: formatMoney(order.total, "en"),
    state: order.state,
    sameOrder: again.order.orderId === order.orderId,
    wrong,
    key: queryKey(OrderService.method.getOrder, { orderId: order.orderId }),
    orderId: order.orderId,
  }),
);
