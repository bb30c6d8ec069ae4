import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { type Client, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { type Order, OrderService, OrderState } from "#gen/marketplace/order/v1/order_pb.ts";
import { newId } from "#runtime/ids.ts";
import { startServer } from "#runtime/server.ts";
import { embeddedVerifiers } from "#runtime/tokens.ts";
import { watchOrder } from "../../client/watch-order.ts";
import { quietLog } from "../support/database.ts";
import { signedIn, transportOf } from "../support/server.ts";
import { openShop, refused, requestFor, type Shop } from "./shop.ts";

/** The way to a server, on which a test can lose what is said without either side noticing, and cut what is connected. */
async function openLine(port: number) {
  const sockets = new Set<Socket>();
  let dead = false;
  const listener = createServer((near) => {
    const far = connect(port, "127.0.0.1");
    // Nothing of a connection that once was dead arrives any more.
    let mute = dead;
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(from);
      from.on("data", (data) => {
        mute ||= dead;
        if (!mute) to.write(data);
      });
      from.on("error", () => {});
      from.on("close", () => to.destroy());
    }
  }).listen(0, "127.0.0.1");
  await once(listener, "listening");
  return {
    url: `http://127.0.0.1:${(listener.address() as AddressInfo).port}`,
    die: (isDead: boolean) => {
      dead = isDead;
    },
    cut() {
      for (const socket of sockets) socket.destroy();
      sockets.clear();
    },
    async close() {
      listener.close();
      for (const socket of sockets) socket.destroy();
      await once(listener, "close");
    },
  };
}

for (const protocol of ["Connect JSON", "gRPC", "gRPC-Web"] as const) {
  describe(`A client that watches an order (${protocol})`, () => {
    let shop: Shop;
    let line: Awaited<ReturnType<typeof openLine>>;
    let orderId: string;
    let client: Client<typeof OrderService>;
    let ending: AbortController;
    beforeEach(async () => {
      shop = await openShop("server", { watch: { watchersOfAccountMax: 2, heartbeatMs: 100, pollMs: 20 } });
      line = await openLine(shop.server?.port ?? 0);
      const { order } = await shop.as({ account: shop.buyer }).placeOrder(requestFor(shop, [await shop.offer()]));
      orderId = order?.orderId ?? "";
      const interceptors = [signedIn(shop.keys, { account: shop.buyer })];
      client = createClient(
        OrderService,
        // Where one connection carries many calls the transport has to find out that it is dead, or the next call takes it again.
        protocol === "gRPC"
          ? createGrpcTransport({ baseUrl: line.url, interceptors, pingIntervalMs: 200, pingTimeoutMs: 200 })
          : transportOf(protocol, line.url, interceptors, "1.1"),
      );
      ending = new AbortController();
    });
    afterEach(async () => {
      ending.abort();
      await line.close();
      await shop.close();
    });
    const ship = () => shop.as({ account: shop.seller }).shipOrder({ requestId: newId(), orderId, carrier: "UPS" });
    const confirm = () => shop.as({ account: shop.buyer }).confirmOrder({ requestId: newId(), orderId, rating: { stars: 4 } });
    const next = async (orders: AsyncGenerator<Order, void>) => {
      const { value } = await orders.next();
      return value?.state;
    };
    const rest = async (orders: AsyncGenerator<Order, void>) => {
      const states: OrderState[] = [];
      for await (const { state } of orders) states.push(state);
      return states;
    };

    it("is given each state once, while connections break, and ends after the last", async () => {
      const asked: bigint[] = [];
      const noting: Pick<typeof client, "watchOrder"> = {
        watchOrder(request, options) {
          asked.push(request.afterSequence ?? -1n);
          return client.watchOrder(request, options);
        },
      };
      const orders = watchOrder(noting, orderId, { signal: ending.signal });
      assert.equal(await next(orders), OrderState.PAID);
      line.cut();
      await ship();
      assert.equal(await next(orders), OrderState.SHIPPED);
      const pending = rest(orders);
      for (let cuts = 0; cuts < 3; cuts++) {
        await sleep(50);
        line.cut();
      }
      await confirm();
      const states = await pending;
      assert.equal(states.at(-1), OrderState.COMPLETED);
      assert.equal(new Set(states).size, states.length);
      assert.equal(asked[0], 0n);
      assert.ok(asked.length > 1 && asked.slice(1).every((sequence) => sequence >= 2n), `${asked}`);
    });

    it("goes on at the server that follows one which ended", async () => {
      const orders = watchOrder(client, orderId, { signal: ending.signal });
      assert.equal(await next(orders), OrderState.PAID);
      const pending = next(orders);
      const port = shop.server?.port ?? 0;
      await ship();
      assert.equal(await pending, OrderState.SHIPPED);
      const last = rest(orders);
      await shop.server?.stop(5_000);
      const verifiers = embeddedVerifiers(shop.keys);
      const follower = await startServer({ modules: [shop.module], port, host: "127.0.0.1", verifiers, log: quietLog });
      try {
        const confirming = createClient(
          OrderService,
          transportOf("gRPC", follower.url, [signedIn(shop.keys, { account: shop.buyer })]),
        );
        await confirming.confirmOrder({ requestId: newId(), orderId, rating: { stars: 4 } });
        assert.equal((await last).at(-1), OrderState.COMPLETED);
      } finally {
        await follower.stop(5_000);
      }
    });

    it("notices that a connection is dead by the silence, and is given what changed meanwhile", async () => {
      const orders = watchOrder(client, orderId, { signal: ending.signal, silenceMs: 1_000 });
      assert.equal(await next(orders), OrderState.PAID);
      line.die(true);
      await ship();
      const pending = next(orders);
      // Nothing can come before the line lives again, and nobody says that it does.
      await sleep(50);
      line.die(false);
      assert.equal(await pending, OrderState.SHIPPED);
    });

    it("leaves no stream behind when its reader stops", async () => {
      for (let round = 0; round < 4; round++) {
        for await (const order of watchOrder(client, orderId)) {
          assert.equal(order.state, OrderState.PAID);
          break;
        }
      }
      const orders = watchOrder(client, orderId, { signal: ending.signal });
      assert.equal(await next(orders), OrderState.PAID);
      const pending = orders.next();
      ending.abort();
      assert.equal((await pending).done, true);
    });

    it("hears why an order cannot be watched", async () => {
      await refused(watchOrder(client, newId()).next(), "ORDER_NOT_FOUND");
      await refused(watchOrder(client, "x").next(), "INVALID_REQUEST");
    });
  });
}
