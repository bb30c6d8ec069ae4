import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { createClient } from "@connectrpc/connect";
import { CatalogService } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { InventoryService } from "#gen/marketplace/inventory/v1/inventory_pb.ts";
import { OrderService } from "#gen/marketplace/order/v1/order_pb.ts";
import { PaymentService } from "#gen/marketplace/payment/v1/payment_pb.ts";
import { callOf } from "#runtime/call.ts";
import { createDirectory, forCall } from "#runtime/clients.ts";
import type { Database } from "#runtime/database/database.ts";
import { reasonOf } from "#runtime/errors.ts";
import { silentLog } from "#runtime/log.ts";
import { startServer } from "#runtime/server.ts";
import { embeddedVerifiers, serviceTokens, temporaryKeys } from "#runtime/tokens.ts";
import { Pot, pot, potMigrations } from "../runtime/pots.ts";
import { memoryDatabase } from "../support/database.ts";
import { onServer, type Protocol, rpcModule, signedIn, transportOf } from "../support/server.ts";
import { FLAG, FRAME, frame, headerBlock, RawPeer, requestHeaders } from "./frames.ts";

const ID = "0198a0de-0000-7000-8000-000000000001";
const ALICE = "0198a0de-0000-7000-8000-00000000a11c";
const PROTOCOLS = ["Connect JSON", "gRPC", "gRPC-Web"] as const satisfies readonly Protocol[];

describe("a command whose time has run out", () => {
  let database: Database<{ pot: Record<string, unknown> }>;
  let release = Promise.withResolvers<void>();
  /** The commands that have written. */
  let begun: string[] = [];
  const catalog = rpcModule("catalog", (router) =>
    router.service(CatalogService, {
      async withdrawListing({ requestId }, context) {
        const { deadline, signal } = callOf(context);
        await database.transaction(
          async (tx) => {
            await tx.sql.insertInto("pot").values(pot(requestId)).execute();
            begun.push(requestId);
            if (requestId === "holder") await release.promise;
          },
          { deadline, signal },
        );
        return {};
      },
    }),
  );
  beforeEach(async () => {
    release = Promise.withResolvers<void>();
    begun = [];
    // SQLite has one writer, for which the others wait.
    database = (await memoryDatabase([Pot], potMigrations)).database as unknown as typeof database;
  });
  afterEach(() => database.close());

  for (const protocol of PROTOCOLS) {
    it(`while it waited for others writes nothing, then or later: over ${protocol}`, async function () {
      if (process.env.SOUK_TEST_STORE === "mariadb") this.skip();
      const subject = await onServer([catalog], protocol);
      try {
        const client = subject.client(CatalogService, { account: ALICE });
        const withdraw = (requestId: string, timeoutMs: number) =>
          client.withdrawListing({ listingId: ID, requestId }, { timeoutMs });
        const holder = withdraw("holder", 60_000);
        while (begun.length === 0) await sleep(5);
        const late = ["late-1", "late-2", "late-3"].map((id) => withdraw(id, 400));
        const refused = Promise.all(late.map((call) => assert.rejects(call, (error) => reasonOf(error) === "DEADLINE_EXCEEDED")));
        await sleep(200);
        // Their turn comes while the process is busy, and before it gets to look at its timers.
        release.resolve();
        for (const endTime = Date.now() + 500; Date.now() < endTime; );
        await refused;
        await holder;
        await withdraw("next", 60_000);
        assert.deepEqual(begun, ["holder", "next"]);
        const rows = await database.sql.selectFrom("pot").select("pot_id").orderBy("pot_id").execute();
        assert.deepEqual(
          rows.map(({ pot_id }) => pot_id),
          ["holder", "next"],
        );
      } finally {
        await subject.stop();
      }
    });
  }

  for (const [protocol, type, timeout] of [
    ["Connect", "application/json", ["connect-timeout-ms", "100"]],
    ["gRPC", "application/grpc+json", ["grpc-timeout", "100m"]],
    ["gRPC-Web", "application/grpc-web+json", ["grpc-timeout", "100m"]],
  ] as const) {
    it(`before its body had come begins nothing when it comes: over ${protocol}`, async () => {
      const subject = await onServer([catalog], "gRPC");
      const peer = await RawPeer.open(subject.server.port);
      try {
        let authorization = "";
        const sign = signedIn(subject.keys, { account: ALICE })(async (request) => {
          authorization = request.header.get("authorization") ?? "";
          throw new Error("signed");
        });
        await assert.rejects(sign({ header: new Headers() } as never), /signed/);
        const headers = [...requestHeaders("/marketplace.catalog.v1.CatalogService/WithdrawListing", type), timeout];
        const json = Buffer.from(JSON.stringify({ listingId: ID, requestId: "late" }));
        const length = Buffer.alloc(5);
        length.writeUInt32BE(json.length, 1);
        const body = protocol === "Connect" ? json : Buffer.concat([length, json]);
        const call = (stream: number) =>
          peer.write(frame(FRAME.headers, FLAG.endHeaders, stream, headerBlock([...headers, ["authorization", authorization]])));
        const send = (stream: number) => peer.write(frame(FRAME.data, FLAG.endStream, stream, body));
        call(1);
        while (peer.of(FRAME.headers, 1).length === 0) await sleep(5);
        send(1);
        await sleep(50);
        assert.deepEqual(begun, []);
        // The same in time is a good call.
        call(3);
        send(3);
        while (peer.of(FRAME.headers, 3).length === 0) await sleep(5);
        assert.deepEqual(begun, ["late"]);
      } finally {
        peer.close();
        await subject.stop();
      }
    });
  }
});

describe("a call that calls others", () => {
  it("hands them the time that is left, over any number of processes", async () => {
    const keys = await temporaryKeys();
    const verifiers = embeddedVerifiers(keys);
    const log = silentLog();
    /** The time that was left when each was asked, in ms. */
    const left = { order: 0, payment: 0, inventory: 0 };
    const seen: string[] = [];
    const note = (service: keyof typeof left, deadline: number) => {
      left[service] = deadline - Date.now();
      if (service !== "order") seen.push(service);
    };
    const start = (module: Parameters<typeof rpcModule>) =>
      startServer({ modules: [rpcModule(...module)], port: 0, host: "127.0.0.1", verifiers, log });
    const payment = await start([
      "payment",
      (router) =>
        router.service(PaymentService, {
          getPayment(_, context) {
            note("payment", callOf(context).deadline);
            return {};
          },
        }),
    ]);
    const inventory = await start([
      "inventory",
      (router) =>
        router.service(InventoryService, {
          getReservation(_, context) {
            note("inventory", callOf(context).deadline);
            return {};
          },
        }),
    ]);
    const directory = createDirectory({ verifiers, log });
    for (const [name, service, { url }] of [
      ["payment", PaymentService, payment],
      ["inventory", InventoryService, inventory],
    ] as const) {
      directory.reach(name, { services: [service], open: (interceptors) => transportOf("gRPC", url, interceptors) });
    }
    const clients = directory.clientsFor(serviceTokens(keys, "order"));
    let takesMs = 0;
    const order = await start([
      "order",
      (router) =>
        router.service(OrderService, {
          async getOrder(_, context) {
            const call = callOf(context);
            note("order", call.deadline);
            await sleep(takesMs);
            await clients.of(PaymentService).getPayment({ paymentId: ID }, forCall(call));
            await sleep(takesMs);
            await clients.of(InventoryService).getReservation({ reservationId: ID }, forCall(call));
            return {};
          },
        }),
    ]);
    try {
      for (const protocol of PROTOCOLS) {
        const client = createClient(OrderService, transportOf(protocol, order.url, [signedIn(keys, { account: ALICE })]));
        takesMs = 30;
        await client.getOrder({ orderId: ID }, { timeoutMs: 1500 });
        assert.ok(left.order <= 1500, JSON.stringify(left));
        assert.ok(left.payment <= left.order - 28, JSON.stringify(left));
        assert.ok(left.inventory <= left.payment - 28, JSON.stringify(left));
        // No time is left for the second: it is not even asked.
        seen.length = 0;
        takesMs = 250;
        await assert.rejects(
          client.getOrder({ orderId: ID }, { timeoutMs: 400 }),
          (error) => reasonOf(error) === "DEADLINE_EXCEEDED",
        );
        await sleep(300);
        assert.deepEqual(seen, ["payment"]);
      }
    } finally {
      await Promise.all([order.stop(0), payment.stop(0), inventory.stop(0)]);
    }
  });
});
