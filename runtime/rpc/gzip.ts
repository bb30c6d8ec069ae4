import { promisify } from "node:util";
import * as zlib from "node:zlib";
import { failure, MALFORMED_REQUEST, REQUEST_TOO_LARGE } from "#runtime/errors.ts";

const gzipBytes = promisify<Uint8Array, Buffer>(zlib.gzip);
const gunzipBytes = promisify<Uint8Array, zlib.ZlibOptions, Buffer>(zlib.gunzip);

/** The least an answer must have, in bytes, to be worth compressing. */
export const COMPRESS_MIN_BYTES = 1024;

/** Compresses off the event loop. */
export function compress(bytes: Uint8Array): Promise<Buffer> {
  return gzipBytes(bytes);
}

/** Decompresses off the event loop, and not beyond `maxBytes`. Fails with REQUEST_TOO_LARGE or MALFORMED_REQUEST. */
export async function decompress(bytes: Uint8Array, maxBytes: number): Promise<Uint8Array> {
  if (bytes.length === 0) return bytes;
  try {
    return await gunzipBytes(bytes, { maxOutputLength: maxBytes });
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ERR_BUFFER_TOO_LARGE") throw tooLarge(maxBytes);
    throw failure(MALFORMED_REQUEST, { message: "The request is not compressed as it says.", cause });
  }
}

/** A request of more bytes than its method takes, before or after decompression. */
export function tooLarge(maxBytes: number) {
  return failure(REQUEST_TOO_LARGE, { metadata: { max_bytes: String(maxBytes) } });
}

/** Whether an answer may be compressed: the caller names gzip among what it accepts, or names nothing and sent gzip itself. */
export function acceptsGzip(accepted: string | undefined, sentGzip: boolean): boolean {
  if (accepted === undefined || accepted === "") return sentGzip;
  return accepted.split(",").some((each) => /^\s*gzip\s*(;\s*q=(?!0(\.0*)?\s*$)[\d.]+\s*)?$/i.test(each));
}
