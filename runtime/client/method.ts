import { type DescMethod, fromBinary, type Message, toBinary } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";

/** What is allowed of a method. */
export interface MethodBounds {
  /** The longest a call takes, in ms; undefined where nothing but the caller's deadline bounds it. */
  readonly timeoutMs?: number | undefined;
  /** How often a call may be tried in all; 1 unless given, and always 1 where the idempotency level allows no more. */
  readonly maxAttempts?: number | undefined;
}

/** A method as it is called. */
export interface Method<M extends DescMethod = DescMethod> {
  readonly desc: M;
  readonly path: string;
  readonly timeoutMs: number;
  readonly maxAttempts: number;
  serialize(message: Message): Buffer;
  deserialize(bytes: Buffer): Message;
}

/** What became of the calls of a client, for tests and figures. */
export interface Attempts {
  /** Calls as the calling code sees them. */
  calls: number;
  /** How often one was sent. */
  sent: number;
  /** How often one was sent again that had failed. */
  retried: number;
  /** How often one was sent again that no server had begun. */
  resent: number;
}

/** Prepares a method for being called. */
export function methodOf<M extends DescMethod>(desc: M, { timeoutMs, maxAttempts }: MethodBounds): Method<M> {
  const { input, output } = desc;
  const repeatable = desc.idempotency !== MethodOptions_IdempotencyLevel.IDEMPOTENCY_UNKNOWN;
  return {
    desc,
    path: `/${desc.parent.typeName}/${desc.name}`,
    timeoutMs: timeoutMs ?? Number.POSITIVE_INFINITY,
    maxAttempts: repeatable ? (maxAttempts ?? 1) : 1,
    serialize(message) {
      try {
        const bytes = toBinary(input, message);
        return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      } catch (error) {
        throw new ConnectError(`serialize binary: ${(error as Error).message}`, Code.Internal, undefined, undefined, error);
      }
    },
    deserialize(bytes) {
      try {
        return fromBinary(output, bytes);
      } catch (error) {
        throw new ConnectError(`parse binary: ${(error as Error).message}`, Code.Internal, undefined, undefined, error);
      }
    },
  };
}
