import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { type CallOptions, ConnectError } from "@connectrpc/connect";
import fc from "fast-check";
import { Health, HealthCheckResponse_ServingStatus as Status } from "#gen/grpc/health/v1/health_pb.ts";
import { CatalogService } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { OrderService } from "#gen/marketplace/order/v1/order_pb.ts";
import { callOf } from "#runtime/call.ts";
import { reasonOf, retryAfterMsOf } from "#runtime/errors.ts";
import { type CallClass, createShedding, type Shedding, TICK_MS } from "#runtime/rpc/shedding.ts";
import { onServer, type Protocol, rpcModule } from "../support/server.ts";
import { FRAME, RawPeer, setting } from "./frames.ts";
import { GET_LISTING } from "./load.ts";

const KINDS = ["read", "command", "health", "stream", "health stream"] as const satisfies readonly CallClass[];

/** Whether a call of this kind would be taken now; takes none. */
function takes(shedding: Shedding, kind: CallClass): boolean {
  const taken = shedding.admit(kind) === undefined;
  if (taken) shedding.leave(kind);
  return taken;
}

/**
 * A process whose calls cost a millisecond each, half at their beginning and half at their end, that is offered so many of each kind every second. Counts what
 * became of them over ten seconds, after one to settle; `lateMs` are the delays of the event loop.
 */
function simulate(shedding: Shedding, perSecond: { read: number; command: number }) {
  const taken = { read: 0, command: 0 };
  const refused = { read: 0, command: 0 };
  const lateMs: number[] = [];
  let now = 0;
  let dueTime = TICK_MS;
  let waiting: ("read" | "command")[] = [];
  const owed = { read: 0, command: 0 };
  let sinceTime = 0;
  while (now < 11_000) {
    const begin = now;
    const ended = waiting;
    waiting = [];
    for (const kind of ["read", "command"] as const) {
      owed[kind] += (perSecond[kind] * (now - sinceTime)) / 1000;
      for (; owed[kind] >= 1; owed[kind]--) {
        const isTaken = shedding.admit(kind) === undefined;
        if (now > 1000) (isTaken ? taken : refused)[kind]++;
        if (isTaken) waiting.push(kind);
      }
    }
    sinceTime = begin;
    now = begin + waiting.length * 0.5 + ended.length * 0.5 + 0.05;
    for (const kind of ended) shedding.leave(kind);
    if (now >= dueTime) {
      const late = now - dueTime;
      if (now > 1000) lateMs.push(late);
      shedding.tick(late);
      dueTime = now + TICK_MS;
    }
  }
  return { taken, refused, medianLateMs: lateMs.sort((a, b) => a - b)[Math.floor(lateMs.length / 2)] as number };
}

describe("shedding", () => {
  it("keeps its bounds, refuses reads before commands, and health never, whatever comes in whatever order", () => {
    const step = fc.oneof(
      fc.record({ admit: fc.constantFrom(...KINDS) }),
      fc.record({ leave: fc.nat() }),
      fc.record({ lateMs: fc.oneof(fc.constant(0), fc.double({ min: 0, max: 2000, noNaN: true })) }),
    );
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 60 }),
        fc.integer({ min: 0, max: 5 }),
        fc.array(step, { maxLength: 300 }),
        (maxCalls, maxOpenStreams, steps) => {
          const shedding = createShedding({ maxCalls, maxOpenStreams });
          const open: CallClass[] = [];
          const count = (...kinds: CallClass[]) => open.filter((kind) => kinds.includes(kind)).length;
          for (const each of steps) {
            if ("lateMs" in each) shedding.tick(each.lateMs);
            else if ("leave" in each) {
              const [kind] = open.splice(each.leave % Math.max(1, open.length), 1);
              if (kind !== undefined) shedding.leave(kind);
            } else {
              const pushbackMs = shedding.admit(each.admit);
              if (pushbackMs === undefined) open.push(each.admit);
              else assert.ok(pushbackMs >= 500 && pushbackMs <= 1500 && each.admit !== "health");
            }
            assert.equal(shedding.calls, count("read", "command"));
            assert.ok(shedding.calls <= maxCalls);
            assert.ok(count("stream") <= maxOpenStreams && count("health stream") <= maxOpenStreams);
            assert.ok(shedding.limit >= Math.min(32, maxCalls) && shedding.limit <= maxCalls);
            assert.ok(takes(shedding, "command") || !takes(shedding, "read"), "a command is refused and a read is not");
            assert.equal(takes(shedding, "command"), count("read", "command") < shedding.limit);
            assert.equal(takes(shedding, "stream"), count("stream") < maxOpenStreams);
          }
          for (const kind of open) shedding.leave(kind);
          for (let ticks = 0; ticks < 500; ticks++) shedding.tick(0);
          assert.equal(shedding.limit, maxCalls);
          assert.ok(takes(shedding, "read") && takes(shedding, "command"));
        },
      ),
      { numRuns: 500 },
    );
  });

  it("takes everything when there is less than can be done, and forgives a single pause", () => {
    const shedding = createShedding({ maxCalls: 5000, maxOpenStreams: 1 });
    const { refused } = simulate(shedding, { read: 600, command: 200 });
    assert.deepEqual(refused, { read: 0, command: 0 });
    for (let kept = 0; kept < 100; kept++) shedding.admit("read");
    shedding.tick(3000);
    assert.equal(shedding.limit, 5000);
  });

  it("keeps the event loop turning under three times what can be done, and lets nearly all commands through", () => {
    const perSecond = { read: 2600, command: 400 };
    const { taken, refused, medianLateMs } = simulate(createShedding({ maxCalls: 5000, maxOpenStreams: 1 }), perSecond);
    assert.ok(medianLateMs < 200, `${medianLateMs} ms late`);
    assert.ok(taken.read + taken.command > 8000, `${taken.read + taken.command} of 10000 that could be done`);
    assert.ok(refused.command < 0.1 * (taken.command + refused.command), JSON.stringify({ taken, refused }));
  });

  it("without it, the same load keeps everybody waiting", () => {
    const fixed = createShedding({ maxCalls: 5000, maxOpenStreams: 1 });
    const blind: Shedding = { ...fixed, tick() {} };
    assert.ok(simulate(blind, { read: 2600, command: 400 }).medianLateMs > 500);
  });
});

const LISTING = "0198a0de-0000-7000-8000-000000000001";
const ALICE = "0198a0de-0000-7000-8000-00000000a11c";

describe("a server with more to do than it may", () => {
  let release = Promise.withResolvers<void>();
  let begun = 0;
  const hold = async () => {
    begun++;
    await release.promise;
    return {};
  };
  const modules = [
    rpcModule("catalog", (router) => router.service(CatalogService, { getListing: hold, withdrawListing: hold })),
    rpcModule("order", (router) =>
      router.service(OrderService, {
        async *watchOrder(_, context) {
          begun++;
          yield {};
          const { signal } = callOf(context);
          await new Promise((resolve) => signal.addEventListener("abort", resolve));
        },
      }),
    ),
  ];
  beforeEach(() => {
    release = Promise.withResolvers<void>();
    begun = 0;
  });
  const until = async (count: number) => {
    for (const endTime = Date.now() + 15_000; begun < count; await sleep(5)) assert.ok(Date.now() < endTime, `${begun} have begun`);
  };
  const overloaded = (error: unknown) => {
    assert.equal(reasonOf(error), "OVERLOADED");
    const ms = retryAfterMsOf(error) as number;
    const { metadata } = ConnectError.from(error);
    assert.equal(metadata.get("retry-after"), String(Math.ceil(ms / 1000)));
    assert.equal(metadata.get("grpc-retry-pushback-ms"), String(ms));
    return true;
  };

  for (const protocol of ["Connect JSON", "gRPC", "gRPC-Web"] satisfies Protocol[]) {
    it(`refuses reads, then commands, and tells when to come back, but never health: over ${protocol}`, async () => {
      const subject = await onServer(modules, protocol, { limits: { maxCalls: 5 } });
      try {
        const catalog = subject.client(CatalogService, { account: ALICE });
        const read = () => catalog.getListing({ listingId: LISTING });
        const command = () => catalog.withdrawListing({ listingId: LISTING, requestId: LISTING });
        const held = [read(), read(), read(), read()];
        await until(4);
        await assert.rejects(read(), overloaded);
        // What a service reads it reads for a command.
        held.push(subject.client(CatalogService, { service: "order" }).getListing({ listingId: LISTING }));
        await until(5);
        await assert.rejects(command(), overloaded);
        assert.equal((await subject.client(Health).check({})).status, Status.SERVING);
        assert.equal(begun, 5);
        release.resolve();
        await Promise.all(held);
        await Promise.all([read(), command()]);
      } finally {
        await subject.stop();
      }
    });
  }

  it("gives away the place of a call that it has answered, although nobody takes the answer", async () => {
    const subject = await onServer(modules, "Connect JSON", { limits: { maxCalls: 5 } });
    // Not a byte of an answer goes out on its streams.
    const shut = await RawPeer.open(subject.server.port, setting(4, 0));
    try {
      release.resolve();
      const body = Buffer.from(JSON.stringify({ listingId: LISTING }));
      for (let call = 0; call < 4; call++) shut.call(2 * call + 1, GET_LISTING, body);
      await until(4);
      await subject.client(CatalogService).getListing({ listingId: LISTING });
      assert.equal(shut.of(FRAME.data).length, 0);
      assert.equal(shut.of(FRAME.reset).length, 0);
    } finally {
      shut.close();
      await subject.stop();
    }
  });

  it("counts a call that was left or is too late as long as its handler goes on", async () => {
    const subject = await onServer(modules, "gRPC", { limits: { maxCalls: 5 } });
    try {
      const catalog = subject.client(CatalogService, { account: ALICE });
      const read = (options?: CallOptions) => catalog.getListing({ listingId: LISTING }, options);
      const caller = new AbortController();
      const left = [read({ signal: caller.signal }), read({ signal: caller.signal })];
      await until(2);
      const late = [read({ timeoutMs: 100 }), read({ timeoutMs: 100 })];
      await until(4);
      caller.abort();
      for (const each of [...left, ...late]) await assert.rejects(each);
      // Comes after what was said of the calls that were left.
      await subject.client(Health).check({});
      await assert.rejects(read(), overloaded);
      release.resolve();
      await read();
      assert.equal(subject.server.load.calls, 0);
    } finally {
      await subject.stop();
    }
  });

  it("bounds streams over all connections, those of health apart", async () => {
    const subject = await onServer(modules, "gRPC", { limits: { maxOpenStreams: 1 } });
    try {
      const caller = new AbortController();
      const orders = subject.client(OrderService, { account: ALICE });
      const watch = () => orders.watchOrder({ orderId: LISTING }, { signal: caller.signal })[Symbol.asyncIterator]();
      const first = watch();
      await first.next();
      await assert.rejects(watch().next(), overloaded);
      const health = subject.client(Health).watch({})[Symbol.asyncIterator]();
      assert.equal((await health.next()).value?.status, Status.SERVING);
      caller.abort();
      // Its place is free as soon as the server has heard that it was left.
      for (let message: unknown; message === undefined; await sleep(10)) {
        const next = orders.watchOrder({ orderId: LISTING })[Symbol.asyncIterator]().next();
        message = await next.catch((error: unknown) => void overloaded(error));
      }
    } finally {
      await subject.stop();
    }
  });
});
