import { Agent, request } from "node:http";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { createClient, type Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport } from "@connectrpc/connect-node";
import { credentials, Client as GrpcClient } from "@grpc/grpc-js";
import { CatalogService, GetListingRequestSchema, GetListingResponseSchema } from "#gen/marketplace/catalog/v1/catalog_pb.ts";

/** The path of the call that all clients make. */
export const GET_LISTING = "/marketplace.catalog.v1.CatalogService/GetListing";

const MAX_SENDS = 10;
/** So many failures are enough to know. */
const MAX_FAILURES = 100;

/** One way to call. It keeps its connections, and sends nothing again but what certainly was not begun. */
export interface Caller {
  /** How often it sent a call again. */
  resent: number;
  /** Asks for a listing; fails when the answer is not that listing. */
  call(listingId: string): Promise<void>;
  close(): void;
}

/** The clients that people have. */
export const CALLERS: Readonly<Record<string, (url: string) => Caller>> = {
  "grpc-js": grpcJs,
  "connect-node over gRPC": (baseUrl) => connectNode(createGrpcTransport({ baseUrl })),
  "connect-node over HTTP/2": (baseUrl) => connectNode(createConnectTransport({ baseUrl, httpVersion: "2" })),
  "HTTP/1.1 with keep-alive": keepAlive,
};

function same(found: string | undefined, wanted: string): void {
  if (found !== wanted) throw new Error(`asked for ${wanted}, got ${found}`);
}

function grpcJs(url: string): Caller {
  const client = new GrpcClient(new URL(url).host, credentials.createInsecure());
  return {
    resent: 0,
    call: (listingId) =>
      new Promise((resolve, reject) => {
        client.makeUnaryRequest(
          GET_LISTING,
          (bytes: Uint8Array) => Buffer.from(bytes),
          (bytes: Buffer) => fromBinary(GetListingResponseSchema, bytes).listing?.listingId,
          toBinary(GetListingRequestSchema, create(GetListingRequestSchema, { listingId })),
          (error, found) => (error ? reject(error) : resolve(same(found, listingId))),
        );
      }),
    close: () => client.close(),
  };
}

function connectNode(transport: Transport): Caller {
  const client = createClient(CatalogService, transport);
  const caller: Caller = {
    resent: 0,
    async call(listingId) {
      for (let sends = 1; ; sends++) {
        try {
          return same((await client.getListing({ listingId })).listing?.listingId, listingId);
        } catch (error) {
          // Node's client refuses what it had not sent when the GOAWAY came; this library leaves it to its caller to send that again.
          if (sends === MAX_SENDS || !/NGHTTP2_REFUSED_STREAM/.test(String(error))) throw error;
          caller.resent++;
        }
      }
    },
    close() {},
  };
  return caller;
}

function keepAlive(url: string): Caller {
  const agent = new Agent({ keepAlive: true, maxSockets: 8 });
  return {
    resent: 0,
    call: (listingId) =>
      new Promise((resolve, reject) => {
        const call = request(url + GET_LISTING, { method: "POST", agent, headers: { "content-type": "application/json" } });
        call.on("error", reject);
        call.on("response", async (response) => {
          try {
            let text = "";
            for await (const chunk of response) text += chunk;
            resolve(same(JSON.parse(text).listing?.listingId, listingId));
          } catch (error) {
            reject(error);
          }
        });
        call.end(JSON.stringify({ listingId }));
      }),
    close: () => agent.destroy(),
  };
}

/** Calls with so many at once until told to stop. What failed is in `failures`. */
export class Load {
  answered = 0;
  readonly failures: string[] = [];
  readonly #caller: Caller;
  readonly #loops: Promise<void>[];
  #stopped = false;

  constructor(caller: Caller, concurrency: number, idOf: (call: number) => string) {
    this.#caller = caller;
    let next = 0;
    this.#loops = Array.from({ length: concurrency }, async () => {
      while (!this.#stopped && this.failures.length < MAX_FAILURES) {
        await caller.call(idOf(next++)).then(
          () => this.answered++,
          (error) => this.failures.push(String(error)),
        );
      }
    });
  }

  /** Ends once all calls have their answer. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#loops);
    this.#caller.close();
  }
}
