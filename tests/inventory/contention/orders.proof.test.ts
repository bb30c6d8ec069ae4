import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { Client } from "@connectrpc/connect";
import { type Connection, createConnection, type RowDataPacket } from "mysql2/promise";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { CatalogService, Condition } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { OpsService } from "#gen/marketplace/ops/v1/ops_pb.ts";
import { OrderService, OrderState, type PlaceOrderRequestSchema } from "#gen/marketplace/order/v1/order_pb.ts";
import { reasonOf } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { type Fleet, startFleet } from "../../support/processes.ts";

const ROUNDS = Number(process.env.SOUK_PROOF_ROUNDS ?? 1);
/** What `npm test` places at once is a quarter. */
const ORDERS = process.env.SOUK_PROOF_ROUNDS === undefined ? 128 : 512;
/** Accounts that buy; each sends many orders at once. */
const BUYERS = 16;
const SETTLE_MS = 60_000;
const PRICE = { currencyCode: "USD", amountMinor: 1250n };
/** What who came too late is told: by inventory, by the catalog once it knows, or at a full door. */
const TOO_LATE = ["OUT_OF_STOCK", "LISTING_NOT_AVAILABLE", "OVERLOADED"];

type Row = Record<string, string>;

describe(`${ORDERS} orders for one unit, in 4 processes`, function () {
  this.timeout(120_000 + ROUNDS * 60_000);
  let fleet: Fleet;
  const connections = new Map<string, Connection>();
  before(async () => {
    fleet = await startFleet({
      processes: [
        ["order", "inventory", "account"],
        ["order", "inventory", "catalog"],
        ["order", "inventory", "payment"],
        ["order", "inventory", "search", "ops"],
      ],
    });
    for (const service of ["order", "inventory", "payment"]) {
      const url = fleet.databaseUrl(service).replace(/^mariadb:/, "mysql:");
      connections.set(service, await createConnection(url));
    }
  });
  after(async () => {
    for (const connection of connections.values()) await connection.end();
    await fleet?.stop();
  });

  async function rows(service: string, query: string): Promise<Row[]> {
    const [found] = await (connections.get(service) as Connection).query<RowDataPacket[]>(query);
    return found as Row[];
  }

  async function buyers(): Promise<{ account: string; addressId: string }[]> {
    const place = { recipient: "Ben", lines: ["1 Long Road"], city: "Springfield", postalCode: "97477", countryCode: "US" };
    return Promise.all(
      Array.from({ length: BUYERS }, async () => {
        const account = newId();
        const { address } = await fleet
          .client(AccountService, { account }, "account")
          .createAddress({ requestId: newId(), ...place });
        return { account, addressId: address?.addressId ?? "" };
      }),
    );
  }

  async function offer(): Promise<string> {
    const { listing } = await fleet.client(CatalogService, { account: newId() }, "catalog").createListing({
      requestId: newId(),
      publish: true,
      listing: { title: "Seven iron", categoryId: "golf-clubs", condition: Condition.GOOD, price: PRICE, units: 1 },
    });
    return listing?.listingId ?? "";
  }

  /** Places an order, and repeats it as long as its time runs out: nobody knows then whether it took effect. */
  async function place(orders: Client<typeof OrderService>, request: MessageInitShape<typeof PlaceOrderRequestSchema>) {
    for (;;) {
      try {
        const { order } = await orders.placeOrder(request);
        return OrderState.PAID === order?.state ? "PAID" : `state ${order?.state}`;
      } catch (error) {
        const reason = reasonOf(error) ?? String(error);
        if (reason !== "DEADLINE_EXCEEDED") return TOO_LATE.includes(reason) ? "too late" : reason;
      }
    }
  }

  /** Places all orders at the same moment, spread over the processes; gives how often each outcome came. */
  async function rush(listingId: string, who: readonly { account: string; addressId: string }[]) {
    const outcomes = await Promise.all(
      Array.from({ length: ORDERS }, (_, index) => {
        const { account, addressId } = who[index % BUYERS] as (typeof who)[number];
        const lines = [{ listingId, unitPrice: PRICE }];
        const request = { requestId: newId(), lines, addressId, paymentMethodToken: "tok_approved" };
        return place(fleet.client(OrderService, { account }, index % 4), request);
      }),
    );
    const counts: Record<string, number> = {};
    for (const outcome of outcomes) counts[outcome] = (counts[outcome] ?? 0) + 1;
    return counts;
  }

  /** Until no saga is under way. */
  async function settled(): Promise<void> {
    for (const end = Date.now() + SETTLE_MS; ; await sleep(50)) {
      const open = await rows("order", "select order_id from orders where state not in ('PAID', 'CANCELLED')");
      if (open.length === 0) return;
      assert.ok(Date.now() < end, `${open.length} orders are still under way`);
    }
  }

  /** One order, one reservation and one payment for each listing, and they belong together. */
  async function check(listingIds: readonly string[]): Promise<void> {
    const orders = await rows(
      "order",
      "select o.order_id, o.payment_id, l.listing_id from orders o join order_line l using (order_id) where o.state = 'PAID'",
    );
    assert.deepEqual(orders.map((order) => order.listing_id).sort(), [...listingIds].sort());
    const reservations = await rows(
      "inventory",
      "select reservation_id, listing_id from reservation join reservation_line using (reservation_id) where state <> 'RELEASED'",
    );
    assert.deepEqual(
      reservations.map((each) => `${each.reservation_id} ${each.listing_id}`).sort(),
      orders.map((order) => `${order.order_id} ${order.listing_id}`).sort(),
      "no order without a reservation, and no reservation without an order",
    );
    const payments = await rows("payment", "select payment_id, order_id, state from payment");
    assert.deepEqual(
      payments.map((each) => `${each.payment_id} ${each.order_id} ${each.state}`).sort(),
      orders.map((order) => `${order.payment_id} ${order.order_id} CAPTURED`).sort(),
      "no payment without an order, and no order without a payment",
    );
    const stock = await rows("inventory", "select listing_id from stock where sold_units <> 1 or available_units <> 0");
    assert.deepEqual(stock, []);
  }

  it(`make one order with one reservation and one payment in each of ${ROUNDS} rounds`, async () => {
    const who = await buyers();
    const listingIds: string[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const listingId = await offer();
      listingIds.push(listingId);
      assert.deepEqual(await rush(listingId, who), { PAID: 1, "too late": ORDERS - 1 });
    }
    await settled();
    await check(listingIds);
    const { checks } = await fleet.client(OpsService, { account: newId(), operator: true }, "ops").checkBooks({});
    assert.deepEqual(
      checks.flatMap((each) => each.findings),
      [],
    );
  });
});
