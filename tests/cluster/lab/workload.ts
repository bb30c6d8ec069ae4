// A workload of the lab, as it runs in a pod: real RPCs of the real contract behind a proxy that makes faults.

import { createServer } from "node:http";
import type { ConnectRouter } from "@connectrpc/connect";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { CatalogService } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { InventoryService } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import { OrderService } from "#gen/marketplace/order/v1/order_pb.ts";
import { callOf } from "#runtime/call.ts";
import { type Clients, createDirectory, forCall } from "#runtime/clients.ts";
import { systemClock } from "#runtime/clock.ts";
import { openDatabase } from "#runtime/database/database.ts";
import { fail, UNAVAILABLE } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { createLog, type Log } from "#runtime/log.ts";
import { openPeers } from "#runtime/peers.ts";
import { startServer } from "#runtime/server.ts";
import { embeddedVerifiers, type Keys, loadOrCreateKeys, serviceTokens } from "#runtime/tokens.ts";
import { inventory } from "../../../services/inventory/service.ts";
import { TABLES } from "../../../services/tables.ts";
import { CONTRACTS, callAs, type Job } from "./caller.ts";
import { type Fault, startFaultyProxy } from "./faulty-proxy.ts";

/** The listing that the chain is about. */
const LISTING = "01900000-0000-7000-8000-00000000c0de";
const SELLER = "01900000-0000-7000-8000-0000000000a1";

/** What a workload is told while it runs. */
export interface Orders {
  /** What befalls all calls from now on; null ends it. */
  readonly fault?: Fault | null;
  /** Whether failures of others are handed on as one's own UNAVAILABLE, as programs do that know no better. */
  readonly handOn?: boolean;
  /** Forgets what was seen. */
  readonly forget?: boolean;
}

/** The clients of a workload: of the lab's others over gRPC, as a service is known, without retries of its own. */
export function labClients(keys: Keys, name: string, peersUrl: string, log: Log): { clients: Clients; close(): void } {
  const directory = createDirectory({ verifiers: embeddedVerifiers(keys), log });
  const peers = openPeers({ urlOf: (service) => peersUrl.replaceAll("{service}", service), retries: false });
  for (const [service, contract] of Object.entries(CONTRACTS)) {
    directory.reach(service, { services: [contract], open: (interceptors) => peers.open(service, interceptors) });
  }
  return { clients: directory.clientsFor(serviceTokens(keys, name)), close: () => peers.close() };
}

type Routes = (router: ConnectRouter) => void;

/** The way down: order asks catalog, which asks inventory; each waits for the next and adds nothing. */
function chainOf(clients: Clients, handsOn: () => boolean): Readonly<Record<string, Routes>> {
  const next = <T>(call: Promise<T>): Promise<T> => (handsOn() ? call.catch(() => fail(UNAVAILABLE)) : call);
  return {
    order: (router) =>
      router.service(OrderService, {
        async getEscrowTotals(_request, context) {
          await next(clients.of(CatalogService).getListing({ listingId: LISTING }, forCall(callOf(context))));
          return {};
        },
      }),
    catalog: (router) =>
      router.service(CatalogService, {
        async getListing(_request, context) {
          const units = { requestId: newId(), listingId: LISTING, sellerId: SELLER, units: 1 };
          await next(clients.of(InventoryService).setUnits(units, forCall(callOf(context))));
          return {};
        },
      }),
    account: (router) => router.service(AccountService, { getProfile: () => ({}) }),
    ops: () => {},
  };
}

/** What the test asks a workload through its door: each path takes JSON and answers it. */
type Door = Readonly<Record<string, (asked: never) => unknown>>;

/** Answers the test, which comes through `kubectl port-forward`. */
function openDoor(port: number, door: Door): void {
  createServer(async (request, response) => {
    let text = "";
    for await (const chunk of request) text += chunk;
    try {
      response.end(JSON.stringify(await door[request.url ?? ""]?.(JSON.parse(text) as never)));
    } catch (error) {
      response.writeHead(500).end(String(error));
    }
  }).listen(port, "127.0.0.1");
}

async function main(name: string): Promise<void> {
  const { LAB_PEERS_URL = "", LAB_DATABASE_URL = "sqlite:/var/lib/souk/inventory.db" } = process.env;
  const keys = await loadOrCreateKeys("/etc/souk/keys");
  const log = createLog({ level: "warn", format: "json" });
  const { clients } = labClients(keys, name, LAB_PEERS_URL, log);
  let handsOn = false;
  const routes = chainOf(clients, () => handsOn)[name];
  const module = routes
    ? { name, routes }
    : inventory({
        database: await openDatabase({ service: "inventory", url: LAB_DATABASE_URL, ...TABLES.inventory, clock: systemClock, log }),
      });
  const server = await startServer({ modules: [module], port: 8081, host: "0.0.0.0", verifiers: embeddedVerifiers(keys), log });
  const proxy = startFaultyProxy({ port: 8080, upstream: `http://127.0.0.1:${server.port}` });
  const tell = ({ fault, handOn, forget }: Orders) => {
    if (fault !== undefined) proxy.fault = fault ?? undefined;
    if (handOn !== undefined) handsOn = handOn;
    if (forget) proxy.forget();
    return { attempts: proxy.attempts, counts: proxy.counts };
  };
  openDoor(9001, { "/tell": tell, "/call": (job: Job) => callAs(keys, LAB_PEERS_URL, job) });
  process.once("SIGTERM", () => server.stop(2_000, 3_000).finally(() => process.exit(0)));
}

if (import.meta.main) await main(process.argv[2] ?? "");
