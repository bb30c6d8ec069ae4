import assert from "node:assert/strict";
import {
  create,
  type DescMessage,
  type DescMethodUnary,
  fromBinary,
  fromJson,
  type JsonValue,
  type MessageInitShape,
  toBinary,
  toJson,
} from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { credentials, Client as GrpcClient, Metadata, type ServiceError } from "@grpc/grpc-js";
import { BadRequestSchema, type ErrorInfo, ErrorInfoSchema } from "#gen/google/rpc/error_details_pb.ts";
import { StatusSchema } from "#gen/google/rpc/status_pb.ts";
import { methodPath } from "../support/contract.ts";

/** What `fetch` takes as a body. */
export type Body = NonNullable<RequestInit["body"]>;

/** A unary method of any service. */
export type Method = DescMethodUnary<DescMessage, DescMessage>;

/** What a caller far away gets, whatever it speaks. */
export interface Answer {
  /** The HTTP status; undefined over gRPC, where it is always 200. */
  readonly status: number | undefined;
  /** The RPC code; undefined of an answer that is no error. */
  readonly code: Code | undefined;
  readonly reason: string;
  readonly domain: string;
  readonly metadata: Readonly<Record<string, string>>;
  /** The fields at fault. */
  readonly fields: readonly string[];
  readonly message: string;
  /** The answer as JSON; undefined of an error. */
  readonly json: JsonValue | undefined;
}

/** What goes with a call. */
export interface CallSettings {
  readonly token?: string | undefined;
  /** The time the caller gives it; 0: none is left. */
  readonly timeoutMs?: number | undefined;
}

/** One way to call a server. */
export interface Way {
  readonly name: string;
  call(method: Method, request: object, settings?: CallSettings): Promise<Answer>;
}

/** The HTTP status of each code over Connect: https://connectrpc.com/docs/protocol/#error-codes. */
const HTTP_STATUS: Partial<Record<Code, number>> = {
  [Code.InvalidArgument]: 400,
  [Code.Unauthenticated]: 401,
  [Code.PermissionDenied]: 403,
  [Code.NotFound]: 404,
  [Code.AlreadyExists]: 409,
  [Code.FailedPrecondition]: 400,
  [Code.Aborted]: 409,
  [Code.ResourceExhausted]: 429,
  [Code.Unimplemented]: 501,
  [Code.DeadlineExceeded]: 504,
};

/** Expects a refusal with its reason, its code, and the HTTP status that goes with the code. */
export function assertRefused(answer: Answer, code: Code, reason: string): void {
  assert.deepEqual(
    { code: answer.code && Code[answer.code], reason: answer.reason, domain: answer.domain, status: answer.status },
    { code: Code[code], reason, domain: "souk", status: answer.status === undefined ? undefined : HTTP_STATUS[code] },
    JSON.stringify(answer, undefined, 1),
  );
}

/** Posts bytes or text as they are, the way curl does. */
export async function post(url: string, path: string, body: Body, headers: Record<string, string> = {}): Promise<Answer> {
  const response = await fetch(`${url}/${path}`, {
    method: "POST",
    body,
    headers: { "content-type": "application/json", ...headers },
    ...(body instanceof ReadableStream ? { duplex: "half" as const } : {}),
  } as RequestInit);
  return readAnswer(response, undefined);
}

/** Reads what a server answered over Connect: an error is JSON whatever the call spoke. */
async function readAnswer(response: Response, output: DescMessage | undefined): Promise<Answer> {
  const bytes = new Uint8Array(await response.arrayBuffer());
  if (response.ok && output !== undefined) return good(response.status, toJson(output, fromBinary(output, bytes)));
  if (response.headers.get("content-type") === "application/proto") return good(response.status, null);
  const json = JSON.parse(new TextDecoder().decode(bytes));
  if (response.ok) return good(response.status, json);
  const details = ((json.details ?? []) as { type: string; value: string }[]).map(({ type, value }) => ({
    type,
    value: Buffer.from(value, "base64"),
  }));
  return bad(response.status, codeOf(json.code), json.message ?? "", details);
}

/** The ways in which a well-formed message travels: two over Connect, two gRPC libraries. Close them. */
export function waysTo(url: string): { ways: Way[]; close(): void } {
  const grpcJs = new GrpcClient(new URL(url).host, credentials.createInsecure());
  return {
    ways: [connect(url, "Connect JSON"), connect(url, "Connect protobuf"), connectNodeGrpc(url), otherGrpc(grpcJs)],
    close: () => grpcJs.close(),
  };
}

function connect(url: string, name: "Connect JSON" | "Connect protobuf"): Way {
  const json = name === "Connect JSON";
  return {
    name,
    async call(method, request, { token, timeoutMs } = {}) {
      const message = create(method.input, request as MessageInitShape<DescMessage>);
      const response = await fetch(`${url}/${methodPath(method)}`, {
        method: "POST",
        body: json ? JSON.stringify(toJson(method.input, message)) : Buffer.from(toBinary(method.input, message)),
        headers: {
          "content-type": json ? "application/json" : "application/proto",
          ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
          ...(timeoutMs === undefined ? {} : { "connect-timeout-ms": String(timeoutMs) }),
        },
      });
      const answer = await readAnswer(response, json ? undefined : method.output);
      // Through the schema, so that all ways give the same JSON.
      return json && answer.json !== undefined
        ? { ...answer, json: toJson(method.output, fromJson(method.output, answer.json)) }
        : answer;
    },
  };
}

function connectNodeGrpc(url: string): Way {
  const transport = createGrpcTransport({ baseUrl: url });
  return {
    name: "gRPC",
    async call(method, request, { token, timeoutMs } = {}) {
      const headers = {
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        // To the library 0 means that there is no bound.
        ...(timeoutMs === 0 ? { "grpc-timeout": "0m" } : {}),
      };
      try {
        const init = request as MessageInitShape<DescMessage>;
        const { message } = await transport.unary(method, undefined, timeoutMs, headers, init);
        return good(undefined, toJson(method.output, message));
      } catch (error) {
        const { code, rawMessage, details } = ConnectError.from(error);
        const sent = details.flatMap((detail) => ("type" in detail ? [{ type: detail.type, value: detail.value }] : []));
        return bad(undefined, code, rawMessage, sent);
      }
    },
  };
}

/** Another implementation of gRPC, which knows our messages only through the two functions it is given. */
function otherGrpc(client: GrpcClient): Way {
  return {
    name: "gRPC of another library",
    call(method, request, { token, timeoutMs } = {}) {
      const metadata = new Metadata();
      if (token !== undefined) metadata.set("authorization", `Bearer ${token}`);
      const { promise, resolve } = Promise.withResolvers<Answer>();
      client.makeUnaryRequest(
        `/${methodPath(method)}`,
        (init: object) => Buffer.from(toBinary(method.input, create(method.input, init as MessageInitShape<DescMessage>))),
        (bytes: Buffer) => fromBinary(method.output, bytes),
        request,
        metadata,
        timeoutMs === undefined ? {} : { deadline: Date.now() + timeoutMs },
        (error: ServiceError | null, message) => {
          if (error === null) resolve(good(undefined, toJson(method.output, message as never)));
          else resolve(bad(undefined, error.code as number as Code, error.details, statusDetails(error)));
        },
      );
      return promise;
    },
  };
}

interface Detail {
  readonly type: string;
  readonly value: Uint8Array;
}

function statusDetails(error: ServiceError): Detail[] {
  const status = error.metadata.get("grpc-status-details-bin")[0];
  if (!(status instanceof Uint8Array)) return [];
  return fromBinary(StatusSchema, status).details.map((any) => ({ type: any.typeUrl.split("/").at(-1) ?? "", value: any.value }));
}

function good(status: number | undefined, json: JsonValue): Answer {
  return { status, code: undefined, reason: "", domain: "", metadata: {}, fields: [], message: "", json };
}

function bad(status: number | undefined, code: Code, message: string, details: readonly Detail[]): Answer {
  const info = details.find(({ type }) => type === ErrorInfoSchema.typeName);
  const { reason, domain, metadata }: Partial<ErrorInfo> = info === undefined ? {} : fromBinary(ErrorInfoSchema, info.value);
  const fields = details
    .filter(({ type }) => type === BadRequestSchema.typeName)
    .flatMap(({ value }) => fromBinary(BadRequestSchema, value).fieldViolations.map((violation) => violation.field));
  return { status, code, reason: reason ?? "", domain: domain ?? "", metadata: metadata ?? {}, fields, message, json: undefined };
}

/** The code by its name on the wire, such as "invalid_argument". */
function codeOf(name: string): Code {
  const found = Object.entries(Code).find(([key]) => key.replace(/(?<!^)([A-Z])/g, "_$1").toLowerCase() === name);
  assert.ok(found, `"${name}" is no code`);
  return found[1] as Code;
}
