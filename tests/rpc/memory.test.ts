import assert from "node:assert/strict";
import { create } from "@bufbuild/protobuf";
import { type Client, Code, ConnectError, type Interceptor } from "@connectrpc/connect";
import {
  CatalogService,
  type GetListingRequest,
  type GetListingResponse,
  GetListingResponseSchema,
} from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { createDirectory, forAccount } from "#runtime/clients.ts";
import { fail, metadataOf, PAGE_TOKEN_INVALID, reasonOf, retryAfterMsOf } from "#runtime/errors.ts";
import { silentLog } from "#runtime/log.ts";
import type { CallObserver } from "#runtime/telemetry/observer.ts";
import { embeddedVerifiers, type Keys, serviceTokens, temporaryKeys } from "#runtime/tokens.ts";
import { rpcModule } from "../support/server.ts";
import { LISTING } from "./stage.ts";

describe("a call in memory", () => {
  let keys: Keys;
  let handler: (request: GetListingRequest) => GetListingResponse | Promise<GetListingResponse>;
  const answer = create(GetListingResponseSchema, { listing: { listingId: LISTING, title: "A lamp", photos: [{ photoId: "1" }] } });
  const routed = rpcModule("catalog", (router) =>
    router.service(CatalogService, { getListing: (request) => handler(request), batchCreateListings: () => ({}) }),
  );
  const catalogFor = (options: { observer?: CallObserver; interceptors?: Interceptor[] } = {}): Client<typeof CatalogService> => {
    const directory = createDirectory({ verifiers: embeddedVerifiers(keys), log: silentLog(), observer: options.observer });
    directory.host([routed]);
    return directory.clientsFor(serviceTokens(keys, "order"), options.interceptors).of(CatalogService);
  };
  before(async () => {
    keys = await temporaryKeys();
  });
  beforeEach(() => {
    handler = () => answer;
  });

  it("copies messages: neither side can change what the other has", async () => {
    let seen: GetListingRequest | undefined;
    handler = (request) => {
      seen = request;
      return answer;
    };
    const request = { listingId: LISTING };
    const got = await catalogFor().getListing(request);
    assert.deepEqual(got, answer);
    assert.notEqual(got.listing, answer.listing);
    got.listing?.photos.pop();
    assert.equal(answer.listing?.photos.length, 1);
    (seen as GetListingRequest).listingId = "changed";
    assert.equal(request.listingId, LISTING);
  });

  it("has its caller's time from when it was made: what it waits for before it is sent counts", async () => {
    let handled = 0;
    handler = () => {
      handled++;
      return answer;
    };
    const directory = createDirectory({ verifiers: embeddedVerifiers(keys), log: silentLog() });
    directory.host([routed]);
    const sign = serviceTokens(keys, "order");
    const slowly = async () => {
      await new Promise((resolve) => setTimeout(resolve, 40));
      return sign();
    };
    const call = directory.clientsFor(slowly).of(CatalogService).getListing({ listingId: LISTING }, { timeoutMs: 20 });
    await assert.rejects(call, (error: ConnectError) => reasonOf(error) === "DEADLINE_EXCEEDED");
    assert.equal(handled, 0);
  });

  it("copies errors with reason, metadata and wait, and nothing of what led to them", async () => {
    let thrown: unknown;
    handler = () => {
      try {
        return fail(PAGE_TOKEN_INVALID, { metadata: { page: "7" }, retryAfterMs: 250, cause: new Error("secret of the house") });
      } catch (error) {
        thrown = error;
        throw error;
      }
    };
    const error = await catalogFor()
      .getListing({ listingId: LISTING })
      .catch((each: unknown) => each);
    assert.ok(error instanceof ConnectError && error !== thrown);
    assert.deepEqual(
      [error.code, reasonOf(error), metadataOf(error), retryAfterMsOf(error), error.cause],
      [Code.InvalidArgument, "PAGE_TOKEN_INVALID", { page: "7" }, 250, undefined],
    );
  });

  it("is refused when its request is larger than the policy allows", async () => {
    const call = catalogFor().getListing({ listingId: "x".repeat(70_000) });
    await assert.rejects(call, (error) => reasonOf(error) === "REQUEST_TOO_LARGE");
  });

  it("lets others have their turn while many calls follow each other without waiting for anything", async () => {
    const catalog = catalogFor();
    // The first one's token is verified elsewhere, which is a turn.
    await catalog.getListing({ listingId: LISTING });
    let turns = 0;
    const timer = setInterval(() => turns++, 1);
    const enough = performance.now() + 100;
    while (performance.now() < enough) await catalog.getListing({ listingId: LISTING });
    clearInterval(timer);
    assert.ok(turns > 0);
  });

  it("is seen by its caller's interceptors, and carries what they add", async () => {
    const seen: (string | undefined)[] = [];
    const interceptor: Interceptor = (next) => async (request) => {
      seen.push(request.method.name, request.header.get("x-souk-account") ?? undefined);
      const response = await next(request);
      seen.push(response.stream ? undefined : response.message.$typeName);
      return response;
    };
    await catalogFor({ interceptors: [interceptor] }).getListing({ listingId: LISTING }, forAccount(LISTING));
    assert.deepEqual(seen, ["GetListing", LISTING, "marketplace.catalog.v1.GetListingResponse"]);
  });

  it("is told of by both sides, and the callee gets what the caller's side adds", async () => {
    const told: string[] = [];
    const observer: CallObserver = {
      clientCall: ({ method, target, setHeader }) => {
        setHeader("traceparent", "00-1");
        told.push(`${method.name} to ${target}`);
        return { run: (work) => work(), end: (error) => void told.push(`made ${error?.code ?? "well"}`) };
      },
      serverCall: ({ carriage, header }) => {
        told.push(`${carriage} within ${header("traceparent")}`);
        return { run: (work) => work(), end: (error) => void told.push(`served ${error?.code ?? "well"}`) };
      },
    };
    await catalogFor({ observer }).getListing({ listingId: LISTING });
    assert.deepEqual(told, ["GetListing to catalog", "memory within 00-1", "served well", "made well"]);
    told.length = 0;
    await assert.rejects(catalogFor({ observer }).getListing({ listingId: "x" }));
    assert.deepEqual(told.slice(2), ["served 3", "made 3"]);
  });
});
