import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import type { HandlerContext } from "@connectrpc/connect";
import type { ListRatingsRequest, ListRatingsResponseSchema } from "#gen/marketplace/account/v1/account_pb.ts";
import { OrderCompletedSchema } from "#gen/marketplace/order/v1/events_pb.ts";
import type { Order } from "#gen/marketplace/order/v1/order_pb.ts";
import { isUniqueViolation } from "#runtime/database/errors.ts";
import type { Subscription } from "#runtime/events/bus.ts";
import { inboxConsumer, on } from "#runtime/events/inbox.ts";
import { afterPosition, cutPage, type PageTokens, pageSizeOf, type SortColumn } from "#runtime/pages.ts";
import type { AccountDatabase, AccountTables, AccountTransaction } from "./entities.ts";

const PAGE = { standard: 20, max: 100 };
const NEWEST_FIRST: readonly SortColumn<"create_time" | "order_id">[] = [
  { column: "create_time", direction: "desc" },
  { column: "order_id", direction: "desc" },
];

const starColumns = ["one_star", "two_stars", "three_stars", "four_stars", "five_stars"] as const;

/** Hears of completed orders, and counts them for their sellers. */
export function orderConsumer(database: AccountDatabase): Subscription {
  return inboxConsumer<AccountTables>({
    database,
    name: "account.orders",
    on: [
      on<typeof OrderCompletedSchema, AccountTables>(OrderCompletedSchema, async (tx, { order }) => {
        if (order !== undefined) {
          await countSale(tx, order);
        }
      }),
    ],
  });
}

/** One more completed sale of the seller, and its rating where the buyer gave one: an order that completed by itself has none. */
async function countSale(tx: AccountTransaction, order: Order): Promise<void> {
  const { rating, sellerId } = order;
  const counted = ["completed_sales" as const, ...(rating === undefined ? [] : [starColumn(rating.stars)])];
  if (rating !== undefined) {
    const createTime = order.endTime === undefined ? tx.now : timestampMs(order.endTime);
    await tx.sql
      .insertInto("seller_rating")
      .values({
        order_id: order.orderId,
        seller_id: sellerId,
        stars: rating.stars,
        comment: rating.comment,
        create_time: createTime,
      })
      .execute();
  }
  if (await raised(tx, sellerId, counted)) {
    return;
  }
  const none = { one_star: 0, two_stars: 0, three_stars: 0, four_stars: 0, five_stars: 0, completed_sales: 0 };
  const first = { account_id: sellerId, ...none, ...Object.fromEntries(counted.map((column) => [column, 1])) };
  try {
    await tx.sql.insertInto("seller_totals").values(first).execute();
  } catch (error) {
    if (!isUniqueViolation(error)) {
      throw error;
    }
    // Another process counted the seller's first sale meanwhile.
    await raised(tx, sellerId, counted);
  }
}

type Counter = (typeof starColumns)[number] | "completed_sales";

async function raised(tx: AccountTransaction, sellerId: string, counters: readonly Counter[]): Promise<boolean> {
  const result = await tx.sql
    .updateTable("seller_totals")
    .set((eb) => Object.fromEntries(counters.map((column) => [column, eb(column, "+", 1)])))
    .where("account_id", "=", sellerId)
    .executeTakeFirst();
  return result.numUpdatedRows === 1n;
}

function starColumn(stars: number): Counter {
  const column = starColumns[stars - 1];
  if (column === undefined) {
    throw new Error(`a rating has from 1 to 5 stars, not ${stars}.`);
  }
  return column;
}

/** Serves ListRatings, by the index seller_rating_seller. */
export function listRatings(database: AccountDatabase, pages: PageTokens) {
  return async (
    request: ListRatingsRequest,
    context: HandlerContext,
  ): Promise<MessageInitShape<typeof ListRatingsResponseSchema>> => {
    const size = pageSizeOf(request, PAGE);
    const after = pages.decode(context.method, request);
    const found = await database.stale
      .selectFrom("seller_rating")
      .select(["order_id", "stars", "comment", "create_time"])
      .where("seller_id", "=", request.accountId)
      // The first condition bounds the walk over the index; the second one is exact.
      .$if(after !== undefined, (query) => query.where("create_time", "<=", after?.[0] as number))
      .$if(after !== undefined, (query) => query.where((eb) => afterPosition(eb, NEWEST_FIRST, after ?? [])))
      .orderBy("create_time", "desc")
      .orderBy("order_id", "desc")
      .limit(size + 1)
      .execute();
    const { rows, nextPageToken } = cutPage(found, size, (last) =>
      pages.encode(context.method, request, [last.create_time, last.order_id]),
    );
    const ratings = rows.map((row) => ({
      orderId: row.order_id,
      stars: row.stars,
      comment: row.comment,
      createTime: timestampFromMs(row.create_time),
    }));
    return { ratings, nextPageToken };
  };
}
