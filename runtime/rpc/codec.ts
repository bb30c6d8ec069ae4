import { type DescMessage, fromBinary, fromJsonString, type Message, type Registry, toJsonString } from "@bufbuild/protobuf";
import { failure, MALFORMED_REQUEST, UNKNOWN_FIELD } from "#runtime/errors.ts";
import { bytesOf } from "#runtime/rpc/encoded.ts";

/** How a message becomes bytes and back. */
export interface Codec {
  readonly name: "proto" | "json";
  /** Fails with MALFORMED_REQUEST or UNKNOWN_FIELD. */
  parse(schema: DescMessage, bytes: Uint8Array, types: Registry): Message;
  /** Any values are written as messages of `types`. */
  serialize(schema: DescMessage, message: Message, types: Registry): Uint8Array;
}

/** Protobuf's binary format. */
export const protoCodec: Codec = {
  name: "proto",
  parse(schema, bytes) {
    try {
      return fromBinary(schema, bytes);
    } catch (cause) {
      throw failure(MALFORMED_REQUEST, { message: `The request cannot be read: ${(cause as Error).message.slice(0, 300)}`, cause });
    }
  },
  serialize: bytesOf,
};

const UNKNOWN_KEY = /key "(.{1,100}?)" is unknown/;

/** Protobuf's JSON format. A field that does not exist is refused rather than ignored: a misspelt one would be. */
export const jsonCodec: Codec = {
  name: "json",
  parse(schema, bytes, registry) {
    try {
      const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString();
      return fromJsonString(schema, text, { ignoreUnknownFields: false, registry });
    } catch (cause) {
      const text = (cause as Error).message;
      const field = UNKNOWN_KEY.exec(text)?.[1];
      if (field === undefined) {
        throw failure(MALFORMED_REQUEST, { message: `The request cannot be read: ${text.slice(0, 300)}`, cause });
      }
      throw failure(UNKNOWN_FIELD, { message: `The request has a field "${field}" that does not exist.`, metadata: { field } });
    }
  },
  serialize: (schema, message, registry) => Buffer.from(toJsonString(schema, message, { registry })),
};
