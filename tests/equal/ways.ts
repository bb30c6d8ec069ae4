import {
  type DescMethod,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  fromBinary,
  type JsonValue,
  type Message,
  toBinary,
  toJson,
} from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel as Level } from "@bufbuild/protobuf/wkt";
import { type Code, createContextValues, type Transport } from "@connectrpc/connect";
import * as node from "@connectrpc/connect-node";
import * as web from "@connectrpc/connect-web";
import { credentials, Client as GrpcClient, Metadata, type ServiceError } from "@grpc/grpc-js";
import { StatusSchema } from "#gen/google/rpc/status_pb.ts";
import { openGrpcClient } from "#runtime/client/transport.ts";
import type { Directory } from "#runtime/clients.ts";
import { SERVICE_HEADER } from "#runtime/peers.ts";
import { methodPath } from "../support/contract.ts";
import { curlWays } from "./curl.ts";
import { answered, type Detail, failed, type Outcome, thrown } from "./outcome.ts";

/** One call. */
export interface Call {
  readonly method: DescMethod;
  readonly message: Message;
  readonly headers: Readonly<Record<string, string>>;
  /** How many messages of a stream are read; it may end before. */
  readonly take: number;
}

/** One way to call a server. */
export interface Way {
  readonly name: string;
  /** Whether the request stands in the URL: reads only, and no large ones. */
  readonly get: boolean;
  /** Whether only the contract's own methods are reached. */
  readonly inMemory?: true;
  call(call: Call): Promise<Outcome>;
}

/** Whether a method may be called by GET. */
export function isRead(method: DescMethod): boolean {
  return method.methodKind === "unary" && method.idempotency === Level.NO_SIDE_EFFECTS;
}

const MAX_MESSAGE_BYTES = 16 * 1024 * 1024;

/** What is called, and what curl needs. */
export interface Subject {
  readonly baseUrl: string;
  readonly directory: Directory;
  readonly curlPath: string;
  /** Where curl finds what it sends. */
  readonly folder: string;
}

/** Every way there is: four libraries and all protocols, and the ways that services call each other. Close them. */
export function waysTo({ baseUrl, directory, curlPath, folder }: Subject): { ways: readonly Way[]; close(): void } {
  // The server says what is too large, not its caller.
  const services = openGrpcClient({ baseUrl: [baseUrl], writeMaxBytes: MAX_MESSAGE_BYTES });
  const grpc = new GrpcClient(new URL(baseUrl).host, credentials.createInsecure());
  const connectNode = (options: object) => node.createConnectTransport({ baseUrl, httpVersion: "2", ...options });
  const ways: Way[] = [
    grpcJs(grpc),
    library("connect-node, gRPC", node.createGrpcTransport({ baseUrl })),
    library("connect-node, gRPC-Web", node.createGrpcWebTransport({ baseUrl, httpVersion: "1.1" })),
    library("connect-node, Connect protobuf", connectNode({ useBinaryFormat: true })),
    library(
      "connect-node, Connect JSON, gzip",
      connectNode({ useBinaryFormat: false, sendCompression: node.compressionGzip, compressMinBytes: 0 }),
    ),
    library("connect-web, Connect JSON", web.createConnectTransport({ baseUrl })),
    library(
      "connect-web, Connect protobuf by GET",
      web.createConnectTransport({ baseUrl, useBinaryFormat: true, useHttpGet: true }),
      true,
    ),
    library("connect-web, gRPC-Web", web.createGrpcWebTransport({ baseUrl })),
    ...curlWays(baseUrl, curlPath, folder),
    library("the services' own client", services.transport()),
    memory(directory),
  ];
  const close = () => {
    grpc.close();
    services.close();
  };
  return { ways, close };
}

function library(name: string, transport: Transport, get = false): Way {
  return {
    name,
    get,
    async call({ method, message, headers, take }) {
      const messages: JsonValue[] = [];
      const ending = new AbortController();
      const [values, timeoutMs] = [createContextValues(), undefined];
      try {
        if (method.methodKind === "unary") {
          const unary = method as DescMethodUnary;
          const response = await transport.unary(unary, ending.signal, timeoutMs, headers, message as never, values);
          return answered(method.output, [response.message]);
        }
        const stream = method as DescMethodServerStreaming;
        const input = (async function* () {
          yield message as never;
        })();
        const response = await transport.stream(stream, ending.signal, timeoutMs, headers, input, values);
        for await (const each of response.message) {
          messages.push(toJson(method.output, each));
          if (messages.length === take) break;
        }
        return { messages };
      } catch (error) {
        return thrown(error, messages);
      } finally {
        ending.abort();
      }
    },
  };
}

/** As services of one process call each other. */
function memory(directory: Directory): Way {
  return {
    name: "in memory",
    get: false,
    inMemory: true,
    call(call) {
      const transport = directory.transport(call.method.parent, call.headers[SERVICE_HEADER]);
      return library("in memory", transport).call(call);
    },
  };
}

/** grpc-js without anything of ours: it knows messages only through two functions. */
function grpcJs(client: GrpcClient): Way {
  return {
    name: "grpc-js",
    get: false,
    call({ method, message, headers, take }) {
      const metadata = new Metadata();
      for (const [name, value] of Object.entries(headers)) metadata.set(name, value);
      const path = `/${methodPath(method)}`;
      const write = (value: Message) => Buffer.from(toBinary(method.input, value));
      const read = (bytes: Buffer): Message => fromBinary(method.output, bytes);
      const { promise, resolve, reject } = Promise.withResolvers<Outcome>();
      if (method.methodKind === "unary") {
        client.makeUnaryRequest(path, write, read, message, metadata, (error, value) => {
          if (error !== null) resolve(grpcFailure(error, []));
          else if (value === undefined) reject(new Error("neither an answer nor an error"));
          else resolve(answered(method.output, [value]));
        });
        return promise;
      }
      const messages: JsonValue[] = [];
      const stream = client.makeServerStreamRequest(path, write, read, message, metadata);
      stream.on("data", (each: Message) => {
        if (messages.length < take) messages.push(toJson(method.output, each));
        if (messages.length === take) {
          resolve({ messages });
          stream.cancel();
        }
      });
      stream.on("end", () => resolve({ messages }));
      stream.on("error", (error: ServiceError) => resolve(grpcFailure(error, messages)));
      return promise;
    },
  };
}

function grpcFailure(error: ServiceError, messages: readonly JsonValue[]): Outcome {
  const [status] = error.metadata.get("grpc-status-details-bin");
  const details: Detail[] =
    status instanceof Uint8Array
      ? fromBinary(StatusSchema, status).details.map((any) => ({ type: any.typeUrl.split("/").at(-1) ?? "", value: any.value }))
      : [];
  return failed(error.code as number as Code, error.details, details, messages);
}
