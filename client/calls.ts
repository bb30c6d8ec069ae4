import { create, type DescMessage, type DescMethod, type MessageInitShape, toJsonString } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel as Level } from "@bufbuild/protobuf/wkt";

/** Makes a `request_id`: one for each command. Keep it until the command has been answered, and repeat the command with the same one. */
export function newRequestId(): string {
  // crypto.randomUUID is there on secure pages only.
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Whether a call of the method may be sent again: it changes nothing, or it carries a `request_id`, so that it takes effect once. */
export function isRepeatable(method: DescMethod): boolean {
  return method.idempotency === Level.NO_SIDE_EFFECTS || method.idempotency === Level.IDEMPOTENT;
}

/** Whether the method changes nothing, so that it may be sent as a GET and its answer kept. */
export function isRead(method: DescMethod): boolean {
  return method.idempotency === Level.NO_SIDE_EFFECTS;
}

/** A key for what a read answers: equal requests have equal keys, and JSON can hold it. */
export function queryKey<I extends DescMessage>(
  method: DescMethod & { readonly input: I },
  request: MessageInitShape<I>,
): readonly [method: string, request: string] {
  return [`${method.parent.typeName}/${method.name}`, toJsonString(method.input, create(method.input, request))];
}
