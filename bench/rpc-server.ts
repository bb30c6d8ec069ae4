// One server of `npm run bench -- rpc` in a process of its own: argv names which.

import { createServer as createHttpServer } from "node:http";
import { createServer, type ServerHttp2Stream } from "node:http2";
import type { AddressInfo } from "node:net";
import { createRegistry, fromBinary, toBinary } from "@bufbuild/protobuf";
import { ConnectError } from "@connectrpc/connect";
import { Server as GrpcServer, ServerCredentials } from "@grpc/grpc-js";
import {
  CatalogService,
  type GetListingRequest,
  GetListingRequestSchema,
  type GetListingResponse,
  GetListingResponseSchema,
} from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { createDirectory, forAccount } from "#runtime/clients.ts";
import { listen } from "#runtime/listener.ts";
import { createLog, silentLog } from "#runtime/log.ts";
import { openPeers } from "#runtime/peers.ts";
import type { UnaryDuties, UnaryMethod } from "#runtime/rpc/method.ts";
import { createUnaryServer } from "#runtime/rpc/unary-server.ts";
import { Watch } from "#runtime/rpc/watch.ts";
import { startServer } from "#runtime/server.ts";
import { openTelemetry, type Telemetry } from "#runtime/telemetry/telemetry.ts";
import { embeddedVerifiers, loadOrCreateKeys, serviceTokens, signAccountToken } from "#runtime/tokens.ts";
import { servePeer } from "./rpc-peer.ts";
import {
  ACCOUNT,
  type Answer,
  catalogModule,
  getListing,
  METHOD_PATH,
  type Question,
  request,
  type SubjectName,
} from "./rpc-subject.ts";

const [, , name = "", keysDir = ""] = process.argv;
const keys = await loadOrCreateKeys(keysDir);
const verifiers = embeddedVerifiers(keys);
// As in production; standard error is /dev/null here.
const log = createLog({ level: "info", format: "json" });

/** A stream of HTTP/2 that answers what it is sent. */
async function floor(): Promise<number> {
  const server = createServer();
  server.on("stream", (stream: ServerHttp2Stream) => {
    const chunks: Buffer[] = [];
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    stream.on("end", () => {
      stream.respond({ "content-type": "application/grpc" });
      stream.end(Buffer.concat(chunks));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}

function grpcJs(): Promise<number> {
  const server = new GrpcServer();
  server.addService(
    {
      getListing: {
        path: METHOD_PATH,
        requestStream: false,
        responseStream: false,
        requestSerialize: (message: GetListingRequest) => Buffer.from(toBinary(GetListingRequestSchema, message)),
        requestDeserialize: (bytes: Buffer) => fromBinary(GetListingRequestSchema, bytes),
        responseSerialize: (message: GetListingResponse) => Buffer.from(toBinary(GetListingResponseSchema, message)),
        responseDeserialize: (bytes: Buffer) => fromBinary(GetListingResponseSchema, bytes),
      },
    },
    { getListing: (_call: unknown, callback: (error: null, answer: GetListingResponse) => void) => callback(null, getListing()) },
  );
  return new Promise((resolve, reject) =>
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, port) => (error ? reject(error) : resolve(port))),
  );
}

async function ours(watched: boolean): Promise<number> {
  const telemetry = watched ? await openWatching() : undefined;
  const server = await startServer({
    modules: [catalogModule],
    port: 0,
    host: "127.0.0.1",
    verifiers,
    log,
    observer: telemetry?.observer,
  });
  return server.port;
}

/** Telemetry as it is by default: measurements of each call, spans of one in ten, both sent to a collector, which only throws them away. */
async function openWatching(): Promise<Telemetry> {
  const collector = createHttpServer((incoming, outgoing) => incoming.resume().on("end", () => outgoing.end()));
  await new Promise<void>((resolve) => collector.listen(0, "127.0.0.1", resolve));
  const endpoint = `http://127.0.0.1:${(collector.address() as AddressInfo).port}`;
  return openTelemetry({
    serviceName: "bench",
    collector: { endpoint, headers: {}, timeoutMs: 1000 },
    ratio: 0.1,
    intervalMs: 10_000,
    log: silentLog(),
  });
}

/** The way of unary calls with nothing but the protocol. */
async function oursBare(): Promise<number> {
  const duties: UnaryDuties = {
    admit() {},
    check() {},
    presentable: (_call, error) => ConnectError.from(error),
    ended() {},
    logFor: () => log,
    hiddenHeaders: new Set(),
  };
  const rpc: UnaryMethod = {
    desc: CatalogService.method.getListing,
    implementation: async () => getListing(),
    timeoutMs: Number.POSITIVE_INFINITY,
    types: createRegistry(),
    maxRequestBytes: 65_536,
    maxResponseBytes: 65_536,
    readsOnly: true,
    cacheControl: () => "no-store",
    duties,
    watch: new Watch(),
    observer: undefined,
  };
  const { takeStream } = createUnaryServer({
    bodyTimeoutMs: 10_000,
    bare: false,
    corsHeaders: () => undefined,
    find: (path) => (path === METHOD_PATH ? rpc : undefined),
    begin: () => undefined,
    done() {},
  });
  return (await listen({ port: 0, host: "127.0.0.1", log, handler() {}, takeStream })).port;
}

const STARTS: Readonly<Record<SubjectName, () => Promise<number>>> = {
  floor,
  "grpc-js": grpcJs,
  "connect-node": () => servePeer({ verifiers, log }),
  ours: () => ours(false),
  "ours bare": oursBare,
  "ours telemetry": () => ours(true),
};

/** Calls from one service to another: in this process, or at a port. */
function callsFrom(port: number | undefined): () => Promise<unknown> {
  const directory = createDirectory({ verifiers, log });
  if (port === undefined) {
    directory.host([catalogModule]);
  } else {
    const peers = openPeers({ urlOf: () => `http://127.0.0.1:${port}` });
    directory.reach("catalog", { services: [CatalogService], open: (interceptors) => peers.open("catalog", interceptors) });
  }
  const client = directory.clientsFor(serviceTokens(keys, "order")).of(CatalogService);
  return () => client.getListing(request, forAccount(ACCOUNT, { timeoutMs: 1900 }));
}

const callers = new Map<number | undefined, () => Promise<unknown>>();

async function callMany(calls: number, port: number | undefined): Promise<void> {
  const call = callers.get(port) ?? callsFrom(port);
  callers.set(port, call);
  let next = 0;
  const worker = async () => {
    while (next++ < calls) await call();
  };
  await Promise.all(Array.from({ length: 16 }, worker));
}

function cpu(): Answer {
  const { user, system } = process.cpuUsage();
  return { cpuUs: user + system };
}

const tell = (answer: Answer) => process.send?.(answer);

process.on("message", async (question: Question) => {
  if (question === "stop") process.exit(0);
  if (question === "cpu") return tell(cpu());
  if ("tokens" in question) {
    const signed = Array.from({ length: question.tokens }, () => signAccountToken(keys, { accountId: ACCOUNT }));
    return tell({ tokens: await Promise.all(signed) });
  }
  await callMany(question.memoryCalls, question.port);
  return tell(cpu());
});

const start = STARTS[name as SubjectName];
tell({ port: await start(), token: await signAccountToken(keys, { accountId: ACCOUNT }) });
