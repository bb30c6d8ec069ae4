import { create } from "@bufbuild/protobuf";
import {
  GetEscrowTotalsResponseSchema,
  type ListOrdersRequest,
  OrderRole,
  OrderService,
  OrderState,
} from "#gen/marketplace/order/v1/order_pb.ts";
import { accountIfAny, accountOf, type Call, isOperator } from "#runtime/call.ts";
import { fail } from "#runtime/errors.ts";
import { cutPage, type PageTokens, pageSizeOf } from "#runtime/pages.ts";
import type { OrderDatabase, OrderRow, Viewer } from "./entities.ts";
import { ORDER_NOT_FOUND } from "./errors.ts";
import { type OrderRecord, orderMessage, readOrder, withLines } from "./orders.ts";
import { allStates, escrowStates, motionStates } from "./states.ts";

/** Orders on one page unless the caller says otherwise, and at most. */
const PAGE = { standard: 20, max: 100 };

/** Through whose eyes the caller sees an order; undefined when it is none of its business. */
export function viewerOf(order: Pick<OrderRow, "buyer_id" | "seller_id">, call: Call): Viewer | undefined {
  switch (accountIfAny(call)) {
    case order.buyer_id:
      return "buyer";
    case order.seller_id:
      return "seller";
    default:
      return isOperator(call) ? "operator" : undefined;
  }
}

/** The viewer, if it is one of `allowed`; everybody else must not learn whether there is such an order. */
export function viewerIn<O extends OrderRow>(
  order: O | undefined,
  call: Call,
  allowed: readonly Viewer[],
): { order: O; viewer: Viewer } {
  const viewer = order && viewerOf(order, call);
  return order === undefined || viewer === undefined || !allowed.includes(viewer) ? fail(ORDER_NOT_FOUND) : { order, viewer };
}

/** The reading half of the service. */
export function orderReads(database: OrderDatabase, pages: PageTokens) {
  return {
    /** One order for whoever may see it. */
    async get(orderId: string, call: Call) {
      const found = viewerIn(await readOrder(database.sql, orderId), call, ["buyer", "seller", "operator"]);
      return { order: orderMessage(found.order, found.viewer) };
    },

    /** A page of the caller's orders, newest first. */
    async list(request: ListOrdersRequest, call: Call) {
      const accountId = accountOf(call);
      const viewer = request.role === OrderRole.SELLER ? "seller" : "buyer";
      const side = viewer === "seller" ? "seller_id" : "buyer_id";
      const size = pageSizeOf(request, PAGE);
      const [before] = pages.decode(OrderService.method.listOrders, request) ?? [];
      const page = () => {
        const query = database.sql.selectFrom("orders").selectAll().where(side, "=", accountId);
        const placed = before === undefined ? query : query.where("order_id", "<", String(before));
        return placed.orderBy("order_id", "desc").limit(size + 1);
      };
      const wanted = allStates.filter((state) => request.states.includes(OrderState[state]));
      // One query for each state, so that each reads no more rows of its index than the page has.
      const lists =
        wanted.length === 0
          ? [await page().execute()]
          : await Promise.all(wanted.map((state) => page().where("state", "=", state).execute()));
      const rows = lists.flat().sort((a, b) => (a.order_id < b.order_id ? 1 : -1));
      const cut = cutPage(rows.slice(0, size + 1), size, (last) =>
        pages.encode(OrderService.method.listOrders, request, [last.order_id]),
      );
      const orders: OrderRecord[] = await withLines(database.sql, cut.rows);
      return { orders: orders.map((order) => orderMessage(order, viewer)), nextPageToken: cut.nextPageToken };
    },

    /** What must stand in escrow. */
    async escrowTotals() {
      const rows = await database.sql
        .selectFrom("orders")
        .select((eb) => [
          "currency_code",
          "state",
          eb.fn.sum<bigint>("total_minor").as("total_minor"),
          eb.fn.countAll<number>().as("orders"),
        ])
        .where("state", "in", [...escrowStates, ...motionStates])
        .groupBy(["state", "currency_code"])
        .execute();
      const totals = new Map<string, bigint>();
      let ordersInMotion = 0;
      for (const row of rows) {
        if (escrowStates.includes(row.state)) {
          totals.set(row.currency_code, (totals.get(row.currency_code) ?? 0n) + BigInt(row.total_minor));
        } else {
          ordersInMotion += Number(row.orders);
        }
      }
      return create(GetEscrowTotalsResponseSchema, {
        totals: [...totals].sort().map(([currencyCode, amountMinor]) => ({ currencyCode, amountMinor })),
        ordersInMotion,
      });
    },
  };
}
