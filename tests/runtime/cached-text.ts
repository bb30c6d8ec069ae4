// Texts as what is cached in tests.

import { setTimeout as sleep } from "node:timers/promises";
import type { Loaded } from "#runtime/cache/cache.ts";
import type { Codec } from "#runtime/cache/store.ts";

/** Texts in UTF-8. */
export const textCodec: Codec<string> = {
  encode: (text) => new TextEncoder().encode(text),
  decode: (bytes) => new TextDecoder().decode(bytes),
};

/** Loads "<id> 1" of version 1, and takes its time. */
export async function slowly(ids: readonly string[]): Promise<Map<string, Loaded<string>>> {
  await sleep(100);
  return new Map(ids.map((id) => [id, { value: `${id} 1`, version: 1, ttlMs: 60_000 }]));
}
