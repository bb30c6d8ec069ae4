// A process that asks a cache for one value many times at once, when it is told to, and says how often it had to load it.

import { Cache } from "#runtime/cache/cache.ts";
import { RedisStore } from "#runtime/cache/redis-store.ts";
import { quietLog } from "../support/database.ts";
import { slowly, textCodec } from "./cached-text.ts";

const [url = "", name = "", count = "0"] = process.argv.slice(2);
const store = new RedisStore({ url, log: quietLog, codec: textCodec, timeoutMs: 5_000 });
let loads = 0;
const cache = new Cache<string>({
  name,
  format: 1,
  store,
  load: async (ids) => {
    loads += ids.length;
    return slowly(ids);
  },
});
process.on("message", async () => {
  const values = await Promise.all(Array.from({ length: Number(count) }, () => cache.get(["hot"])));
  process.send?.({ loads, right: values.every(([value]) => value === "hot 1") });
  cache.close();
  process.disconnect?.();
});
// Only once Redis has answered, so that it is not its absence that is measured.
await store.mark([{ key: "warm", version: 1 }]);
process.send?.("ready");
