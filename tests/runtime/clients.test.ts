import assert from "node:assert/strict";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { CatalogService } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { MaintenanceService } from "#gen/marketplace/ops/v1/ops_pb.ts";
import { OrderService } from "#gen/marketplace/order/v1/order_pb.ts";
import { type Call, callOf } from "#runtime/call.ts";
import { type Clients, createDirectory, type Directory, forAccount, forCall } from "#runtime/clients.ts";
import { ERROR_DOMAIN, fail, metadataOf, reason, reasonOf } from "#runtime/errors.ts";
import { silentLog } from "#runtime/log.ts";
import { embeddedVerifiers, type Keys, serviceTokens, temporaryKeys } from "#runtime/tokens.ts";
import { onServer, rpcModule, signedIn } from "../support/server.ts";

const ALICE = "0198a0de-0000-7000-8000-00000000a11c";
const LISTING = "0198a0de-0000-7000-8000-000000000001";

describe("clients between services", () => {
  let keys: Keys;
  let directory: Directory;
  let orderClients: Clients;
  let seen: Call | undefined;
  let whenSeen: (call: Call) => Promise<void> = async () => {};
  let options: (call: Call) => ReturnType<typeof forCall> = (call) => forCall(call);

  before(async () => {
    keys = await temporaryKeys();
  });
  beforeEach(() => {
    seen = undefined;
    whenSeen = async () => {};
    options = (call) => forCall(call);
    directory = createDirectory({ verifiers: embeddedVerifiers(keys), log: silentLog() });
    orderClients = directory.clientsFor(serviceTokens(keys, "order"));
    // Made before the catalog exists, as a service's dependencies are.
    const catalog = orderClients.of(CatalogService);
    directory.host([
      rpcModule("order", (router) => {
        router.service(OrderService, {
          async getOrder(_request, context) {
            await catalog.getListing({ listingId: LISTING }, options(callOf(context)));
            return {};
          },
        });
        router.service(MaintenanceService, { listOwnJobs: () => ({ nextPageToken: "order" }) });
      }),
      rpcModule("catalog", (router) => {
        router.service(CatalogService, {
          async getListing(_request, context) {
            seen = callOf(context);
            await whenSeen(seen);
            return {};
          },
        });
        router.service(MaintenanceService, { listOwnJobs: () => ({ nextPageToken: "catalog" }) });
      }),
    ]);
  });
  const asAlice = () =>
    createClient(OrderService, directory.transport(OrderService, undefined, [signedIn(keys, { account: ALICE })]));

  it("carry the service's identity, the account it acts for, and the time that is left", async () => {
    await asAlice().getOrder({ orderId: LISTING }, { timeoutMs: 700 });
    assert.deepEqual(seen?.caller, { kind: "service", service: "order", accountId: ALICE });
    assert.ok((seen?.deadline ?? Infinity) <= Date.now() + 700);
  });

  it("leave the account out when a service acts for itself", async () => {
    options = (call) => forCall(call, { asItself: true });
    await asAlice().getOrder({ orderId: LISTING });
    assert.deepEqual(seen?.caller, { kind: "service", service: "order" });
  });

  it("name the account that a job works for", async () => {
    await orderClients.of(CatalogService).getListing({ listingId: LISTING }, forAccount(ALICE, { timeoutMs: 1000 }));
    assert.deepEqual(seen?.caller, { kind: "service", service: "order", accountId: ALICE });
  });

  it("do not begin a call whose time is over", async () => {
    options = (call) => forCall({ ...call, deadline: Date.now() - 1 });
    await assert.rejects(asAlice().getOrder({ orderId: LISTING }), (error) => reasonOf(error) === "DEADLINE_EXCEEDED");
    assert.equal(seen, undefined);
  });

  it("end the inner call when the outer one ends", async () => {
    const inner = Promise.withResolvers<unknown>();
    const outer = new AbortController();
    whenSeen = (call) =>
      new Promise((resolve) => {
        call.signal.addEventListener("abort", () => {
          inner.resolve(call.signal.reason);
          resolve();
        });
        outer.abort();
      });
    // Without the outer signal only the inner timeout, 2 s, would end it.
    await assert.rejects(asAlice().getOrder({ orderId: LISTING }, { signal: outer.signal }));
    assert.equal(reasonOf(await inner.promise), "CANCELLED");
  });

  it("tell apart services that implement the same contract", async () => {
    const ops = directory.clientsFor(serviceTokens(keys, "ops"));
    for (const module of ops.modules()) {
      assert.equal((await ops.at(module, MaintenanceService).listOwnJobs({})).nextPageToken, module);
      assert.equal((await ops.of(MaintenanceService, module).listOwnJobs({})).nextPageToken, module);
    }
    await assert.rejects(async () => ops.of(MaintenanceService).listOwnJobs({}), /implemented by order, catalog: say which/);
    await assert.rejects(async () => ops.at("payment", MaintenanceService).listOwnJobs({}), /No service "payment"/);
  });

  it("do not pass off the refusal of their own identity as their caller's", async () => {
    const strangers = await temporaryKeys();
    const foreign = directory.clientsFor(serviceTokens(strangers, "order")).of(CatalogService);
    const front = createDirectory({ verifiers: embeddedVerifiers(keys), log: silentLog() });
    front.host([
      rpcModule("order", (router) =>
        router.service(OrderService, {
          async getOrder(_request, context) {
            await foreign.getListing({ listingId: LISTING }, forCall(callOf(context)));
            return {};
          },
        }),
      ),
    ]);
    const client = createClient(OrderService, front.transport(OrderService, undefined, [signedIn(keys, { account: ALICE })]));
    await assert.rejects(client.getOrder({ orderId: LISTING }), (error) => reasonOf(error) === "INTERNAL");
  });

  it("find only services that are hosted, each once", () => {
    assert.throws(() => directory.host([rpcModule("order", () => {})]), /hosted twice/);
  });
});

describe("a port shared by services that implement the same contract", () => {
  it("serves none of them there, and the rest as ever", async () => {
    const maintained = (name: string) =>
      rpcModule(name, (router) => {
        router.service(MaintenanceService, { listOwnJobs: () => ({}) });
        if (name === "catalog") router.service(CatalogService, { listCategories: () => ({}) });
      });
    const subject = await onServer([maintained("catalog"), maintained("order")]);
    try {
      await subject.client(CatalogService).listCategories({});
      const jobs = subject.client(MaintenanceService, { service: "ops" }).listOwnJobs({});
      await assert.rejects(jobs, (error) => reasonOf(error) === "UNIMPLEMENTED");
    } finally {
      await subject.stop();
    }
  });
});

describe("errors with reasons", () => {
  const GONE = reason("GONE", Code.NotFound, "It is gone.");

  it("carry their reason in the domain of the platform", () => {
    try {
      fail(GONE, { metadata: { listing_id: LISTING } });
    } catch (error) {
      assert.ok(error instanceof ConnectError);
      assert.equal(ERROR_DOMAIN, "souk");
      assert.deepEqual([reasonOf(error), error.code, error.rawMessage], ["GONE", Code.NotFound, "It is gone."]);
      assert.deepEqual(metadataOf(error), { listing_id: LISTING });
    }
  });
  it("are told from others", () => {
    assert.equal(reasonOf(new Error("GONE")), undefined);
    assert.equal(reasonOf(new ConnectError("no", Code.NotFound)), undefined);
    assert.equal(reasonOf(new ConnectError("late", Code.DeadlineExceeded)), "DEADLINE_EXCEEDED");
  });
  it("have names that a program can read", () => {
    assert.throws(() => reason("Gone!", Code.NotFound, "No."), /not made of/);
  });
});
