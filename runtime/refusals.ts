import { Code, type ConnectError } from "@connectrpc/connect";
import { ErrorInfoSchema } from "#gen/google/rpc/error_details_pb.ts";
import {
  CANCELLED,
  COMPRESSION_UNNAMED,
  DEADLINE_EXCEEDED,
  failure,
  INTERNAL,
  MALFORMED_REQUEST,
  PROTOCOL_UNSUPPORTED,
  REQUEST_TOO_LARGE,
  UNAVAILABLE,
  UNIMPLEMENTED,
  UNKNOWN_FIELD,
} from "#runtime/errors.ts";

/**
 * The failure behind an error that the RPC library raised while it read a request. It knows texts instead of reasons; the texts of
 * its pinned version are known here and nowhere else. An error with a reason is answered as it is.
 */
export function readingFailure(error: ConnectError): ConnectError {
  if (error.findDetails(ErrorInfoSchema).length > 0) {
    return error;
  }
  const text = error.rawMessage;
  const unknownField = /key "(.{1,100}?)" is unknown/.exec(text);
  if (unknownField !== null) {
    return failure(UNKNOWN_FIELD, {
      message: `The request has a field "${unknownField[1]}" that does not exist.`,
      metadata: { field: unknownField[1] as string },
    });
  }
  if (/is larger than configured|exceeds maximum/.test(text)) {
    const bytes = /readMaxBytes (\d+)/.exec(text)?.[1];
    return failure(REQUEST_TOO_LARGE, bytes === undefined ? {} : { metadata: { max_bytes: bytes } });
  }
  if (/unknown compression/.test(text)) {
    return failure(PROTOCOL_UNSUPPORTED, { message: text });
  }
  if (/(missing|extra) input message/.test(text)) {
    return failure(PROTOCOL_UNSUPPORTED, { message: text });
  }
  if (/do not know how to decompress/.test(text)) {
    return failure(COMPRESSION_UNNAMED);
  }
  if (/cannot decode|parse binary|protocol error|decompression failed|premature|invalid|timeout/i.test(text)) {
    return failure(MALFORMED_REQUEST, { message: `The request cannot be read: ${text.slice(0, 300)}` });
  }
  return byCode(error) ?? failure(error.code === Code.InvalidArgument ? MALFORMED_REQUEST : INTERNAL, { cause: error });
}

/** Gives a reason to an error that a client raised by itself, or a handler's signal: told by its code. Undefined for the others. */
export function byCode(error: ConnectError): ConnectError | undefined {
  switch (error.code) {
    case Code.DeadlineExceeded:
      return failure(DEADLINE_EXCEEDED, { cause: error });
    case Code.Canceled:
    case Code.Aborted:
      return failure(CANCELLED, { cause: error });
    case Code.Unavailable:
      return failure(UNAVAILABLE, { cause: error });
    case Code.Unimplemented:
      return failure(UNIMPLEMENTED, { cause: error });
    default:
      return undefined;
  }
}

/** Why a request got an HTTP status and no more from the RPC library: 404, 405, 415, 505. */
export function statusFailure(status: number, path: string): ConnectError {
  switch (status) {
    case 404:
      return failure(UNIMPLEMENTED, { message: `There is nothing at ${path.slice(0, 200)}.` });
    case 405:
      return failure(PROTOCOL_UNSUPPORTED, {
        message: "This method is called with POST; those without side effects also with GET.",
      });
    case 415:
      return failure(PROTOCOL_UNSUPPORTED, {
        message: "The content type is not one of Connect, gRPC or gRPC-Web, as JSON or protobuf.",
      });
    case 505:
      return failure(PROTOCOL_UNSUPPORTED, { message: "Streams in both directions need HTTP/2." });
    default:
      return failure(INTERNAL);
  }
}
