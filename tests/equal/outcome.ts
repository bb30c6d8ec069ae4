import { create, type DescMessage, fromBinary, type JsonValue, type Message, toBinary, toJson } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "#gen/google/rpc/error_details_pb.ts";

/** What a caller gets of a call, in a form that does not depend on what it speaks. */
export interface Outcome {
  /** What was answered, as canonical JSON: one message of a unary call, any number of a stream. */
  readonly messages: readonly JsonValue[];
  /** What went wrong; undefined when nothing did. */
  readonly error?: Failure;
}

/** An error with everything a caller can read of it. */
export interface Failure {
  /** The code's name, such as "NotFound". */
  readonly code: string;
  readonly message: string;
  readonly reason: string;
  readonly domain: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly violations: readonly { field: string; description: string; reason: string }[];
  readonly retryDelay: JsonValue;
  /** The types of the details in their order. */
  readonly details: readonly string[];
}

/** A detail as it travels. */
export interface Detail {
  readonly type: string;
  readonly value: Uint8Array;
}

/** An answer of a method. */
export function answered(output: DescMessage, messages: readonly Message[]): Outcome {
  return { messages: messages.map((message) => toJson(output, message)) };
}

/** A failure, after what a stream had answered before. */
export function failed(code: Code, message: string, details: readonly Detail[], messages: readonly JsonValue[] = []): Outcome {
  const find = (desc: DescMessage) => details.find(({ type }) => type === desc.typeName)?.value ?? new Uint8Array();
  const { reason, domain, metadata } = fromBinary(ErrorInfoSchema, find(ErrorInfoSchema));
  const { fieldViolations } = fromBinary(BadRequestSchema, find(BadRequestSchema));
  return {
    messages,
    error: {
      code: Code[code],
      message,
      reason,
      domain,
      metadata,
      violations: fieldViolations.map((each) => ({ field: each.field, description: each.description, reason: each.reason })),
      retryDelay: toJson(RetryInfoSchema, fromBinary(RetryInfoSchema, find(RetryInfoSchema))),
      details: details.map(({ type }) => type),
    },
  };
}

/** What Connect's libraries throw. */
export function thrown(error: unknown, messages: readonly JsonValue[] = []): Outcome {
  if (!(error instanceof ConnectError)) throw error;
  const details = error.details.map((detail) => {
    if ("type" in detail) return detail;
    // In memory no bytes have been made of it.
    return { type: detail.desc.typeName, value: toBinary(detail.desc, create(detail.desc, detail.value)) };
  });
  return failed(error.code, error.rawMessage, details, messages);
}

/** The code by its name in Connect's JSON, such as "invalid_argument". */
export function codeOf(name: string): Code {
  const found = Object.entries(Code).find(([key]) => key.replace(/(?<!^)([A-Z])/g, "_$1").toLowerCase() === name);
  if (found === undefined) throw new Error(`"${name}" is no code.`);
  return found[1] as Code;
}
