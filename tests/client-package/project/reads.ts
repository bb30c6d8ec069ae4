// Somebody else's program, in strict TypeScript: reads over gRPC, and says by its types what it was promised.
import { type Client, createClient, type Transport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import {
  compareMoney,
  isRead,
  isRepeatable,
  type Money,
  money,
  REASONS,
  type ReasonName,
  reasonOf,
  retryAfterMsOf,
  soukInterceptors,
} from "@souk/client";
import { CatalogService, Condition, type Listing } from "@souk/client/catalog/v1";
import { type Order, OrderService, OrderState } from "@souk/client/order/v1";

const baseUrl = process.env.SOUK_URL ?? "";
const [orderId = "", wrongId = ""] = process.argv.slice(2);
const transport: Transport = createGrpcTransport({
  baseUrl,
  interceptors: soukInterceptors({ token: async () => process.env.SOUK_TOKEN }),
});
const orders: Client<typeof OrderService> = createClient(OrderService, transport);
const catalog = createClient(CatalogService, transport);

const { order } = await orders.getOrder({ orderId });
if (order === undefined) throw new Error("no order");
const total: Money | undefined = order.total;
const state: OrderState = order.state;
const bought: Order["lines"] = order.lines;
const { listing } = await catalog.getListing({ listingId: bought[0]?.listingId ?? "" });
const condition: Listing["condition"] | undefined = listing?.condition;

const gone: ReasonName = "ORDER_NOT_FOUND";
let reason: string | undefined;
let retryAfterMs: number | undefined;
try {
  await orders.getOrder({ orderId: wrongId });
} catch (error) {
  reason = reasonOf(error);
  retryAfterMs = retryAfterMsOf(error);
}
// @ts-expect-error an amount is no float
money("USD", 12.5);
// @ts-expect-error a reason that nobody has
export const none: ReasonName = "NO_SUCH_REASON";

console.log(
  JSON.stringify({
    paid: state === OrderState.PAID,
    dear: total !== undefined && compareMoney(total, money(total.currencyCode, 1n)) > 0,
    known: condition !== undefined && condition !== Condition.UNSPECIFIED,
    reason: reason === gone ? REASONS[gone] : reason,
    retryAfterMs: retryAfterMs ?? null,
    read: isRead(OrderService.method.getOrder) && !isRead(OrderService.method.placeOrder),
    repeatable: isRepeatable(OrderService.method.placeOrder),
  }),
);
