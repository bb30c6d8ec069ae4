import { create, type DescMessage, fromBinary, type MessageInitShape } from "@bufbuild/protobuf";
import { anyPack, timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type Client, Code, createClient, type Interceptor, type ServiceImpl } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { CatalogService, Condition, type ListingDraft, type ListingDraftSchema } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import * as catalogEvents from "#gen/marketplace/catalog/v1/events_pb.ts";
import { EventSchema } from "#gen/marketplace/event/v1/event_pb.ts";
import { StockChangedSchema } from "#gen/marketplace/inventory/v1/events_pb.ts";
import { InventoryService } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import { SERVICE_TOKEN_HEADER } from "#runtime/access.ts";
import type { OpenCacheStore } from "#runtime/cache/stores.ts";
import { createDirectory, type Directory } from "#runtime/clients.ts";
import type { ManualClock } from "#runtime/clock.ts";
import { fail, REQUEST_ID_REUSED, reason, UNAVAILABLE } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { pageTokens } from "#runtime/pages.ts";
import { startServer } from "#runtime/server.ts";
import type { ServiceModule } from "#runtime/service.ts";
import { embeddedVerifiers, type Keys, serviceTokens, signAccountToken, temporaryKeys } from "#runtime/tokens.ts";
import { type CatalogDatabase, entities } from "../../services/catalog/entities.ts";
import { migrations } from "../../services/catalog/migrations/index.ts";
import { catalog } from "../../services/catalog/service.ts";
import { memoryDatabase, quietLog } from "../support/database.ts";

const eventSchemas: Record<string, DescMessage> = {
  ListingPublished: catalogEvents.ListingPublishedSchema,
  ListingUpdated: catalogEvents.ListingUpdatedSchema,
  ListingReserved: catalogEvents.ListingReservedSchema,
  ListingReactivated: catalogEvents.ListingReactivatedSchema,
  ListingSold: catalogEvents.ListingSoldSchema,
  ListingWithdrawn: catalogEvents.ListingWithdrawnSchema,
};

const UNITS_RESERVED = reason("UNITS_RESERVED", Code.FailedPrecondition, "Reserved.");

/** What the catalog told inventory, and what inventory does about it: units by listing, each request applied once. */
export interface FakeInventory {
  readonly units: Map<string, number>;
  /** One entry for each call that arrived, repeats too. */
  readonly calls: { requestId: string; units: number; listings: number }[];
  /** Listings with units set aside. */
  readonly reserved: Set<string>;
  /** How many calls fail from now on, before or after they took effect. */
  failing: { count: number; when: "before" | "after" };
  /** Runs when a call has arrived and before it takes effect. */
  meanwhile: (() => Promise<void>) | undefined;
}

function fakeInventory(): { inventory: FakeInventory; module: ServiceModule } {
  const inventory: FakeInventory = {
    units: new Map(),
    calls: [],
    reserved: new Set(),
    failing: { count: 0, when: "before" },
    meanwhile: undefined,
  };
  const applied = new Map<string, string>();
  const apply = async (requestId: string, listings: { listingId: string; units: number }[], refuseIfReserved: boolean) => {
    inventory.calls.push({ requestId, units: listings[0]?.units ?? 0, listings: listings.length });
    await inventory.meanwhile?.();
    const fails = inventory.failing.count > 0 && inventory.failing.count-- > 0;
    if (fails && inventory.failing.when === "before") {
      fail(UNAVAILABLE);
    }
    const contents = JSON.stringify([listings.map(({ listingId, units }) => [listingId, units]), refuseIfReserved]);
    const first = applied.get(requestId);
    if (first !== undefined && first !== contents) {
      fail(REQUEST_ID_REUSED);
    }
    if (first === undefined) {
      if (refuseIfReserved && listings.some(({ listingId }) => inventory.reserved.has(listingId))) {
        fail(UNITS_RESERVED);
      }
      applied.set(requestId, contents);
      for (const { listingId, units } of listings) {
        inventory.units.set(listingId, units);
      }
    }
    if (fails) {
      fail(UNAVAILABLE);
    }
  };
  const implementation: Partial<ServiceImpl<typeof InventoryService>> = {
    async setUnits({ requestId, listingId, sellerId, units, refuseIfReserved }) {
      await apply(requestId, [{ listingId, units }], refuseIfReserved);
      return { stock: { listingId, sellerId, availableUnits: units } };
    },
    async batchSetUnits({ requestId, listings }) {
      await apply(requestId, listings, false);
      return {};
    },
  };
  const module: ServiceModule = {
    name: "inventory",
    consumers: [],
    jobs: [],
    recurring: [],
    routes: (router) => {
      router.service(InventoryService, implementation);
    },
  };
  return { inventory, module };
}

/** A catalog with a fake inventory beside it, and callers of every kind. */
export interface Marketplace {
  readonly database: CatalogDatabase;
  readonly clock: ManualClock;
  readonly module: ServiceModule;
  readonly inventory: FakeInventory;
  readonly keys: Keys;
  readonly directory: Directory;
  readonly anonymous: Client<typeof CatalogService>;
  account(accountId: string, options?: { operator?: boolean }): Client<typeof CatalogService>;
  service(name: string): Client<typeof CatalogService>;
  /** The events told so far, as [type, sequence, listing's state] in the order of writing. */
  events(listingId?: string): Promise<{ type: string; sequence: number; state: number; availableUnits: number }[]>;
  /** Delivers a stock event to the catalog, as the bus does. */
  stock(listingId: string, sequence: number, units: { available: number; reserved?: number; sold?: number }): Promise<void>;
  close(): Promise<void>;
}

/** What carries the calls: the in-memory transport, or a real server on a free port spoken to in JSON. */
export type Carrier = "memory" | "server";

/** What a catalog may share with another one, as two processes do. */
export interface Shared {
  readonly database: CatalogDatabase;
  readonly clock: ManualClock;
  readonly openCacheStore: OpenCacheStore;
}

/** Opens an empty one, or one on what it shares with another. */
export async function openMarketplace(carrier: Carrier = "memory", shared?: Shared): Promise<Marketplace> {
  const { database, clock } = shared ?? (await memoryDatabase(entities, migrations, { service: "catalog" }));
  const keys = await temporaryKeys();
  const directory = createDirectory({ verifiers: embeddedVerifiers(keys), log: quietLog });
  const { inventory, module: inventoryModule } = fakeInventory();
  const clients = directory.clientsFor(serviceTokens(keys, "catalog"));
  const module = catalog({
    database,
    clients,
    pages: pageTokens({ secret: keys.pageTokens, clock }),
    ...(shared === undefined ? {} : { openCacheStore: shared.openCacheStore }),
  });
  directory.host([inventoryModule, module]);
  const verifiers = embeddedVerifiers(keys);
  const server =
    carrier === "memory"
      ? undefined
      : await startServer({ modules: [module], port: 0, host: "127.0.0.1", verifiers, log: quietLog });
  const client = (interceptors: Interceptor[]): Client<typeof CatalogService> =>
    createClient(
      CatalogService,
      server === undefined
        ? directory.transport(CatalogService, undefined, interceptors)
        : createConnectTransport({ baseUrl: server.url, httpVersion: "1.1", interceptors }),
    );
  const withHeader = (name: string, value: () => Promise<string>): Client<typeof CatalogService> =>
    client([
      (next) => async (request) => {
        request.header.set(name, await value());
        return next(request);
      },
    ]);
  return {
    database,
    clock,
    module,
    inventory,
    keys,
    directory,
    anonymous: client([]),
    account(accountId, { operator = false } = {}) {
      const token = signAccountToken(keys, { accountId, operator });
      return withHeader("authorization", async () => `Bearer ${await token}`);
    },
    service: (name) => withHeader(SERVICE_TOKEN_HEADER, serviceTokens(keys, name)),
    async events(listingId) {
      const rows = await database.sql.selectFrom("outbox").select(["event", "aggregate_id"]).orderBy("position").execute();
      return rows.filter((row) => listingId === undefined || row.aggregate_id === listingId).map((row) => readEvent(row.event));
    },
    stock: (listingId, sequence, units) =>
      module.consumers[0]?.handle([stockEvent(listingId, sequence, units)]) ?? Promise.reject(new Error("no consumer")),
    async close() {
      await server?.stop(0);
      await module.stop?.();
      await database.close();
    },
  };
}

/** A stock event as inventory writes it. */
export function stockEvent(listingId: string, sequence: number, units: { available: number; reserved?: number; sold?: number }) {
  const stock = {
    listingId,
    sellerId: newId(),
    availableUnits: units.available,
    reservedUnits: units.reserved ?? 0,
    soldUnits: units.sold ?? 0,
  };
  return create(EventSchema, {
    eventId: newId(),
    source: "inventory",
    aggregateType: "stock",
    aggregateId: listingId,
    sequence: BigInt(sequence),
    eventTime: timestampFromMs(Date.now()),
    payload: anyPack(StockChangedSchema, create(StockChangedSchema, { stock })),
  });
}

function readEvent(bytes: Uint8Array) {
  const event = fromBinary(EventSchema, bytes);
  const type = event.payload?.typeUrl.split(".").at(-1) ?? "";
  const schema = eventSchemas[type] as DescMessage;
  const message = fromBinary(schema, event.payload?.value ?? new Uint8Array()) as unknown as {
    listing: { state: number; availableUnits: number };
  };
  return {
    type,
    sequence: Number(event.sequence),
    state: message.listing.state,
    availableUnits: message.listing.availableUnits,
  };
}

/** What a test says of a draft. */
export type DraftFields = Partial<Omit<ListingDraft, "$typeName" | "$unknown" | "price">> & {
  price?: { currencyCode: string; amountMinor: bigint };
};

/** A draft that nothing is wrong with. */
export function draft(over: DraftFields = {}): MessageInitShape<typeof ListingDraftSchema> {
  return {
    title: "Seven iron",
    description: "Hits balls.",
    categoryId: "golf-clubs",
    condition: Condition.GOOD,
    price: { currencyCode: "USD", amountMinor: 1250n },
    ...over,
  };
}
