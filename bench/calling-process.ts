// One kind of client in a process of its own. It makes as many calls as it is told over IPC, and tells what they cost.

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { createClient, type Interceptor, type Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { credentials, Client as GrpcJsClient, Metadata } from "@grpc/grpc-js";
import {
  CatalogService,
  type GetListingRequest,
  GetListingRequestSchema,
  type GetListingResponse,
  GetListingResponseSchema,
} from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { openGrpcClient } from "#runtime/client/transport.ts";
import { openPeers } from "#runtime/peers.ts";

/** What the benchmark asks for: so many calls, so many at once, spread over so many clients with connections of their own. */
export interface CallsWanted {
  readonly calls: number;
  readonly clients: number;
  readonly concurrency: number;
}
/** What they cost, in µs a call. */
export interface CallsMade {
  readonly cpuUs: number;
  readonly wallUs: number;
}

type Call = () => Promise<unknown>;

const LISTING = "01900000-0000-7000-8000-0000000000a1";
const PATH = "/marketplace.catalog.v1.CatalogService/GetListing";
const TIMEOUT_MS = 30_000;
const TOKEN = "t".repeat(300);
const signed: Interceptor = (next) => (request) => {
  request.header.set("x-souk-service-token", TOKEN);
  return next(request);
};

const KINDS: Readonly<Record<string, (baseUrl: string) => Call>> = {
  "grpc-js": (baseUrl) => bare(baseUrl, () => new Metadata(), {}),
  "grpc-js, deadline and headers": (baseUrl) =>
    bare(
      baseUrl,
      () => {
        const metadata = new Metadata();
        metadata.set("x-souk-service-token", TOKEN);
        metadata.set("x-souk-service", "catalog");
        return metadata;
      },
      { deadline: TIMEOUT_MS },
    ),
  client: (baseUrl) => typed(openGrpcClient({ baseUrl }).transport()),
  "client, policy, deadline and headers": (baseUrl) => typed(openPeers({ urlOf: () => baseUrl }).open("catalog", [signed])),
  "connect-node gRPC": (baseUrl) => typed(createGrpcTransport({ baseUrl })),
  "connect-node Connect": (baseUrl) => typed(createConnectTransport({ baseUrl, httpVersion: "2" })),
};

function typed(transport: Transport): Call {
  const client = createClient(CatalogService, transport);
  return () => client.getListing({ listingId: LISTING });
}

function bare(baseUrl: string, metadataOf: () => Metadata, options: { deadline?: number }): Call {
  const client = new GrpcJsClient(baseUrl.replace("http://", ""), credentials.createInsecure(), {
    "grpc.use_local_subchannel_pool": 1,
  });
  const serialize = (message: GetListingRequest) => {
    const bytes = toBinary(GetListingRequestSchema, message);
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  };
  const deserialize = (bytes: Buffer) => fromBinary(GetListingResponseSchema, bytes);
  return () =>
    new Promise<GetListingResponse>((resolve, reject) => {
      const message = create(GetListingRequestSchema, { listingId: LISTING });
      const callOptions = options.deadline === undefined ? {} : { deadline: Date.now() + options.deadline };
      client.makeUnaryRequest(PATH, serialize, deserialize, message, metadataOf(), callOptions, (error, answer) => {
        if (error !== null || answer === undefined) reject(error);
        else resolve(answer);
      });
    });
}

const [kind = "", url = ""] = process.argv.slice(2);
const open = KINDS[kind];
if (open === undefined) throw new Error(`There is no client "${kind}".`);
const pools = new Map<number, Call[]>();

async function make({ calls, clients, concurrency }: CallsWanted): Promise<CallsMade> {
  const pool = pools.get(clients) ?? Array.from({ length: clients }, () => (open as (baseUrl: string) => Call)(url));
  pools.set(clients, pool);
  let left = calls;
  const begun = process.cpuUsage();
  const startTime = performance.now();
  const worker = async (call: Call) => {
    while (left-- > 0) await call();
  };
  await Promise.all(Array.from({ length: concurrency }, (_, index) => worker(pool[index % clients] as Call)));
  const { user, system } = process.cpuUsage(begun);
  return { cpuUs: (user + system) / calls, wallUs: ((performance.now() - startTime) * 1000) / calls };
}

process.on("message", async (wanted: CallsWanted) => process.send?.(await make(wanted)));
process.on("disconnect", () => process.exit());
process.send?.("ready");
