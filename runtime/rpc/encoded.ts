import { type DescMessage, fromBinary, type Message, type MessageShape, toBinary } from "@bufbuild/protobuf";

/** The bytes of messages that were written or read as a whole and are handed on unchanged. */
const encoded = new WeakMap<Message, Uint8Array>();

/** Remembers the bytes of a message that nobody changes from here on: an answer that is stored, a request that is served. */
export function rememberBytes(message: Message, bytes: Uint8Array): void {
  encoded.set(message, bytes);
}

/** A message as bytes: those it was stored or came with, where they are known. */
export function bytesOf(schema: DescMessage, message: Message): Uint8Array {
  return encoded.get(message) ?? toBinary(schema, message);
}

/** A message from bytes that our own programs wrote, for who hands it on. */
export function messageOf<D extends DescMessage>(schema: D, bytes: Uint8Array): MessageShape<D> {
  const message = fromBinary(schema, bytes);
  encoded.set(message, bytes);
  return message;
}
