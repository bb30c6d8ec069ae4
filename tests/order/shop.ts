import assert from "node:assert/strict";
import { create, createRegistry, type DescService, fromBinary } from "@bufbuild/protobuf";
import { anyUnpack, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type Client, Code, ConnectError, createClient } from "@connectrpc/connect";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { CatalogService, Condition, type Listing, ListingSchema, ListingState } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { EventSchema } from "#gen/marketplace/event/v1/event_pb.ts";
import { InventoryService } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import { file_marketplace_order_v1_events, type OrderPlaced } from "#gen/marketplace/order/v1/events_pb.ts";
import { type Order, OrderService } from "#gen/marketplace/order/v1/order_pb.ts";
import { PaymentService } from "#gen/marketplace/payment/v1/payment_pb.ts";
import { accountOf, callOf } from "#runtime/call.ts";
import { type Clients, createDirectory } from "#runtime/clients.ts";
import type { ManualClock } from "#runtime/clock.ts";
import { fail, reason, reasonOf, UNAVAILABLE } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { type Jobs, startJobs } from "#runtime/jobs/jobs.ts";
import { pageTokens } from "#runtime/pages.ts";
import { type Server, startServer } from "#runtime/server.ts";
import type { ServiceModule } from "#runtime/service.ts";
import { embeddedVerifiers, type Keys, serviceTokens, temporaryKeys } from "#runtime/tokens.ts";
import * as inventoryTables from "../../services/inventory/entities.ts";
import { migrations as inventoryMigrations } from "../../services/inventory/migrations/index.ts";
import { inventory } from "../../services/inventory/service.ts";
import { entities, type OrderDatabase } from "../../services/order/entities.ts";
import { migrations } from "../../services/order/migrations/index.ts";
import { type OrderDependencies, order } from "../../services/order/service.ts";
import * as paymentTables from "../../services/payment/entities.ts";
import { migrations as paymentMigrations } from "../../services/payment/migrations/index.ts";
import { payment } from "../../services/payment/service.ts";
import { openSimulator, type Simulator } from "../../services/payment/simulator.ts";
import { memoryDatabase, quietLog } from "../support/database.ts";
import { goingClock } from "../support/marketplace.ts";
import { type Carrier, type Identity, rpcModule, signedIn, transportOf } from "../support/server.ts";

const ADDRESS_NOT_FOUND = reason("ADDRESS_NOT_FOUND", Code.NotFound, "No.");
const eventTypes = createRegistry(file_marketplace_order_v1_events);

/** What happens to one outgoing call of the order service: it is lost before it takes effect, or its answer is lost after. */
export interface Fault {
  /** The method, such as "capturePayment". */
  readonly method: string;
  readonly when: "before" | "after";
  /** How many calls in a row; 1 unless given. */
  times?: number;
}

/** The order service between a real inventory, a real payment with its simulator, and a catalog and accounts that a test fills. */
export interface Shop {
  readonly database: OrderDatabase;
  /** Runs by itself; a test can make it jump. */
  readonly clock: ManualClock;
  readonly keys: Keys;
  readonly module: ServiceModule;
  readonly simulator: Simulator;
  /** The server of the order service; undefined in memory. */
  readonly server: Server | undefined;
  /** The outgoing calls of the order service so far, by method. */
  readonly calls: string[];
  /** Calls that will fail. */
  readonly faults: Fault[];
  /** Runs before an outgoing call of this method, once. */
  readonly before: Map<string, () => Promise<unknown>>;
  /** Runs after such a call was answered, before the order service hears the answer, once. */
  readonly after: Map<string, () => Promise<unknown>>;
  seller: string;
  buyer: string;
  /** The buyer's. */
  addressId: string;
  /** Another seller and another buyer from now on, who have sold and bought nothing yet. */
  newcomers(): void;
  /** A client of the order service. */
  as(identity: Identity): Client<typeof OrderService>;
  /** A client of a neighbour. */
  neighbour<S extends DescService>(service: S, identity: Identity): Client<S>;
  /** Puts a listing on sale, with units in inventory. */
  offer(over?: {
    priceMinor?: bigint;
    currencyCode?: string;
    sellerId?: string;
    state?: ListingState;
    units?: number;
  }): Promise<Listing>;
  /** Changes what the catalog says of a listing. */
  list(listing: Listing): void;
  /** Lets time pass, and does what is due then. */
  pass(ms: number): Promise<void>;
  /** Does what is due, until nothing is under way; fails after `waitMs`. */
  settle(waitMs?: number): Promise<void>;
  /** The books: what inventory and payment find, what stands in escrow there, and what orders say must. */
  books(): Promise<{ findings: string[]; escrow: Record<string, bigint>; expected: Record<string, bigint>; inMotion: number }>;
  /** The events of an order: type, sequence, the order as told. */
  events(orderId: string): Promise<{ type: string; sequence: bigint; order: Order | undefined }[]>;
  close(): Promise<void>;
}

/** Opens one; `carrier` is how `as` reaches the order service. */
export async function openShop(carrier: Carrier, { watch }: Pick<OrderDependencies, "watch"> = {}): Promise<Shop> {
  const clock = goingClock();
  const [orders, units, payments] = await Promise.all([
    memoryDatabase(entities, migrations, { service: "order", clock }),
    memoryDatabase(inventoryTables.entities, inventoryMigrations, { service: "inventory", clock }),
    memoryDatabase(paymentTables.entities, paymentMigrations, { service: "payment", clock }),
  ]);
  const keys = await temporaryKeys();
  const verifiers = embeddedVerifiers(keys);
  const directory = createDirectory({ verifiers, log: quietLog });
  const pages = pageTokens({ secret: keys.pageTokens, clock });
  const simulator = openSimulator({ file: ":memory:", clock, baseUrl: () => "http://127.0.0.1:1" });
  const listings = new Map<string, Listing>();
  const addresses = new Map<string, string>();
  const calls: string[] = [];
  const faults: Fault[] = [];
  const before = new Map<string, () => Promise<unknown>>();
  const after = new Map<string, () => Promise<unknown>>();
  const part = (service: string) => ({ clients: directory.clientsFor(serviceTokens(keys, service)), clock, log: quietLog, pages });
  const own = part("order");
  const troubles = { calls, faults, before, after };
  const module = order({ ...own, clients: troubled(own.clients, troubles), database: orders.database, ...(watch && { watch }) });
  const modules = [
    module,
    inventory({ ...part("inventory"), database: units.database }),
    payment({ ...part("payment"), database: payments.database, processor: simulator }),
    fakeCatalog(listings),
    fakeAccounts(addresses),
  ];
  directory.host(modules);
  const server =
    carrier === "server"
      ? await startServer({ modules: [module], port: 0, host: "127.0.0.1", verifiers, log: quietLog })
      : undefined;
  const jobs: Jobs[] = modules.flatMap(({ database, jobs: handlers, recurring }) =>
    database === undefined ? [] : [startJobs({ database, handlers, recurring, pollMs: 100 })],
  );
  const neighbour = <S extends DescService>(service: S, identity: Identity): Client<S> =>
    createClient(service, directory.transport(service, undefined, [signedIn(keys, identity)]));
  const shop: Shop = {
    database: orders.database,
    clock,
    keys,
    module,
    simulator,
    server,
    calls,
    faults,
    before,
    after,
    seller: "",
    buyer: "",
    addressId: "",
    newcomers() {
      shop.seller = newId();
      shop.buyer = newId();
      shop.addressId = newId();
      addresses.set(shop.addressId, shop.buyer);
      calls.length = 0;
    },
    neighbour,
    as: (identity) =>
      server === undefined
        ? neighbour(OrderService, identity)
        : createClient(OrderService, transportOf("Connect JSON", server.url, [signedIn(keys, identity)])),
    async offer({
      priceMinor = 1250n,
      currencyCode = "USD",
      sellerId = shop.seller,
      state = ListingState.ACTIVE,
      units: count = 1,
    } = {}) {
      const listing = create(ListingSchema, {
        listingId: newId(),
        sellerId,
        state,
        title: "Seven iron",
        categoryId: "golf-clubs",
        condition: Condition.GOOD,
        price: { currencyCode, amountMinor: priceMinor },
        availableUnits: count,
        handlingDays: 3,
        shipsFrom: "US",
        createTime: timestampFromMs(clock.now()),
        updateTime: timestampFromMs(clock.now()),
        publishTime: timestampFromMs(clock.now()),
        etag: "1",
      });
      listings.set(listing.listingId, listing);
      const { listingId } = listing;
      await neighbour(InventoryService, { service: "catalog" }).setUnits({ requestId: newId(), listingId, sellerId, units: count });
      return listing;
    },
    list: (listing) => listings.set(listing.listingId, listing),
    async pass(ms) {
      clock.advance(ms);
      await Promise.all(jobs.map((each) => each.runDue()));
      await shop.settle();
    },
    async settle(waitMs = 5_000) {
      const end = Date.now() + waitMs;
      for (;;) {
        await Promise.all(jobs.map((each) => each.runDue()));
        const moving = await orders.database.sql
          .selectFrom("orders")
          .select("order_id")
          .where("state", "in", ["PLACING", "COMPLETING", "CANCELLING"])
          .execute();
        if (moving.length === 0) return;
        assert.ok(Date.now() < end, "an order does not come to rest.");
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    },
    async books() {
      const ops = { service: "ops" };
      const ledger = await neighbour(PaymentService, ops).checkLedger({});
      const stock = await neighbour(InventoryService, ops).checkStock({});
      const totals = await neighbour(OrderService, ops).getEscrowTotals({});
      const amounts = (list: { currencyCode: string; amountMinor: bigint }[]) =>
        Object.fromEntries(
          list.filter((money) => money.amountMinor !== 0n).map((money) => [money.currencyCode, money.amountMinor]),
        );
      return {
        findings: [...ledger.findings, ...stock.findings],
        escrow: amounts(ledger.escrow),
        expected: amounts(totals.totals),
        inMotion: totals.ordersInMotion,
      };
    },
    async events(orderId) {
      const rows = await orders.database.sql
        .selectFrom("outbox")
        .select("event")
        .where("aggregate_id", "=", orderId)
        .orderBy("position")
        .execute();
      return rows.map((row) => {
        const { payload, sequence } = fromBinary(EventSchema, row.event);
        const message = payload && (anyUnpack(payload, eventTypes) as OrderPlaced | undefined);
        return { type: payload?.typeUrl.split(".").at(-1) ?? "", sequence, order: message?.order };
      });
    },
    async close() {
      await server?.stop(1_000);
      await Promise.all(jobs.map((each) => each.stop()));
      await module.stop?.();
      await Promise.all([orders, units, payments].map(({ database }) => database.close()));
      simulator.close();
    },
  };
  shop.newcomers();
  return shop;
}

/** Clients whose calls are counted, and lost where the test says so. */
function troubled(clients: Clients, trouble: Pick<Shop, "calls" | "faults" | "before" | "after">): Clients {
  const wrap = <S extends DescService>(client: Client<S>): Client<S> =>
    new Proxy(client, {
      get(target, method: string) {
        const call = target[method as keyof typeof target] as (...args: unknown[]) => Promise<unknown>;
        return async (...args: unknown[]) => {
          trouble.calls.push(method);
          const first = trouble.before.get(method);
          trouble.before.delete(method);
          await first?.();
          const fault = trouble.faults.find((each) => each.method === method && (each.times ?? 1) > 0);
          if (fault !== undefined) {
            fault.times = (fault.times ?? 1) - 1;
          }
          if (fault?.when === "before") {
            fail(UNAVAILABLE);
          }
          const answer = await call(...args);
          const then = trouble.after.get(method);
          trouble.after.delete(method);
          await then?.();
          if (fault?.when === "after") {
            throw new ConnectError("the answer is lost", Code.DeadlineExceeded);
          }
          return answer;
        };
      },
    });
  return {
    of: (service, module) => wrap(clients.of(service, module)),
    at: (module, service) => wrap(clients.at(module, service)),
    modules: () => clients.modules(),
  };
}

function fakeCatalog(listings: ReadonlyMap<string, Listing>): ServiceModule {
  return rpcModule("catalog", (router) => {
    router.service(CatalogService, {
      batchGetListings({ listingIds }) {
        const visible = (id: string) => listings.get(id)?.state !== ListingState.DRAFT && listings.has(id);
        return {
          listings: listingIds.filter(visible).map((id) => listings.get(id) as Listing),
          missingListingIds: listingIds.filter((id) => !visible(id)),
        };
      },
    });
  });
}

function fakeAccounts(addresses: ReadonlyMap<string, string>): ServiceModule {
  return rpcModule("account", (router) => {
    router.service(AccountService, {
      getAddress({ addressId }, context) {
        if (!addresses.has(addressId) || addresses.get(addressId) !== accountOf(callOf(context))) {
          fail(ADDRESS_NOT_FOUND);
        }
        const place = { city: "Springfield", region: "OR", postalCode: "97477", countryCode: "US" };
        return { address: { addressId, recipient: "Ben", lines: ["1 Long Road"], ...place } };
      },
    });
  });
}

/** A buyer's request for listings as they are. */
export function requestFor(
  shop: Shop,
  listings: readonly Listing[],
  over: { requestId?: string; token?: string; units?: number } = {},
) {
  return {
    requestId: over.requestId ?? newId(),
    lines: listings.map(({ listingId, price }) => ({
      listingId,
      units: over.units ?? 0,
      unitPrice: price as NonNullable<typeof price>,
    })),
    addressId: shop.addressId,
    paymentMethodToken: over.token ?? "tok_approved",
  };
}

/** Expects a call to fail with a reason, and a code where one is given; gives the error. */
export async function refused(call: Promise<unknown>, why: string, code?: Code): Promise<ConnectError> {
  const error = await call.then(
    () => assert.fail(`expected ${why}`),
    (thrown: unknown) => thrown,
  );
  assert.equal(reasonOf(error), why, String(error));
  assert.ok(error instanceof ConnectError);
  if (code !== undefined) {
    assert.equal(error.code, code);
  }
  return error;
}
