// Uses Redis as the marketplace does, whatever the form of its URL; as a program for each URL it is given, and says "works" or what is wrong.

import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import { anyPack, timestampNow } from "@bufbuild/protobuf/wkt";
import { type Event, EventSchema } from "#gen/marketplace/event/v1/event_pb.ts";
import { StockChangedSchema } from "#gen/marketplace/inventory/v1/events_pb.ts";
import { RedisStore } from "#runtime/cache/redis-store.ts";
import type { Change } from "#runtime/cache/store.ts";
import { redisBus } from "#runtime/events/redis-bus.ts";
import { newId } from "#runtime/ids.ts";
import { openRedis, redisReady } from "#runtime/redis.ts";
import { quietLog } from "../support/database.ts";
import { until } from "../support/redis-forms.ts";
import { textCodec } from "./cached-text.ts";

/** Fails with the sentence that a start says when it cannot be reached. */
export async function reach(url: string): Promise<void> {
  const client = openRedis({ url, log: quietLog, name: "probe" });
  try {
    await redisReady(client, 3_000);
  } finally {
    client.disconnect();
  }
}

/** Sends events over a bus, which come in order. */
export async function useBus(url: string): Promise<void> {
  const bus = redisBus({ url, log: quietLog, prefix: `{test-${newId()}}`, consumers: ["test.one"] });
  const came: Event[] = [];
  bus.subscribe({
    consumer: "test.one",
    service: "test",
    types: [StockChangedSchema.typeName],
    handle: async (events) => void came.push(...events),
  });
  await reach(url);
  const events = Array.from({ length: 200 }, (_, index) =>
    create(EventSchema, {
      eventId: newId(),
      source: "inventory",
      aggregateType: "stock",
      aggregateId: `a${index % 10}`,
      sequence: BigInt(Math.floor(index / 10) + 1),
      eventTime: timestampNow(),
      payload: anyPack(StockChangedSchema, create(StockChangedSchema)),
    }),
  );
  // The bus has connections of its own, which may be there a little later.
  await until(() =>
    bus.publish(events).then(
      () => true,
      () => false,
    ),
  );
  const once = [...new Map(came.map((event) => [event.eventId, event])).values()];
  assert.equal(once.length, events.length);
  for (const each of Map.groupBy(once, ({ aggregateId }) => aggregateId).values()) {
    assert.deepEqual(
      each.map(({ sequence }) => Number(sequence)),
      Array.from({ length: 20 }, (_, index) => index + 1),
    );
  }
  await bus.close();
}

/** Two processes' stores of a cache see each other's values and changes, of keys that a Cluster has on all its nodes. */
export async function useCache(url: string): Promise<void> {
  const options = { url, log: quietLog, codec: textCodec, channel: `cache-${newId()}`, timeoutMs: 5_000 };
  const [one, two] = [new RedisStore(options), new RedisStore(options)];
  try {
    const heard: Change[] = [];
    two.onMark((changes) => heard.push(...changes));
    const warm = { key: newId(), version: 1 };
    await until(async () => (await one.mark([warm])) && (await two.mark([warm])) && heard.length > 0);
    heard.length = 0;
    const keys = Array.from({ length: 20 }, () => newId());
    const values = keys.map((key) => ({
      key,
      entry: { value: `${key} 1`, version: 1, loadMs: 1, expireTime: Date.now() + 60_000 },
    }));
    // A node of a Cluster that is not connected to yet has nothing and takes nothing.
    await until(async () => {
      await one.put(values);
      return (await two.get(keys)).every((found, index) => found?.value === values[index]?.entry.value);
    });
    assert.ok(await one.mark(keys.map((key) => ({ key, version: 2 }))));
    await two.put(values);
    assert.deepEqual(
      (await two.get(keys)).map((found) => [found?.value, found?.version]),
      keys.map(() => [undefined, 2]),
    );
    await until(() => keys.every((key) => heard.some((change) => change.key === key && change.version === 2)));
  } finally {
    one.close();
    two.close();
  }
}

if (import.meta.main) {
  for (const url of process.argv.slice(2)) {
    try {
      await reach(url);
      await useBus(url);
      await useCache(url);
      console.log("works");
    } catch (error) {
      console.log((error as Error).message);
    }
  }
}
