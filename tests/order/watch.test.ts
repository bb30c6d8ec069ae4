import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { setTimeout as sleep } from "node:timers/promises";
import { createClient } from "@connectrpc/connect";
import { type Order, OrderService, OrderState, type WatchOrderResponse } from "#gen/marketplace/order/v1/order_pb.ts";
import type { Statement } from "#runtime/database/statements.ts";
import { metadataOf } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { carriers, type Identity, type Protocol, signedIn, transportOf } from "../support/server.ts";
import { openShop, refused, requestFor, type Shop } from "./shop.ts";

/** Longer than any test: what a test does not want to happen. */
const NEVER_MS = 3_600_000;

/** A stream under a test's hands. */
interface Watch {
  /** The next message; undefined when the stream has ended well. */
  next(): Promise<WatchOrderResponse | undefined>;
  /** The sequence of the next message with an order. */
  nextSequence(): Promise<number | undefined>;
  end(): void;
}

function watched(stream: (signal: AbortSignal) => AsyncIterable<WatchOrderResponse>): Watch {
  const controller = new AbortController();
  const messages = stream(controller.signal)[Symbol.asyncIterator]();
  const next = async () => {
    const { done, value } = await messages.next();
    return done === true ? undefined : value;
  };
  return {
    next,
    async nextSequence() {
      for (;;) {
        const message = await next();
        if (message === undefined) return undefined;
        if (message.order !== undefined) return Number(message.order.sequence);
      }
    },
    end: () => controller.abort(),
  };
}

function watch(shop: Shop, identity: Identity, orderId: string, afterSequence = 0): Watch {
  return watched((signal) => shop.as(identity).watchOrder({ orderId, afterSequence: BigInt(afterSequence) }, { signal }));
}

/** A change as another process makes it: nobody here hears of the commit. The tracking number tells which it was. */
async function changeElsewhere(shop: Shop, orderId: string, sequence: number): Promise<void> {
  const set = { version: sequence, tracking_number: String(sequence) };
  await shop.database.sql.updateTable("orders").set(set).where("order_id", "=", orderId).execute();
}

async function placed(shop: Shop, token?: string): Promise<string> {
  const request = requestFor(shop, [await shop.offer()], token === undefined ? {} : { token });
  const { order } = await shop.as({ account: shop.buyer }).placeOrder(request);
  return order?.orderId ?? "";
}

for (const carrier of carriers) {
  describe(`Watching an order (${carrier})`, () => {
    let shop: Shop;
    const open: Watch[] = [];
    /** Opens a shop whose watchers differ from the contract's as a test needs it. */
    const given = async (options: Parameters<typeof openShop>[1]) => {
      shop = await openShop(carrier, options);
    };
    const asBuyer = (orderId: string, after?: number) => {
      open.push(watch(shop, { account: shop.buyer }, orderId, after));
      return open.at(-1) as Watch;
    };
    const ship = (orderId: string) =>
      shop.as({ account: shop.seller }).shipOrder({ requestId: newId(), orderId, carrier: "UPS", trackingNumber: "7" });
    const confirm = (orderId: string) =>
      shop.as({ account: shop.buyer }).confirmOrder({ requestId: newId(), orderId, rating: { stars: 5 } });
    afterEach(async () => {
      for (const each of open.splice(0)) each.end();
      await shop.close();
    });

    it("begins with the state now, shows every change of this process without asking the table again and again, and ends after the final state", async () => {
      await given({ watch: { pollMs: NEVER_MS } });
      const orderId = await placed(shop);
      const stream = asBuyer(orderId);
      const first = (await stream.next())?.order;
      const { order } = await shop.as({ account: shop.buyer }).getOrder({ orderId });
      assert.deepEqual(first, order);
      await ship(orderId);
      const shipped = (await stream.next())?.order;
      assert.deepEqual([shipped?.state, shipped?.sequence, shipped?.trackingNumber], [OrderState.SHIPPED, 3n, "7"]);
      await confirm(orderId);
      let last: Order | undefined;
      for (let message = await stream.next(); message !== undefined; message = await stream.next()) last = message.order;
      assert.deepEqual([last?.state, last?.sequence], [OrderState.COMPLETED, 5n]);
      assert.equal(await asBuyer(orderId, 5).next(), undefined);
      assert.equal(await asBuyer(orderId, 4).nextSequence(), 5);
    });

    it("shows what other processes change", async () => {
      await given({ watch: { pollMs: 20 } });
      const orderId = await placed(shop);
      const stream = asBuyer(orderId);
      assert.equal(await stream.nextSequence(), 2);
      for (const sequence of [3, 4, 9]) {
        await changeElsewhere(shop, orderId, sequence);
        const { order } = (await stream.next()) ?? {};
        assert.deepEqual([order?.sequence, order?.trackingNumber], [BigInt(sequence), String(sequence)]);
      }
    });

    it("resumed after the last change begins with a heartbeat, and with what was missed otherwise", async () => {
      await given({ watch: { heartbeatMs: NEVER_MS, pollMs: NEVER_MS } });
      const orderId = await placed(shop);
      const resumed = asBuyer(orderId, 2);
      assert.deepEqual((await resumed.next())?.order, undefined);
      await ship(orderId);
      assert.equal((await resumed.next())?.order?.sequence, 3n);
      assert.equal((await asBuyer(orderId, 2).next())?.order?.sequence, 3n);
    });

    it("resumed again and again misses no last change and repeats none while others change the order", async () => {
      await given({ watch: { pollMs: 5 } });
      const orderId = await placed(shop);
      const LAST = 150;
      const changing = (async () => {
        for (let sequence = 3; sequence <= LAST; sequence++) {
          if (sequence % 3 === 0) await changeElsewhere(shop, orderId, sequence);
          else
            await shop.database.transaction(async (tx) => {
              const set = { version: sequence, tracking_number: String(sequence) };
              await tx.sql.updateTable("orders").set(set).where("order_id", "=", orderId).execute();
              tx.changed({ kind: "order", id: orderId, version: sequence });
            });
          await sleep(2);
        }
      })();
      const seen: number[] = [2];
      for (let round = 0; seen.at(-1) !== LAST; round++) {
        const stream = asBuyer(orderId, seen.at(-1));
        for (let shown = 0; shown <= round % 4 && seen.at(-1) !== LAST; shown++) {
          const { order } = (await stream.next()) ?? {};
          if (order === undefined) continue;
          assert.ok(order.sequence > (seen.at(-1) ?? 0), `${order.sequence} after ${seen.at(-1)}`);
          assert.equal(order.trackingNumber, String(order.sequence));
          seen.push(Number(order.sequence));
        }
        stream.end();
      }
      await changing;
    });

    it("keeps the latest state for a reader who is slow, and nothing else", async () => {
      await given({ watch: { pollMs: NEVER_MS } });
      const orderId = await placed(shop);
      const stream = asBuyer(orderId);
      assert.equal(await stream.nextSequence(), 2);
      const LAST = 600;
      const set = { rating_stars: 1, rating_comment: randomBytes(3_000).toString("base64") };
      for (let sequence = 3; sequence <= LAST; sequence++) {
        await shop.database.transaction(
          async (tx) => {
            await tx.sql
              .updateTable("orders")
              .set({ ...set, version: sequence })
              .where("order_id", "=", orderId)
              .execute();
            tx.changed({ kind: "order", id: orderId, version: sequence });
          },
          { durable: false },
        );
        if (carrier === "server") await sleep(0);
      }
      const sequences: number[] = [];
      while (sequences.at(-1) !== LAST) sequences.push((await stream.nextSequence()) ?? Number.NaN);
      // Some were written into the buffers of the connection before it was full.
      assert.ok(sequences.length < LAST / 3, `${sequences.length} messages waited`);
    });

    it("is open to the buyer, the seller and operators, each as GetOrder shows it, and to nobody else", async () => {
      await given({});
      // The seller sees no address and no confirmation page yet.
      const orderId = await placed(shop, "tok_needs_confirmation");
      for (const identity of [{ account: shop.buyer }, { account: shop.seller }, { account: newId(), operator: true }]) {
        const stream = watch(shop, identity, orderId);
        open.push(stream);
        const { order } = await shop.as(identity).getOrder({ orderId });
        assert.deepEqual((await stream.next())?.order, order);
      }
      await refused(watch(shop, { account: newId() }, orderId).next(), "ORDER_NOT_FOUND");
      await refused(watch(shop, { account: shop.buyer }, newId()).next(), "ORDER_NOT_FOUND");
      await refused(watch(shop, undefined, orderId).next(), "TOKEN_MISSING");
      const error = await refused(asBuyer(orderId, 3).next(), "SEQUENCE_AHEAD");
      assert.equal(metadataOf(error).sequence, "2");
    });

    it("says that nothing has changed, again and again", async () => {
      await given({ watch: { heartbeatMs: 300, pollMs: 10 } });
      const orderId = await placed(shop);
      const stream = asBuyer(orderId);
      assert.equal(await stream.nextSequence(), 2);
      for (let beats = 0; beats < 3; beats++) assert.deepEqual((await stream.next())?.order, undefined);
      await changeElsewhere(shop, orderId, 3);
      assert.equal(await stream.nextSequence(), 3);
    });

    it("ends with UNAVAILABLE instead of saying so where what is new cannot be read", async () => {
      await given({ watch: { heartbeatMs: 50, pollMs: 10 } });
      const stream = asBuyer(await placed(shop));
      assert.equal(await stream.nextSequence(), 2);
      await shop.database.sql.schema.alterTable("orders").renameTo("orders_gone").execute();
      await refused(stream.nextSequence(), "UNAVAILABLE");
    });

    it("is refused when too many watch in all or for one account, until one ends", async () => {
      await given({ watch: { watchersMax: 3, watchersOfAccountMax: 2, pollMs: 20 } });
      const orderId = await placed(shop);
      const mine = [asBuyer(orderId), asBuyer(orderId)];
      for (const each of mine) assert.equal(await each.nextSequence(), 2);
      await refused(asBuyer(orderId).next(), "TOO_MANY_WATCHES");
      const sellers = watch(shop, { account: shop.seller }, orderId);
      open.push(sellers);
      assert.equal(await sellers.nextSequence(), 2);
      await refused(watch(shop, { account: newId(), operator: true }, orderId).next(), "OVERLOADED");
      mine[0]?.end();
      for (const end = Date.now() + 10_000; ; await sleep(5)) {
        const again = asBuyer(orderId);
        const first = await again.nextSequence().catch(() => undefined);
        if (first === 2) break;
        assert.ok(Date.now() < end, "the place is not free again");
      }
      // Refused ones have taken no place.
      await refused(asBuyer(orderId).next(), "TOO_MANY_WATCHES");
    });

    it("ends well when the service stops, for a client that resumes elsewhere", async () => {
      await given({ watch: { heartbeatMs: NEVER_MS } });
      const stream = asBuyer(await placed(shop));
      assert.equal(await stream.nextSequence(), 2);
      const ended = stream.next();
      // Until it sleeps.
      await sleep(50);
      await (carrier === "server" ? shop.server?.stop(5_000) : shop.module.stop?.());
      assert.equal(await ended, undefined);
    });
  });
}

describe("Watching orders", () => {
  let shop: Shop;
  afterEach(() => shop.close());

  const ways: readonly [Protocol, "1.1" | "2"][] = [
    ["Connect JSON", "1.1"],
    ["Connect protobuf", "1.1"],
    ["Connect protobuf", "2"],
    ["gRPC", "2"],
    ["gRPC-Web", "1.1"],
    ["gRPC-Web", "2"],
  ];
  const streamsOf = (orderId: string) =>
    ways.map(([protocol, httpVersion]) => {
      const interceptors = [signedIn(shop.keys, { account: shop.buyer })];
      const client = createClient(OrderService, transportOf(protocol, shop.server?.url ?? "", interceptors, httpVersion));
      return watched((signal) => client.watchOrder({ orderId }, { signal }));
    });

  it("works over every protocol, and every change is there before the next is made", async () => {
    shop = await openShop("server");
    const orderId = await placed(shop);
    const streams = streamsOf(orderId);
    const next = () => Promise.all(streams.map((stream) => stream.nextSequence()));
    assert.deepEqual(new Set(await next()), new Set([2]));
    await shop.as({ account: shop.seller }).shipOrder({ requestId: newId(), orderId, carrier: "UPS" });
    assert.deepEqual(new Set(await next()), new Set([3]));
    await shop.as({ account: shop.buyer }).confirmOrder({ requestId: newId(), orderId, rating: { stars: 5 } });
    const last = await Promise.all(
      streams.map(async (stream) => {
        let sequence = 0;
        for (let shown = await stream.nextSequence(); shown !== undefined; shown = await stream.nextSequence()) sequence = shown;
        return sequence;
      }),
    );
    assert.deepEqual(new Set(last), new Set([5]));
  });

  it("ends well at its maximum age, over every protocol, after what it has shown", async () => {
    shop = await openShop("server");
    const orderId = await placed(shop);
    const original = globalThis.setTimeout;
    let aged = 0;
    // Ten minutes pass quickly here, and every other time as always.
    const quick = (work: () => void, ms = 0, ...rest: unknown[]) => {
      const isAge = ms > 590_000 && ms <= 600_000;
      if (isAge) aged++;
      return Reflect.apply(original, globalThis, [work, isAge ? 500 : ms, ...rest]);
    };
    globalThis.setTimeout = Object.assign(quick, original) as typeof setTimeout;
    try {
      const streams = streamsOf(orderId);
      for (const stream of streams) assert.equal(await stream.nextSequence(), 2);
      for (const stream of streams) assert.equal(await stream.next(), undefined);
      assert.equal(aged, ways.length);
    } finally {
      globalThis.setTimeout = original;
    }
  });

  it("costs one query however many watch, and none when nobody does", async () => {
    shop = await openShop("memory", { watch: { pollMs: 20 } });
    const orderIds = [await placed(shop), await placed(shop)];
    const streams = orderIds.flatMap((id) => Array.from({ length: 8 }, () => watch(shop, { account: shop.buyer }, id)));
    for (const stream of streams) assert.equal(await stream.nextSequence(), 2);
    const statements = await statementsDuring(async () => {
      await sleep(300);
    });
    assert.ok(statements.length > 2, "somebody looks");
    assert.deepEqual(new Set(statements.map(({ parameters }) => parameters.length)), new Set([2]));
    for (const stream of streams) stream.end();
    // The streams take a moment to end.
    for (const end = Date.now() + 10_000; (await statementsDuring(() => sleep(100))).length > 0; ) {
      assert.ok(Date.now() < end, "somebody still looks");
    }
  });
});

/** The statements that ask for the versions of watched orders while `work` goes on. */
async function statementsDuring(work: () => Promise<unknown>): Promise<Statement[]> {
  const seen: Statement[] = [];
  const note = (message: unknown) => {
    const statement = message as Statement;
    if (statement.service === "order" && /^select .?order_id.?, .?version.? from .?orders/.test(statement.sql))
      seen.push(statement);
  };
  subscribe("souk.statement", note);
  try {
    await work();
  } finally {
    unsubscribe("souk.statement", note);
  }
  return seen;
}
