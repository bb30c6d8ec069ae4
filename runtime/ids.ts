import { randomFillSync } from "node:crypto";

const pool = new Uint8Array(4096);
let used = pool.length;
let lastTime = 0;
let counter = 0;

/**
 * A new id: lower-case UUID version 7 text (RFC 9562). Ids made by one process sort in the order they were made: 48 bits of
 * milliseconds, then a 12-bit counter within the millisecond, then 62 random bits.
 */
export function newId(): string {
  const now = Date.now();
  if (now > lastTime) {
    lastTime = now;
    counter = 0;
  } else if (++counter > 0xfff) {
    // The counter is used up, or the clock went back: borrow the next millisecond rather than break the order.
    lastTime++;
    counter = 0;
  }
  if (used + 8 > pool.length) {
    randomFillSync(pool);
    used = 0;
  }
  let random = "";
  for (let i = 0; i < 8; i++) {
    const byte = pool[used++] as number;
    random += (i === 0 ? (byte & 0x3f) | 0x80 : byte).toString(16).padStart(2, "0");
  }
  const time = lastTime.toString(16).padStart(12, "0");
  const count = counter.toString(16).padStart(3, "0");
  return `${time.slice(0, 8)}-${time.slice(8)}-7${count}-${random.slice(0, 4)}-${random.slice(4)}`;
}
