import { create, fromBinary } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "#gen/google/rpc/error_details_pb.ts";
import { ERROR_DOMAIN, retryAfterMsOf, type Violation } from "#runtime/error-details.ts";

export { ERROR_DOMAIN, metadataOf, reasonOf, retryAfterMsOf, type Violation, violationsOf } from "#runtime/error-details.ts";

/** A reason: the machine-readable name of an error, with its code and the sentence a person reads. */
export interface Reason<Name extends string = string> {
  readonly name: Name;
  readonly code: Code;
  readonly message: string;
}

/** What a failure may add to its reason. */
export interface FailureOptions {
  /** Replaces the reason's sentence. It reaches the caller: no secrets, no names of persons. */
  readonly message?: string;
  /** Ids and values that a program may read. They reach the caller. */
  readonly metadata?: Readonly<Record<string, string>>;
  /** Set on failures that are worth another attempt: the least wait in milliseconds. */
  readonly retryAfterMs?: number;
  /** The fields at fault, sent as `google.rpc.BadRequest`. */
  readonly violations?: readonly Violation[];
  /** What led to it. It is logged and never leaves the process. */
  readonly cause?: unknown;
}

/** Declares a reason. Each is written once, in the `errors.ts` of its owner: `export const OUT_OF_STOCK = reason("OUT_OF_STOCK", …)`. */
export function reason<Name extends string>(name: Name, code: Code, message: string): Reason<Name> {
  if (!/^[A-Z][A-Z0-9_]{0,62}$/.test(name)) {
    throw new Error(`The reason "${name}" is not made of 1 to 63 capitals, digits and underscores.`);
  }
  return Object.freeze({ name, code, message });
}

/** The error of a reason, for places that store or return it rather than throw it. */
export function failure(why: Reason, options: FailureOptions = {}): ConnectError {
  // A text may repeat half a character of a request, or cut one in two: gRPC's library cannot write that.
  const text = (options.message ?? why.message).toWellFormed();
  const error = new ConnectError(text, why.code, undefined, undefined, options.cause);
  error.details.push({
    desc: ErrorInfoSchema,
    value: { reason: why.name, domain: ERROR_DOMAIN, metadata: { ...options.metadata } },
  });
  if (options.retryAfterMs !== undefined) {
    const ms = Math.max(0, Math.ceil(options.retryAfterMs));
    setWait(error, ms);
    error.details.push({
      desc: RetryInfoSchema,
      value: { retryDelay: { seconds: BigInt(Math.floor(ms / 1000)), nanos: (ms % 1000) * 1_000_000 } },
    });
  }
  if (options.violations !== undefined && options.violations.length > 0) {
    error.details.push({
      desc: BadRequestSchema,
      value: create(BadRequestSchema, {
        fieldViolations: options.violations.map((v) => ({
          field: v.field,
          description: v.description,
          reason: v.rule ?? "",
        })),
      }),
    });
  }
  return error;
}

/** Ends the call with a reason. */
export function fail(why: Reason, options: FailureOptions = {}): never {
  throw failure(why, options);
}

/**
 * An error that was stored or came from another service as one of our own: its standard details are opened, so that JSON shows them in plain words (`debug`)
 * and not only as bytes, and of the headers that came along only the wait is kept. Any other error is given back as it is.
 */
export function openDetails(error: ConnectError): ConnectError {
  if (!error.details.some((detail) => "type" in detail)) return error;
  const opened = new ConnectError(error.rawMessage, error.code, undefined, undefined, error);
  opened.details = error.details.map((detail) => ("type" in detail ? openDetail(detail) : detail));
  const retryAfterMs = retryAfterMsOf(error);
  if (retryAfterMs !== undefined) setWait(opened, Math.max(0, retryAfterMs));
  return opened;
}

/** One that is not known, or cannot be read, stays as it is. */
function openDetail(detail: IncomingDetail): ConnectError["details"][number] {
  const desc = STANDARD_DETAILS.find((known) => known.typeName === detail.type);
  if (desc === undefined) return detail;
  try {
    return { desc, value: fromBinary(desc, detail.value) };
  } catch {
    return detail;
  }
}

type IncomingDetail = Extract<ConnectError["details"][number], { readonly type: string }>;

/** For those who read no details: HTTP's clients and proxies, and the retries of gRPC's own clients. */
function setWait(error: ConnectError, ms: number): void {
  error.metadata.set("retry-after", String(Math.ceil(ms / 1000)));
  error.metadata.set("grpc-retry-pushback-ms", String(ms));
}

const STANDARD_DETAILS = [ErrorInfoSchema, RetryInfoSchema, BadRequestSchema] as const;

/** The error without our reason and what belongs to it, for contracts that know none. Any other error is given back as it is. */
export function withoutReason(error: ConnectError): ConnectError {
  const isOurs = error.findDetails(ErrorInfoSchema).some(({ domain }) => domain === ERROR_DOMAIN);
  return isOurs ? new ConnectError(error.rawMessage, error.code, error.metadata, [], error.cause) : error;
}

// The runtime's own reasons. A service lists its own in its errors.ts.

/** No token where one is needed. */
export const TOKEN_MISSING = reason(
  "TOKEN_MISSING",
  Code.Unauthenticated,
  "This method needs a token: send it as `Authorization: Bearer …`.",
);
/** The token was good and is not any more. */
export const TOKEN_EXPIRED = reason("TOKEN_EXPIRED", Code.Unauthenticated, "The token has expired. Get a new one.");
/** Forged, malformed, for another audience, of another type, or signed by somebody else. */
export const TOKEN_INVALID = reason("TOKEN_INVALID", Code.Unauthenticated, "The token is not one we accept.");
/** The caller is known and may not do this. */
export const PERMISSION_DENIED = reason("PERMISSION_DENIED", Code.PermissionDenied, "The caller may not call this method.");
/** The request was read, and fields of it break their rules. Each is named in BadRequest. */
export const INVALID_REQUEST = reason("INVALID_REQUEST", Code.InvalidArgument, "The request breaks the rules of its fields.");
/** The request could not be read: broken JSON or protobuf, a wrong type, a body that ends too early. */
export const MALFORMED_REQUEST = reason("MALFORMED_REQUEST", Code.InvalidArgument, "The request cannot be read.");
/** A message is flagged as compressed, and no header says how. gRPC wants this code for it. */
export const COMPRESSION_UNNAMED = reason(
  "COMPRESSION_UNNAMED",
  Code.Internal,
  "A message is flagged as compressed, and no header names the compression.",
);
/** JSON with a field that the message does not have. */
export const UNKNOWN_FIELD = reason("UNKNOWN_FIELD", Code.InvalidArgument, "The request has a field that does not exist.");
/** More bytes than the method takes, after decompression. */
export const REQUEST_TOO_LARGE = reason(
  "REQUEST_TOO_LARGE",
  Code.ResourceExhausted,
  "The request is larger than this method takes.",
);
/** The caller's deadline or the method's timeout passed. A command may still take effect: repeat it with its request_id. */
export const DEADLINE_EXCEEDED = reason(
  "DEADLINE_EXCEEDED",
  Code.DeadlineExceeded,
  "The time for this call ran out. A command may still take effect: repeat it with the same request_id.",
);
/** The caller went away. */
export const CANCELLED = reason("CANCELLED", Code.Canceled, "The caller gave the call up.");
/** The same request_id came with another request. */
export const REQUEST_ID_REUSED = reason(
  "REQUEST_ID_REUSED",
  Code.AlreadyExists,
  "This request_id was used for another request. Make a new one for each command.",
);
/** A page token that was not given out by this method for these filters, or is too old. */
export const PAGE_TOKEN_INVALID = reason(
  "PAGE_TOKEN_INVALID",
  Code.InvalidArgument,
  "The page token is not one this method gave out for these filters. Start from the first page.",
);
/** The thing has changed since its etag was read. */
export const ETAG_MISMATCH = reason("ETAG_MISMATCH", Code.Aborted, "It has changed since. Read it again and repeat the change.");
/** The method does not exist, or is part of the contract and not built yet. */
export const UNIMPLEMENTED = reason("UNIMPLEMENTED", Code.Unimplemented, "There is no such method here.");
/** Something failed that should not. The metadata's `error_id` names the log line that says what. */
export const INTERNAL = reason("INTERNAL", Code.Internal, "Something went wrong on our side. The error id names what.");
/** More work than can be done now. */
export const OVERLOADED = reason("OVERLOADED", Code.ResourceExhausted, "There is more to do than can be done now.");
/** A part that this call needs is out of reach, or the process is going down. */
export const UNAVAILABLE = reason("UNAVAILABLE", Code.Unavailable, "A part this call needs is out of reach. Try again.");
/**
 * Another service that this call needs does not answer, and was asked as often as that may be. Its code is one that nobody retries by himself: if every
 * service on the way did, one that is down would be asked many times for one call.
 */
export const DEPENDENCY_UNAVAILABLE = reason(
  "DEPENDENCY_UNAVAILABLE",
  Code.Internal,
  "A service that this call needs does not answer. A later call may succeed; repeat a command with the same request_id.",
);
/** The request's headers or its protocol are not what the server speaks: a wrong content type, HTTP method or version. */
export const PROTOCOL_UNSUPPORTED = reason(
  "PROTOCOL_UNSUPPORTED",
  Code.Unimplemented,
  "The request is in no protocol this server speaks: Connect, gRPC or gRPC-Web, as JSON or protobuf.",
);
