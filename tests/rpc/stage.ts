import { type ClientHttp2Session, connect, type IncomingHttpHeaders } from "node:http2";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { ErrorInfoSchema } from "#gen/google/rpc/error_details_pb.ts";
import { StatusSchema } from "#gen/google/rpc/status_pb.ts";
import { CatalogService, GetListingRequestSchema } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import type { ServiceModule } from "#runtime/service.ts";
import { rpcModule } from "../support/server.ts";

export const LISTING = "0198a0de-0000-7000-8000-000000000001";
export const GET_LISTING = "/marketplace.catalog.v1.CatalogService/GetListing";
export const LIST_CATEGORIES = "/marketplace.catalog.v1.CatalogService/ListCategories";
export const CREATE_LISTING = "/marketplace.catalog.v1.CatalogService/CreateListing";

/** How the handlers behave; a test sets what it needs. */
export interface Stage {
  handled: number;
  title: string;
  handler(context: HandlerContext): Promise<void> | void;
}

/** A catalog whose GetListing does as it is told. */
export function staged(): { stage: Stage; modules: ServiceModule[] } {
  const stage: Stage = { handled: 0, title: "", handler() {} };
  const catalog: Partial<ServiceImpl<typeof CatalogService>> = {
    async getListing({ listingId }, context) {
      stage.handled++;
      await stage.handler(context);
      return { listing: { listingId, title: stage.title } };
    },
    listCategories: () => ({}),
  };
  return { stage, modules: [rpcModule("catalog", (router) => router.service(CatalogService, catalog))] };
}

/** GetListing's request in binary. */
export function request(listingId: string = LISTING): Uint8Array {
  return toBinary(GetListingRequestSchema, create(GetListingRequestSchema, { listingId }));
}

/** Puts gRPC's five bytes in front of a message. */
export function envelope(message: Uint8Array, flags = 0): Buffer {
  const head = Buffer.alloc(5);
  head[0] = flags;
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

/** The messages of a body in gRPC's form, with their flags. */
export function envelopes(body: Buffer): { flags: number; data: Buffer }[] {
  const found: { flags: number; data: Buffer }[] = [];
  for (let at = 0; at < body.length; ) {
    const end = at + 5 + body.readUInt32BE(at + 1);
    found.push({ flags: body[at] as number, data: body.subarray(at + 5, end) });
    at = end;
  }
  return found;
}

/** An answer over HTTP/2 as it is on the wire. */
export interface RawAnswer {
  readonly headers: IncomingHttpHeaders;
  readonly trailers: IncomingHttpHeaders | undefined;
  readonly body: Buffer;
}

/** One call over HTTP/2. */
export async function raw(
  url: string,
  headers: Record<string, string>,
  body?: Uint8Array,
  path: string = GET_LISTING,
): Promise<RawAnswer> {
  const session: ClientHttp2Session = connect(url);
  try {
    return await new Promise<RawAnswer>((resolve, reject) => {
      const method = body === undefined ? "GET" : "POST";
      const stream = session.request({ ":method": method, ":path": path, ...headers }, { endStream: body === undefined });
      const chunks: Buffer[] = [];
      let answer: IncomingHttpHeaders = {};
      let trailers: IncomingHttpHeaders | undefined;
      stream.on("response", (received) => {
        answer = received;
      });
      stream.on("trailers", (received) => {
        trailers = received;
      });
      stream.on("data", (chunk: Buffer) => chunks.push(chunk));
      stream.on("error", reject);
      stream.on("end", () => resolve({ headers: answer, trailers, body: Buffer.concat(chunks) }));
      if (body !== undefined) stream.end(body);
    });
  } finally {
    session.destroy();
  }
}

/** The reason in `grpc-status-details-bin`. */
export function grpcReason(details: unknown): string | undefined {
  if (typeof details !== "string") return undefined;
  const [any] = fromBinary(StatusSchema, Buffer.from(details, "base64")).details;
  return any && fromBinary(ErrorInfoSchema, any.value).reason;
}

/** The reason in an error of Connect. */
export function connectReason(body: Buffer): string | undefined {
  const { details = [] } = JSON.parse(body.toString()) as { details?: { type: string; value: string }[] };
  const info = details.find(({ type }) => type === "google.rpc.ErrorInfo");
  return info && fromBinary(ErrorInfoSchema, Buffer.from(info.value, "base64")).reason;
}

/** The trailers that gRPC-Web puts at the end of the body. */
export function webTrailers(body: Buffer): Record<string, string> {
  const last = envelopes(body).at(-1);
  if (last === undefined || last.flags !== 0x80) return {};
  const lines = last.data.toString().split("\r\n").filter(Boolean);
  return Object.fromEntries(lines.map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1).trim()]));
}
