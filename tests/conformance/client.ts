// The client under test: reads what to call from the suite's runner, calls it through Souk's own client of gRPC, and writes what came back.

import { setTimeout as sleep } from "node:timers/promises";
import { create, type DescMessage, type MessageShape } from "@bufbuild/protobuf";
import { type Any, anyUnpack } from "@bufbuild/protobuf/wkt";
import { type CallOptions, type Client, ConnectError, createClient } from "@connectrpc/connect";
import { createWritableIterable } from "@connectrpc/connect/protocol";
import { type GrpcClient, openGrpcClient } from "#runtime/client/transport.ts";
import { frame, readFrames } from "./frames.ts";
import {
  type ClientCompatRequest,
  ClientCompatRequestSchema,
  type ClientCompatResponse,
  ClientCompatResponseSchema,
  type ClientResponseResult,
  ClientResponseResultSchema,
} from "./gen/connectrpc/conformance/v1/client_compat_pb.ts";
import { Compression, type Code as ConformanceCode, StreamType } from "./gen/connectrpc/conformance/v1/config_pb.ts";
import {
  type BidiStreamRequest,
  BidiStreamRequestSchema,
  ClientStreamRequestSchema,
  type ConformancePayload,
  ConformancePayloadSchema,
  ConformanceService,
  ErrorSchema,
  IdempotentUnaryRequestSchema,
  ServerStreamRequestSchema,
  UnaryRequestSchema,
  UnimplementedRequestSchema,
} from "./gen/connectrpc/conformance/v1/service_pb.ts";
import { headersOf } from "./service.ts";

/** Calls at once. Some cases measure time, so not as many as come. */
const CALLS_MAX = 4;

type Conformance = Client<typeof ConformanceService>;

/** One client for each server and way of calling it. */
const clients = new Map<string, GrpcClient>();

function clientFor({ host, port, compression, messageReceiveLimit }: ClientCompatRequest): Conformance {
  const key = [host, port, compression, messageReceiveLimit].join(" ");
  const client =
    clients.get(key) ??
    openGrpcClient({
      baseUrl: `http://${host}:${port}`,
      ...(compression === Compression.GZIP ? { sendCompression: "gzip", compressMinBytes: 0 } : {}),
      ...(messageReceiveLimit > 0 ? { readMaxBytes: messageReceiveLimit } : {}),
    });
  clients.set(key, client);
  return createClient(ConformanceService, client.transport());
}

/** A call as the suite describes it, and what has come of it. */
class Case {
  readonly asked: ClientCompatRequest;
  readonly client: Conformance;
  readonly result: ClientResponseResult = create(ClientResponseResultSchema);
  readonly options: CallOptions;
  readonly #abort = new AbortController();

  constructor(asked: ClientCompatRequest) {
    this.asked = asked;
    this.client = clientFor(asked);
    const headers = new Headers();
    for (const { name, value } of asked.requestHeaders) for (const one of value) headers.append(name, one);
    this.options = {
      headers,
      signal: this.#abort.signal,
      ...(asked.timeoutMs === undefined ? {} : { timeoutMs: asked.timeoutMs }),
      onHeader: (header) => {
        this.result.responseHeaders = headersOf(header);
      },
      onTrailer: (trailer) => {
        this.result.responseTrailers = headersOf(trailer);
      },
    };
  }

  /** Makes the call. An error is part of the result. */
  async run(): Promise<ClientResponseResult> {
    try {
      await this.#call();
    } catch (error) {
      const { code, rawMessage, details, metadata } = ConnectError.from(error);
      this.result.error = create(ErrorSchema, {
        code: code as number as ConformanceCode,
        message: rawMessage,
        details: details.flatMap((detail) =>
          "type" in detail ? [{ typeUrl: `type.googleapis.com/${detail.type}`, value: detail.value }] : [],
        ),
      });
      // Headers and trailers of a failed call come as one.
      this.result.responseTrailers = headersOf(metadata);
    }
    return this.result;
  }

  async #call(): Promise<void> {
    const { client, options, asked } = this;
    const [first] = asked.requestMessages;
    switch (asked.streamType) {
      case StreamType.UNARY:
        this.#sent();
        if (asked.method === "Unimplemented") await client.unimplemented(read(UnimplementedRequestSchema, first), options);
        else if (asked.method === "IdempotentUnary")
          this.#received(await client.idempotentUnary(read(IdempotentUnaryRequestSchema, first), options));
        else this.#received(await client.unary(read(UnaryRequestSchema, first), options));
        break;
      case StreamType.CLIENT_STREAM:
        this.#received(await client.clientStream(this.#requests(ClientStreamRequestSchema), options));
        break;
      case StreamType.SERVER_STREAM:
        this.#sent();
        for await (const answer of client.serverStream(read(ServerStreamRequestSchema, first), options)) this.#received(answer);
        break;
      case StreamType.HALF_DUPLEX_BIDI_STREAM:
        for await (const answer of client.bidiStream(this.#requests(BidiStreamRequestSchema), options)) this.#received(answer);
        break;
      case StreamType.FULL_DUPLEX_BIDI_STREAM:
        await this.#inTurns();
        break;
      default:
        throw new Error(`There is no such type of stream: ${asked.streamType}.`);
    }
  }

  /** All requests, each after the delay that is asked for; then the end, or the cancellation in its place. */
  async *#requests<S extends DescMessage>(schema: S): AsyncGenerator<MessageShape<S>> {
    for (const request of this.asked.requestMessages) {
      await sleep(this.asked.requestDelayMs);
      yield read(schema, request);
    }
    this.#sent();
  }

  /** A request, an answer, and so on; then the answers that are left. */
  async #inTurns(): Promise<void> {
    const requests = createWritableIterable<BidiStreamRequest>();
    const answers = this.client.bidiStream(requests, this.options)[Symbol.asyncIterator]();
    const receive = async () => {
      const answer = await answers.next();
      if (answer.done !== true) this.#received(answer.value);
      return answer.done !== true;
    };
    for (const request of this.asked.requestMessages) {
      await sleep(this.asked.requestDelayMs);
      await Promise.all([requests.write(read(BidiStreamRequestSchema, request)), receive()]);
    }
    this.#sent();
    requests.close();
    while (await receive());
  }

  /** Everything is sent: the time to give the call up, where that is asked for. */
  #sent(): void {
    const timing = this.asked.cancel?.cancelTiming;
    if (timing === undefined || timing.case === "afterNumResponses") return;
    if (timing.case === "beforeCloseSend") this.#abort.abort();
    else setTimeout(() => this.#abort.abort(), timing.value ?? 0);
  }

  #received({ payload }: { readonly payload?: ConformancePayload | undefined }): void {
    this.result.payloads.push(payload ?? create(ConformancePayloadSchema));
    const timing = this.asked.cancel?.cancelTiming;
    if (timing?.case === "afterNumResponses" && timing.value === this.result.payloads.length) this.#abort.abort();
  }
}

function read<S extends DescMessage>(schema: S, any: Any | undefined): MessageShape<S> {
  const message = any && anyUnpack(any, schema);
  if (message === undefined) throw new Error(`The runner gives no ${schema.typeName}.`);
  return message;
}

/** What became of one case: a result, or why there could be none. */
async function answer(asked: ClientCompatRequest): Promise<ClientCompatResponse> {
  const { testName } = asked;
  const result = await new Case(asked).run().then(
    (value) => ({ case: "response", value }) as const,
    (error: unknown) => ({ case: "error", value: { message: String(error) } }) as const,
  );
  return create(ClientCompatResponseSchema, { testName, result } as never);
}

const running = new Set<Promise<void>>();
for await (const asked of readFrames(ClientCompatRequestSchema, process.stdin)) {
  if (running.size >= CALLS_MAX) await Promise.race(running);
  const call: Promise<void> = answer(asked).then((response) => {
    process.stdout.write(frame(ClientCompatResponseSchema, response));
    running.delete(call);
  });
  running.add(call);
}
await Promise.all(running);
for (const client of clients.values()) client.close();
