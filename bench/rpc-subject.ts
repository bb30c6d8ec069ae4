// What the servers of `npm run bench -- rpc` have in common: one small message and one handler.

import { create, toBinary, toJsonString } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  CatalogService,
  Condition,
  GetListingRequestSchema,
  type GetListingResponse,
  GetListingResponseSchema,
  ListingState,
} from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import type { ServiceModule } from "#runtime/service.ts";

export const LISTING = "0198a0de-0000-7000-8000-000000000001";
export const ACCOUNT = "0198a0de-0000-7000-8000-00000000a11c";
export const METHOD_PATH = "/marketplace.catalog.v1.CatalogService/GetListing";
export const request = create(GetListingRequestSchema, { listingId: LISTING });
export const requestBytes: Uint8Array = toBinary(GetListingRequestSchema, request);
export const requestJson: string = toJsonString(GetListingRequestSchema, request);

/** The handler that every server runs. */
export function getListing(): GetListingResponse {
  return create(GetListingResponseSchema, {
    listing: {
      listingId: LISTING,
      sellerId: ACCOUNT,
      title: "A lamp of brass",
      condition: Condition.GOOD,
      state: ListingState.ACTIVE,
      price: { currencyCode: "USD", amountMinor: 5000n },
      createTime: timestampFromMs(1_700_000_000_000),
    },
  });
}

/** It as a service. */
export const catalogModule: ServiceModule = {
  name: "catalog",
  routes: (router) => router.service(CatalogService, { getListing: async () => getListing() }),
  consumers: [],
  jobs: [],
  recurring: [],
};

/** The servers there are to measure. */
export const SUBJECTS = ["floor", "grpc-js", "connect-node", "ours", "ours bare", "ours telemetry"] as const;
/** One of them. */
export type SubjectName = (typeof SUBJECTS)[number];

/** What is asked of a server's process. */
export type Question = "cpu" | "stop" | { readonly tokens: number } | { readonly memoryCalls: number; readonly port?: number };
/** What it tells: at first where it listens and a token, then what was asked. */
export type Answer = { port: number; token: string } | { cpuUs: number } | { tokens: string[] };
