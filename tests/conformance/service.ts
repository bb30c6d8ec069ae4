import { setTimeout as sleep } from "node:timers/promises";
import { create, type DescMessage, type MessageShape } from "@bufbuild/protobuf";
import { anyPack } from "@bufbuild/protobuf/wkt";
import { type Code, ConnectError, type ConnectRouter, type HandlerContext, type ServiceImpl } from "@connectrpc/connect";
import {
  BidiStreamRequestSchema,
  ClientStreamRequestSchema,
  type ConformancePayload_RequestInfo,
  ConformancePayload_RequestInfoSchema,
  ConformanceService,
  type Error as ErrorDefinition,
  type Header,
  HeaderSchema,
  IdempotentUnaryRequestSchema,
  ServerStreamRequestSchema,
  type StreamResponseDefinition,
  UnaryRequestSchema,
  type UnaryResponseDefinition,
} from "./gen/connectrpc/conformance/v1/service_pb.ts";

/** The service that the suite's reference client calls: it answers what each request tells it to answer. `Unimplemented` is not implemented. */
export function conformanceRoutes(router: ConnectRouter): void {
  router.service(ConformanceService, implementation);
}

const implementation: Partial<ServiceImpl<typeof ConformanceService>> = {
  unary: (request, context) => answerOnce(UnaryRequestSchema, [request], request.responseDefinition, context),
  idempotentUnary: (request, context) => answerOnce(IdempotentUnaryRequestSchema, [request], request.responseDefinition, context),
  async clientStream(requests, context) {
    const received = await allOf(requests);
    return answerOnce(ClientStreamRequestSchema, received, received[0]?.responseDefinition, context);
  },
  async *serverStream(request, context) {
    yield* answerAll(ServerStreamRequestSchema, [request], request.responseDefinition, context);
  },
  async *bidiStream(requests, context) {
    const received = requests[Symbol.asyncIterator]();
    const first = await received.next();
    if (first.done === true) return;
    const rest = { [Symbol.asyncIterator]: () => received };
    const { fullDuplex, responseDefinition } = first.value;
    if (fullDuplex) {
      yield* answerEach(BidiStreamRequestSchema, first.value, rest, responseDefinition, context);
    } else {
      const all = [first.value, ...(await allOf(rest))];
      yield* answerAll(BidiStreamRequestSchema, all, responseDefinition, context);
    }
  },
};

interface Payload {
  readonly payload: { readonly data?: Uint8Array; readonly requestInfo?: ConformancePayload_RequestInfo };
}

/** One answer to all requests: the data, or the error with what was received as a detail. */
async function answerOnce<S extends DescMessage>(
  schema: S,
  requests: readonly MessageShape<S>[],
  definition: UnaryResponseDefinition | undefined,
  context: HandlerContext,
): Promise<Payload> {
  const requestInfo = infoOf(schema, requests, context);
  setHeaders(definition, context);
  if (definition !== undefined && definition.responseDelayMs > 0) await sleep(definition.responseDelayMs);
  const response = definition?.response;
  if (response?.case === "error") throw errorOf(response.value, requestInfo);
  return { payload: { requestInfo, ...(response?.case === "responseData" ? { data: response.value } : {}) } };
}

/** All answers after all requests; what was received goes with the first of them. */
async function* answerAll<S extends DescMessage>(
  schema: S,
  requests: readonly MessageShape<S>[],
  definition: StreamResponseDefinition | undefined,
  context: HandlerContext,
): AsyncGenerator<Payload> {
  if (definition === undefined) return;
  const requestInfo = infoOf(schema, requests, context);
  setHeaders(definition, context);
  for (const [index, data] of definition.responseData.entries()) {
    if (definition.responseDelayMs > 0) await sleep(definition.responseDelayMs);
    yield { payload: { data, ...(index === 0 ? { requestInfo } : {}) } };
  }
  if (definition.error !== undefined)
    throw errorOf(definition.error, definition.responseData.length === 0 ? requestInfo : undefined);
}

/** An answer to each request in turn, as long as there are some; then those that are left. */
async function* answerEach<S extends DescMessage>(
  schema: S,
  first: MessageShape<S>,
  rest: AsyncIterable<MessageShape<S>>,
  definition: StreamResponseDefinition | undefined,
  context: HandlerContext,
): AsyncGenerator<Payload> {
  if (definition === undefined) return;
  setHeaders(definition, context);
  const left = [...definition.responseData];
  let requestInfo: ConformancePayload_RequestInfo | undefined = infoOf(schema, [first], context);
  const next = async () => {
    if (definition.responseDelayMs > 0) await sleep(definition.responseDelayMs);
    return { payload: { data: left.shift() as Uint8Array, ...(requestInfo === undefined ? {} : { requestInfo }) } };
  };
  if (left.length > 0) {
    yield await next();
    for await (const request of rest) {
      if (left.length === 0) break;
      requestInfo = create(ConformancePayload_RequestInfoSchema, { requests: [anyPack(schema, request)] });
      yield await next();
    }
    requestInfo = undefined;
    while (left.length > 0) yield await next();
  }
  if (definition.error !== undefined) throw errorOf(definition.error, requestInfo);
}

function infoOf<S extends DescMessage>(
  schema: S,
  requests: readonly MessageShape<S>[],
  context: HandlerContext,
): ConformancePayload_RequestInfo {
  const timeoutMs = context.timeoutMs();
  const query = new URL(context.url).searchParams;
  return create(ConformancePayload_RequestInfoSchema, {
    requestHeaders: headersOf(context.requestHeader),
    requests: requests.map((request) => anyPack(schema, request)),
    ...(timeoutMs === undefined ? {} : { timeoutMs: BigInt(Math.floor(timeoutMs)) }),
    ...(context.requestMethod === "GET" ? { connectGetInfo: { queryParams: headersOf(query) } } : {}),
  });
}

/** Headers, trailers or query parameters as the suite's messages state them. */
export function headersOf(pairs: Iterable<[string, string]>): Header[] {
  return [...pairs].map(([name, value]) => create(HeaderSchema, { name, value: [value] }));
}

async function allOf<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

function setHeaders(
  definition: { readonly responseHeaders: readonly Header[]; readonly responseTrailers: readonly Header[] } | undefined,
  context: HandlerContext,
): void {
  for (const { name, value } of definition?.responseHeaders ?? []) {
    for (const one of value) context.responseHeader.append(name, one);
  }
  for (const { name, value } of definition?.responseTrailers ?? []) {
    for (const one of value) context.responseTrailer.append(name, one);
  }
}

function errorOf(definition: ErrorDefinition, requestInfo: ConformancePayload_RequestInfo | undefined): ConnectError {
  const error = new ConnectError(definition.message ?? "", definition.code as number as Code);
  error.details = definition.details.map(({ typeUrl, value }) => ({ type: typeUrl.slice(typeUrl.lastIndexOf("/") + 1), value }));
  if (requestInfo !== undefined) error.details.push({ desc: ConformancePayload_RequestInfoSchema, value: requestInfo });
  return error;
}
