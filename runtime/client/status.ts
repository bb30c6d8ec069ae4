import { fromBinary } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { type Channel, type Metadata, type StatusObject, status as statusCode } from "@grpc/grpc-js";
import { type Status, StatusSchema } from "#gen/google/rpc/status_pb.ts";
import { toHeaders } from "#runtime/client/metadata.ts";

/** A call of grpc-js below its own clients. */
export type Call = ReturnType<Channel["createCall"]>;
/** What hears of a call. */
export type Listener = Parameters<Call["start"]>[1];

/** grpc-js' names for the end of a stream without a gRPC status. They are the pinned version's, and tested against real streams. */
const REFUSED = /^(?:Stream refused by server|Write error: Stream closed with error code NGHTTP2_REFUSED_STREAM)$/;
const RESET_AS_CANCELLED = "Call cancelled";
/** RST_STREAM with NO_ERROR or INTERNAL_ERROR, or an end without a status. */
const CUT_OFF = /^Received RST_STREAM with code [02]\b/;

/**
 * Whether no handler can have seen the call: it never got a stream, or the server refused the stream (RFC 9113, 8.7), as it does with those that
 * come after its GOAWAY.
 */
export function neverBegan(status: StatusObject, call: Call, channel: Channel, header: Metadata | undefined): boolean {
  if (header !== undefined) return false;
  return call.getPeer() === channel.getTarget() || (REFUSED.test(status.details) && isLocal(status));
}

/** Whether the stream ended in the middle of its answer: what a proxy does when time runs out behind the first headers, or a server that is killed. */
export function isCutOff(status: StatusObject): boolean {
  return status.code === statusCode.INTERNAL && CUT_OFF.test(status.details) && isLocal(status);
}

/** What a peer answers carries at least its content type, or came after headers. */
function isLocal({ metadata }: StatusObject): boolean {
  return Object.keys(metadata.toJSON()).length === 0;
}

/** The error of a status other than OK, with its details; `header` is what the answer began with, `deadline` the call's, in ms since the epoch. */
export function toError(status: StatusObject, header: Metadata | undefined, deadline: number): ConnectError {
  if (status.code === statusCode.CANCELLED && status.details === RESET_AS_CANCELLED && isLocal(status)) {
    // A server at which the call's time ran out may reset the stream rather than say so.
    if (deadline <= Date.now()) return new ConnectError("the operation timed out", Code.DeadlineExceeded);
    // Nobody here gave the call up: that is what a connection that breaks looks like.
    return new ConnectError("The stream was reset.", Code.Unavailable);
  }
  const metadata = toHeaders(header, status.metadata);
  if (!(status.code in Code)) return new ConnectError(`invalid grpc-status: ${status.code}`, Code.Internal, metadata);
  const rich = richStatus(status.metadata);
  const code = rich !== undefined && rich.code in Code ? rich.code : status.code;
  const error = new ConnectError(rich?.message || readable(status.details), code as number as Code, metadata);
  error.details = (rich?.details ?? []).map(({ typeUrl, value }) => ({
    type: typeUrl.slice(typeUrl.lastIndexOf("/") + 1),
    value,
  }));
  return error;
}

/** The details that came along; undefined when there are none, or none that can be read. */
export function richStatus(metadata: Metadata): Status | undefined {
  const [bytes] = metadata.get("grpc-status-details-bin");
  if (!(bytes instanceof Uint8Array)) return undefined;
  try {
    return fromBinary(StatusSchema, bytes);
  } catch {
    return undefined;
  }
}

/** grpc-js leaves the escapes of `:`, `,` and other characters of URIs in a message. */
function readable(message: string): string {
  return message.replace(/%(?:2[346BCF]|3[ABDF]|40)/gi, decodeURIComponent);
}

/** What is wrong with an answer whose status is OK; undefined when nothing is. */
export function answerProblem(header: Metadata | undefined, message: Buffer | undefined): ConnectError | undefined {
  const type = contentTypeProblem(header);
  if (type !== undefined) return type;
  if (message === undefined) return new ConnectError("protocol error: missing output message for unary method", Code.Unimplemented);
  return undefined;
}

/** What is wrong with the kind of an answer; undefined when it is gRPC with protobuf. */
export function contentTypeProblem(header: Metadata | undefined): ConnectError | undefined {
  const [type] = header?.get("content-type") ?? [];
  if (type === undefined || /^application\/grpc(\+proto)?($|[ ;])/i.test(String(type))) return undefined;
  return new ConnectError(`unsupported content type ${type}`, Code.Unknown, toHeaders(header));
}
