import type { DescMethodUnary, Message, Registry } from "@bufbuild/protobuf";
import type { ConnectError } from "@connectrpc/connect";
import type { Log } from "#runtime/log.ts";
import type { UnaryCall } from "#runtime/rpc/call.ts";
import type { Watch } from "#runtime/rpc/watch.ts";
import type { CallObserver } from "#runtime/telemetry/observer.ts";

/** What every call of a method owes, whatever carries it. */
export interface UnaryDuties {
  /** Who calls, and whether they may; before anything of the request is read. Throws what the caller is told. */
  admit(call: UnaryCall): void | Promise<void>;
  /** Whether the message keeps the rules at its fields. Throws what the caller is told. */
  check(call: UnaryCall, message: Message): void;
  /** The error as the caller may see it. */
  presentable(call: UnaryCall, error: unknown): ConnectError;
  /** The outcome, once; undefined is success. */
  ended(call: UnaryCall, error: ConnectError | undefined): void;
  /** The log of a handler's own lines. */
  logFor(call: UnaryCall): Log;
  /** Headers that a handler does not see, such as those that say who calls. */
  readonly hiddenHeaders: ReadonlySet<string>;
}

/** A unary method with all that its calls need, made once. */
export interface UnaryMethod {
  readonly desc: DescMethodUnary;
  readonly implementation: (message: Message, call: UnaryCall) => unknown;
  /** The longest a call takes, in ms. */
  readonly timeoutMs: number;
  /** What a `google.protobuf.Any` of its messages may hold as JSON. */
  readonly types: Registry;
  /** The largest request message in bytes, before and after decompression. */
  readonly maxRequestBytes: number;
  /** The largest answer in bytes. */
  readonly maxResponseBytes: number;
  /** Whether it is called with GET, too. */
  readonly readsOnly: boolean;
  /** The `cache-control` of an answer to GET. */
  cacheControl(call: UnaryCall): string;
  readonly duties: UnaryDuties;
  readonly watch: Watch;
  readonly observer: CallObserver | undefined;
}
