import assert from "node:assert/strict";
import { fork } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { Cache, type Loaded } from "#runtime/cache/cache.ts";
import { MemoryStore } from "#runtime/cache/memory-store.ts";
import { NearStore } from "#runtime/cache/near-store.ts";
import { RedisStore } from "#runtime/cache/redis-store.ts";
import type { CacheStore, Entry } from "#runtime/cache/store.ts";
import { newId } from "#runtime/ids.ts";
import { openRedis, redisReady } from "#runtime/redis.ts";
import type { PrivateServer } from "../../tools/stores/private.ts";
import { startRedis } from "../../tools/stores/redis.ts";
import { quietLog } from "../support/database.ts";
import { testStores } from "../support/stores.ts";
import { textCodec } from "./cached-text.ts";

/** Longer than any pause of a busy machine: these tests are not about slowness. */
const PATIENT = { timeoutMs: 5_000 };

function memory(options: { maxBytes?: number; ttlMaxMs?: number } = {}): MemoryStore<string> {
  return new MemoryStore<string>({ maxBytes: 1_000_000, sizeOf: (text) => text.length, ...options });
}

/** Gives it up after a pause that a busy machine cannot make. */
const IMPATIENT = { timeoutMs: 500 };

async function connected(url: string, options: { timeoutMs?: number } = PATIENT): Promise<RedisStore<string>> {
  const store = new RedisStore({ url, log: quietLog, codec: textCodec, channel: `cache-${newId()}`, ...options });
  await until(() => store.mark([{ key: `warm-${newId()}`, version: 1 }]));
  return store;
}

/** A store in the process before one in Redis, once it hears. */
async function layered(url: string): Promise<NearStore<string>> {
  const far = await connected(url);
  const near = memory({ ttlMaxMs: 60_000 });
  const store = new NearStore(near, far);
  const key = newId();
  // It keeps nothing near before it hears.
  await until(async () => {
    await store.put([{ key, entry: entry("x", 1) }]);
    return near.look(key) !== undefined;
  });
  return store;
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  const end = performance.now() + 18_000;
  while (!(await condition())) {
    assert.ok(performance.now() < end, "waited in vain");
    await sleep(5);
  }
}

function entry(value: string | undefined, version: number, ttlMs = 60_000): Entry<string> {
  return { value, version, expireTime: Date.now() + ttlMs, loadMs: 1 };
}

const kinds: Record<string, () => Promise<CacheStore<string>>> = {
  "in the process": async () => memory(),
  "in Redis": async () => connected((await testStores()).redisUrl),
  "in Redis with one in the process before it": async () => layered((await testStores()).redisUrl),
};

for (const [kind, open] of Object.entries(kinds)) {
  describe(`a cache ${kind}`, () => {
    let store: CacheStore<string>;
    let key: string;
    /** What the truth is, and how often it was asked for. */
    let truth: Loaded<string>;
    let loads: number;
    let meanwhile: (() => Promise<void>) | undefined;

    before(async function () {
      this.timeout(120_000);
      await testStores();
    });
    beforeEach(async () => {
      store = await open();
      key = newId();
      truth = { value: "first", version: 1, ttlMs: 60_000 };
      loads = 0;
      meanwhile = undefined;
    });
    afterEach(() => store.close());

    function cache(format = 1): Cache<string> {
      return new Cache<string>({
        name: "test",
        format,
        store,
        load: async (ids) => {
          loads++;
          const found = truth;
          await meanwhile?.();
          return new Map(ids.map((id) => [id, found]));
        },
      });
    }
    /** What the store holds now; a cache does not wait until it has what was loaded. */
    async function held(id: string): Promise<Entry<string> | undefined> {
      return (await store.get([`souk.cache:test:1:${id}`]))[0];
    }
    async function remembers(id: string, value: string): Promise<void> {
      await until(async () => (await held(id))?.value === value);
    }

    it("holds what was put, and nothing older over it", async () => {
      await store.put([{ key, entry: entry("two", 2) }]);
      await store.put([{ key, entry: entry("one", 1) }]);
      assert.equal((await store.get([key, newId()]))[0]?.value, "two");
      await store.put([{ key, entry: entry("two again", 2) }]);
      const [again, nothing] = await store.get([key, newId()]);
      assert.deepEqual([again?.value, again?.version, nothing], ["two again", 2, undefined]);
    });

    it("drops what is older than a mark, refuses it from then on, and keeps what is as new", async () => {
      await store.put([{ key, entry: entry("one", 1) }]);
      assert.equal(await store.mark([{ key, version: 2 }]), true);
      await store.put([{ key, entry: entry("one", 1) }]);
      assert.equal((await store.get([key]))[0]?.value, undefined);
      await store.put([{ key, entry: entry("two", 2) }]);
      await store.mark([{ key, version: 2 }]);
      assert.equal((await store.get([key]))[0]?.value, "two");
    });

    it("holds a short-lived value in the way of older ones after its end", async () => {
      await store.put([{ key: `souk.cache:test:1:${key}`, entry: entry("gone", 2, 30) }]);
      await sleep(40);
      await store.put([{ key: `souk.cache:test:1:${key}`, entry: entry("one", 1) }]);
      truth = { value: "two", version: 2, ttlMs: 60_000 };
      assert.deepEqual(await cache().get([key]), ["two"]);
      assert.equal(loads, 1);
    });

    it("loads once what many ask for at once, and then no more", async () => {
      const asked = cache();
      meanwhile = () => sleep(20);
      const values = await Promise.all(Array.from({ length: 100 }, () => asked.get([key])));
      assert.deepEqual(new Set(values.flat()), new Set(["first"]));
      assert.equal(loads, 1);
      await remembers(key, "first");
      assert.deepEqual(await asked.get([key]), ["first"]);
      assert.equal(loads, 1);
    });

    it("gives many in the order of asking, and loads those that are missing by one load", async () => {
      const [a, b, c] = [newId(), newId(), newId()];
      const asked = cache();
      await asked.get([b]);
      await remembers(b, "first");
      truth = { value: "later", version: 5, ttlMs: 60_000 };
      assert.deepEqual(await asked.get([a, b, c]), ["later", "first", "later"]);
      assert.equal(loads, 2);
    });

    it("does not remember an old row that was read before a change and comes after it", async () => {
      const asked = cache();
      meanwhile = async () => {
        meanwhile = undefined;
        truth = { value: "second", version: 2, ttlMs: 60_000 };
        assert.equal(await asked.changed([{ id: key, version: 2 }]), true);
      };
      assert.deepEqual(await asked.get([key]), ["first"]);
      assert.deepEqual(await asked.get([key]), ["second"]);
      await remembers(key, "second");
      assert.deepEqual(await asked.get([key]), ["second"]);
      assert.equal(loads, 2);
    });

    it("gives nobody who asks after a change what was read before it", async () => {
      const asked = cache();
      const gate = Promise.withResolvers<void>();
      meanwhile = () => gate.promise;
      const early = asked.get([key]);
      await until(() => loads === 1);
      meanwhile = undefined;
      truth = { value: "second", version: 2, ttlMs: 60_000 };
      await asked.changed([{ id: key, version: 2 }]);
      assert.deepEqual(await asked.get([key]), ["second"]);
      gate.resolve();
      assert.deepEqual(await early, ["first"]);
      assert.deepEqual(await asked.get([key]), ["second"]);
    });

    it("fails as the load fails, for all who wait, and tries again for the next", async () => {
      const asked = cache();
      meanwhile = async () => {
        await sleep(5);
        throw new Error("the database is away");
      };
      const results = await Promise.allSettled([asked.get([key]), asked.get([key]), asked.get([key, newId()])]);
      assert.deepEqual(new Set(results.map(({ status }) => status)), new Set(["rejected"]));
      meanwhile = undefined;
      assert.deepEqual(await asked.get([key]), ["first"]);
    });

    it("loads anew what has ended", async () => {
      truth = { value: "first", version: 0, ttlMs: 40 };
      const asked = cache();
      await asked.get([key]);
      await sleep(60);
      truth = { value: "second", version: 0, ttlMs: 60_000 };
      assert.deepEqual(await asked.get([key]), ["second"]);
    });

    it("lets one load anew a little before the end, while all still have the old value", async () => {
      const asked = cache();
      const id = `souk.cache:test:1:${key}`;
      // So costly to load that its time has come, whatever chance says.
      await store.put([{ key: id, entry: { value: "old", version: 1, expireTime: Date.now() + 30_000, loadMs: 1e12 } }]);
      assert.deepEqual(await asked.get([key]), ["old"]);
      await remembers(key, "first");
      assert.deepEqual(await asked.get([key]), ["first"]);
      assert.equal(loads, 1);
    });

    it("does not find what another format stored", async () => {
      await cache(1).get([key]);
      await remembers(key, "first");
      truth = { value: "of format 2", version: 1, ttlMs: 60_000 };
      assert.deepEqual(await cache(2).get([key]), ["of format 2"]);
    });
  });
}

describe("a store in the process", () => {
  it("is bounded, and forgets first what was not asked for the longest", async () => {
    const store = memory({ maxBytes: 10_000 });
    const put = (key: string) => store.put([{ key, entry: entry("x".repeat(500), 1) }]);
    await put("kept");
    for (let i = 0; i < 100; i++) {
      await put(`other ${i}`);
      assert.equal(store.look("kept")?.version, 1);
      assert.ok(store.bytes <= 10_000);
    }
    assert.equal(store.look("other 0"), undefined);
    assert.equal(store.look("other 99")?.version, 1);
    for (let i = 0; i < 100; i++) await store.mark([{ key: `mark ${i}`, version: 1 }]);
    assert.ok(store.bytes <= 10_000);
    store.clear();
    assert.equal(store.bytes, 0);
  });
});

describe("a cache of several processes", () => {
  let redis: PrivateServer;
  before(async function () {
    this.timeout(120_000);
    redis = await startRedis();
  });
  after(() => redis.stop());

  it("loads a value that is missing at most once in each, however many ask", async () => {
    const name = newId();
    const program = new URL("cache-reader.ts", import.meta.url);
    const readers = Array.from({ length: 2 }, () => fork(program, [redis.url, name, "100"]));
    await Promise.all(readers.map((reader) => once(reader, "message")));
    const answers = readers.map((reader) => once(reader, "message"));
    for (const reader of readers) reader.send("go");
    const told = (await Promise.all(answers)).map(([answer]) => answer as { loads: number; right: boolean });
    assert.ok(
      told.every(({ loads, right }) => right && loads <= 1),
      JSON.stringify(told),
    );
    assert.ok(told.some(({ loads }) => loads === 1));
  });

  it("keeps marketplaces with prefixes of their own apart in one Redis, their values and their marks", async () => {
    const open = (prefix: string) => new RedisStore({ url: redis.url, prefix, log: quietLog, codec: textCodec, ...PATIENT });
    const [one, another, other] = [open(`a-${newId()}.`), open(`b-${newId()}.`), open("")];
    const heard: string[] = [];
    for (const store of [another, other]) store.onMark((changes) => heard.push(...changes.map(({ key }) => key)));
    const own = new Promise<void>((resolve) => one.onMark(() => resolve()));
    const key = newId();
    await until(async () => {
      await one.put([{ key, entry: entry("one", 1) }]);
      return (await one.get([key]))[0]?.value === "one";
    });
    assert.deepEqual([(await another.get([key]))[0], (await other.get([key]))[0]], [undefined, undefined]);
    await until(() => one.mark([{ key, version: 2 }]));
    await own;
    assert.equal((await one.get([key]))[0]?.value, undefined);
    assert.deepEqual(heard, []);
    for (const store of [one, another, other]) store.close();
  });

  it("shows a change to those who keep it near, too", async () => {
    const channel = `cache-${newId()}`;
    const open = () => {
      const near = memory({ ttlMaxMs: 3_600_000 });
      const far = new RedisStore({ url: redis.url, log: quietLog, codec: textCodec, channel, ...PATIENT });
      return { near, store: new NearStore(near, far) };
    };
    const [one, other] = [open(), open()];
    const key = newId();
    for (const { near, store } of [one, other]) {
      await until(async () => {
        await store.put([{ key, entry: entry("one", 1) }]);
        return near.look(key) !== undefined;
      });
    }
    await one.store.mark([{ key, version: 2 }]);
    await until(() => other.near.look(key)?.value === undefined);
    assert.equal((await other.store.get([key]))[0]?.value, undefined);
    // What it was about to keep near from before the change is refused.
    await other.near.put([{ key, entry: entry("one", 1) }]);
    assert.equal(other.near.look(key)?.value, undefined);
    one.store.close();
    other.store.close();
  });
});

describe("a cache whose Redis fails", () => {
  let redis: PrivateServer;
  let store: NearStore<string>;
  let cache: Cache<string>;
  let version: number;

  beforeEach(async function () {
    this.timeout(120_000);
    redis = await startRedis();
    version = 1;
    store = new NearStore(memory({ ttlMaxMs: 1_000 }), await connected(redis.url, IMPATIENT));
    cache = new Cache<string>({
      name: "test",
      format: 1,
      store,
      load: async (ids) => new Map(ids.map((id) => [id, { value: `${id} ${version}`, version, ttlMs: 60_000 }])),
    });
  });
  afterEach(async () => {
    cache.close();
    await redis.stop();
  });

  /** Reads of many keys at once, again and again, all right. */
  async function readsWork(): Promise<void> {
    for (let round = 0; round < 5; round++) {
      const ids = Array.from({ length: 20 }, () => newId());
      const values = await Promise.all(ids.map((id) => cache.get([id])));
      assert.deepEqual(
        values.flat(),
        ids.map((id) => `${id} ${version}`),
      );
    }
  }

  it("loads while Redis does not answer, says that it cannot tell of changes, and uses it again", async () => {
    await readsWork();
    process.kill(redis.pid, "SIGSTOP");
    try {
      await readsWork();
      assert.equal(await cache.changed([{ id: "x", version: 2 }]), false);
    } finally {
      process.kill(redis.pid, "SIGCONT");
    }
    await until(() => cache.changed([{ id: "x", version: 2 }]));
  });

  it("waits for a Redis that does not answer a few times only", async () => {
    process.kill(redis.pid, "SIGSTOP");
    try {
      await readsWork();
      const start = performance.now();
      const reads = 30;
      for (let i = 0; i < reads; i++) await cache.get([newId()]);
      // The bound is what it would take to wait every other time.
      assert.ok(performance.now() - start < (reads * IMPATIENT.timeoutMs) / 2, `${performance.now() - start} ms`);
    } finally {
      process.kill(redis.pid, "SIGCONT");
    }
  });

  it("loads when Redis is killed, and when it was emptied", async () => {
    await cache.get(["kept"]);
    const client = openRedis({ url: redis.url, log: quietLog, name: "test" });
    await redisReady(client, 5_000);
    await client.flushall();
    client.disconnect();
    version = 2;
    // What is kept near may be as old as a second.
    await until(async () => (await cache.get(["kept"]))[0] === "kept 2");
    process.kill(redis.pid, "SIGKILL");
    await redis.exited;
    await readsWork();
    assert.equal(await cache.changed([{ id: "kept", version: 3 }]), false);
  });

  it("takes bytes that it does not understand for nothing", async () => {
    const client = openRedis({ url: redis.url, log: quietLog, name: "test" });
    await redisReady(client, 5_000);
    const id = newId();
    await client.set(`souk.cache:test:1:${id}`, "x");
    assert.deepEqual(await cache.get([id]), [`${id} 1`]);
    await until(async () => (await client.strlen(`souk.cache:test:1:${id}`)) > 1);
    client.disconnect();
  });
});
