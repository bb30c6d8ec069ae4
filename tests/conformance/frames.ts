import type { Readable } from "node:stream";
import { type DescMessage, fromBinary, type MessageShape, toBinary } from "@bufbuild/protobuf";

/** The runner's messages on a stream: each after its size in four bytes. Ends with the stream. */
export async function* readFrames<S extends DescMessage>(schema: S, stream: Readable): AsyncGenerator<MessageShape<S>> {
  let seen = Buffer.alloc(0);
  for await (const chunk of stream) {
    seen = Buffer.concat([seen, chunk]);
    while (seen.length >= 4 && seen.length >= 4 + seen.readUInt32BE()) {
      const end = 4 + seen.readUInt32BE();
      yield fromBinary(schema, seen.subarray(4, end));
      seen = seen.subarray(end);
    }
  }
}

/** One message as the runner reads it. */
export function frame<S extends DescMessage>(schema: S, message: MessageShape<S>): Uint8Array {
  const bytes = toBinary(schema, message);
  const size = Buffer.alloc(4);
  size.writeUInt32BE(bytes.length);
  return Buffer.concat([size, bytes]);
}
