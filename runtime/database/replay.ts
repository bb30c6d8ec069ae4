import { createHash } from "node:crypto";
import { create, type DescMessage, type Message, type MessageShape, toBinary } from "@bufbuild/protobuf";
import { base64Decode, base64Encode } from "@bufbuild/protobuf/wire";
import { ConnectError, type HandlerContext } from "@connectrpc/connect";
import type { Kysely } from "kysely";
import { type Call, callOf } from "#runtime/call.ts";
import { fail, REQUEST_ID_REUSED } from "#runtime/errors.ts";
import { bytesOf, messageOf } from "#runtime/rpc/encoded.ts";
import { insertRow, type Statement } from "./compiled.ts";
import type { ReplayTable, RuntimeTables } from "./tables.ts";

/** How long a command's first answer is kept. */
export const REPLAY_MS = 30 * 24 * 3600 * 1000;

/** One command as replay sees it. */
export interface Command {
  /** See `commandKey`. */
  readonly key: string;
  readonly hash: string;
  readonly output: DescMessage;
  readonly call: Call;
  readonly traceparent: string;
}

/** Thrown inside the transaction when the command is already known; ends it, so that the stored answer can be read. */
export class CommandKnown extends Error {}

/** The replay identity of a request. */
export function commandOf(request: Message, context: HandlerContext): Command {
  const { parent, name, input, output } = context.method;
  const hash = createHash("sha256").update(`${parent.typeName}/${name}\0`).update(bytesOf(input, request)).digest("hex");
  const traceparent = context.requestHeader.get("traceparent") ?? "";
  return {
    key: commandKey(request, context),
    hash,
    output,
    call: callOf(context),
    traceparent: traceparent.length <= 256 ? traceparent : "",
  };
}

/**
 * What a command's answer is stored under: caller and request_id.
 *
 * A service is one caller whichever account it acts for: a saga's step repeated by a job, when no account is at hand any more, must meet
 * the first try. (So a service makes ids of its own and never passes on an account's.)
 */
export function commandKey(request: Message, context: HandlerContext): string {
  const requestId = (request as Message & { requestId?: unknown }).requestId;
  if (typeof requestId !== "string" || requestId === "") {
    throw new Error(`${context.method.parent.typeName}/${context.method.name} is a command without a request_id.`);
  }
  return `${callerName(callOf(context))}/${requestId}`;
}

function callerName(call: Call): string {
  switch (call.caller.kind) {
    case "account":
      return `account:${call.caller.accountId}`;
    case "service":
      return `service:${call.caller.service}`;
    default:
      return "anonymous";
  }
}

/** The row of a command that has begun. */
export function insertPending(sql: Kysely<RuntimeTables>, command: Pick<Command, "key" | "hash">, now: number): Statement<unknown> {
  return insertRow(sql, "replay", {
    request_key: command.key,
    request_hash: command.hash,
    state: "pending",
    answer: null,
    create_time: now,
    expire_time: now + REPLAY_MS,
  });
}

/** Refuses a request that is another one than the first under its id. */
export function checkSame(row: Pick<ReplayTable, "request_hash">, command: Command): void {
  if (row.request_hash !== command.hash) {
    fail(REQUEST_ID_REUSED);
  }
}

/** The stored answer; undefined while there is none. A stored error is thrown. */
export function readAnswer<D extends DescMessage>(
  row: { readonly state: ReplayTable["state"]; readonly answer: Uint8Array | null },
  output: D,
): MessageShape<D> | undefined {
  if (row.state === "pending" || row.answer === null) {
    return undefined;
  }
  if (row.state === "failed") {
    throw readError(row.answer);
  }
  return messageOf(output, row.answer);
}

interface StoredError {
  code: number;
  message: string;
  details: { type: string; value: string }[];
}

/** An error as bytes, with its details (reason, metadata, violations). */
export function writeError(error: ConnectError): Uint8Array {
  const details = error.details.map((detail) =>
    "desc" in detail
      ? {
          type: detail.desc.typeName,
          value: base64Encode(toBinary(detail.desc, create(detail.desc, detail.value))),
        }
      : { type: detail.type, value: base64Encode(detail.value) },
  );
  const stored: StoredError = { code: error.code, message: error.rawMessage, details };
  return new TextEncoder().encode(JSON.stringify(stored));
}

/** The error that `writeError` wrote. */
export function readError(bytes: Uint8Array): ConnectError {
  const stored = JSON.parse(new TextDecoder().decode(bytes)) as StoredError;
  const error = new ConnectError(stored.message, stored.code);
  error.details = stored.details.map(({ type, value }) => ({ type, value: base64Decode(value) }));
  return error;
}
