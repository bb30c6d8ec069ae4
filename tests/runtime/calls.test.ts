import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { Code, ConnectError, type ServiceImpl } from "@connectrpc/connect";
import { BadRequestSchema } from "#gen/google/rpc/error_details_pb.ts";
import { CatalogService } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { OpsService } from "#gen/marketplace/ops/v1/ops_pb.ts";
import { OrderService } from "#gen/marketplace/order/v1/order_pb.ts";
import { type Call, type Caller, callOf } from "#runtime/call.ts";
import { fail, metadataOf, PAGE_TOKEN_INVALID, reasonOf, retryAfterMsOf, UNAVAILABLE, violationsOf } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { overBothTransports, rpcModule } from "../support/server.ts";

const ALICE = "0198a0de-0000-7000-8000-00000000a11c";
const LISTING = "0198a0de-0000-7000-8000-000000000001";

/** What the handlers saw, and how they behave. */
interface Stage {
  call: Call | undefined;
  handled: number;
  handler: (call: Call) => Promise<unknown>;
  streamEnded: boolean;
}

const stage: Stage = { call: undefined, handled: 0, handler: async () => {}, streamEnded: false };

const catalog: Partial<ServiceImpl<typeof CatalogService>> = {
  async getListing({ listingId }, context) {
    stage.call = callOf(context);
    stage.handled++;
    await stage.handler(stage.call);
    return { listing: { listingId } };
  },
  async createListing(_request, context) {
    stage.call = callOf(context);
    stage.handled++;
    await stage.handler(stage.call);
    return {};
  },
  scanListings: () => ({}),
};
const order: Partial<ServiceImpl<typeof OrderService>> = {
  async *watchOrder({ orderId }, context) {
    stage.call = callOf(context);
    try {
      yield { order: { orderId } };
      await stage.handler(stage.call);
      yield { order: { orderId } };
    } finally {
      stage.streamEnded = true;
    }
  },
};
const modules = () => [
  rpcModule("catalog", (router) => router.service(CatalogService, catalog)),
  rpcModule("order", (router) => router.service(OrderService, order)),
  rpcModule("ops", (router) => router.service(OpsService, { getTrialBalance: () => ({}) })),
];

async function refusal(promise: Promise<unknown>): Promise<ConnectError> {
  const error = await promise.then(
    () => assert.fail("The call succeeded."),
    (error: unknown) => error,
  );
  assert.ok(error instanceof ConnectError, String(error));
  return error;
}

/** Asserts a failure by reason and code. */
async function fails(promise: Promise<unknown>, reason: string, code: Code): Promise<ConnectError> {
  const error = await refusal(promise);
  assert.deepEqual([reasonOf(error), Code[error.code]], [reason, Code[code]], error.message);
  return error;
}

async function all<T>(stream: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of stream) items.push(item);
  return items;
}

function seenCaller(): Caller | undefined {
  return stage.call?.caller;
}

overBothTransports(
  "a call",
  modules,
  (subject) => {
    beforeEach(() => {
      Object.assign(stage, { call: undefined, handled: 0, handler: async () => {}, streamEnded: false });
    });
    const catalogAs = (identity?: Parameters<ReturnType<typeof subject>["client"]>[1]) =>
      subject().client(CatalogService, identity);
    const draft = { requestId: "r1", listing: {} };

    describe("identity and access", () => {
      it("serves anybody where the policy says anyone", async () => {
        await catalogAs().getListing({ listingId: LISTING });
        assert.deepEqual(seenCaller(), { kind: "anonymous" });
      });
      it("knows an account by its token", async () => {
        await catalogAs({ account: ALICE }).getListing({ listingId: LISTING });
        assert.deepEqual(seenCaller(), { kind: "account", accountId: ALICE, operator: false });
      });
      it("knows an operator by the role in the token", async () => {
        await catalogAs({ account: ALICE, operator: true }).getListing({ listingId: LISTING });
        assert.deepEqual(seenCaller(), { kind: "account", accountId: ALICE, operator: true });
      });
      it("knows a service by its token, and believes the account that it names", async () => {
        await catalogAs({ service: "order" }).getListing({ listingId: LISTING });
        assert.deepEqual(seenCaller(), { kind: "service", service: "order" });
        await catalogAs({ service: "order" }).getListing({ listingId: LISTING }, { headers: { "x-souk-account": ALICE } });
        assert.deepEqual(seenCaller(), { kind: "service", service: "order", accountId: ALICE });
      });
      it("does not believe an account that anybody else names", async () => {
        await catalogAs().getListing({ listingId: LISTING }, { headers: { "x-souk-account": ALICE } });
        assert.deepEqual(seenCaller(), { kind: "anonymous" });
      });
      it("asks for a token where an account is needed", async () => {
        await fails(catalogAs().createListing(draft), "TOKEN_MISSING", Code.Unauthenticated);
        assert.equal(stage.handled, 0);
      });
      it("refuses an account where an operator is needed", async () => {
        const ops = (operator: boolean) => subject().client(OpsService, { account: ALICE, operator });
        await fails(ops(false).getTrialBalance({}), "PERMISSION_DENIED", Code.PermissionDenied);
        await ops(true).getTrialBalance({});
      });
      it("refuses services that the policy does not name, and accounts where it names services only", async () => {
        await fails(catalogAs({ service: "payment" }).scanListings({}), "PERMISSION_DENIED", Code.PermissionDenied);
        await fails(catalogAs({ account: ALICE }).scanListings({}), "PERMISSION_DENIED", Code.PermissionDenied);
        await fails(catalogAs().scanListings({}), "PERMISSION_DENIED", Code.PermissionDenied);
        await catalogAs({ service: "search" }).scanListings({});
      });
      it("refuses a service that names no account's id", async () => {
        const headers = { "x-souk-account": "alice" };
        await fails(
          catalogAs({ service: "order" }).getListing({ listingId: LISTING }, { headers }),
          "TOKEN_INVALID",
          Code.Unauthenticated,
        );
      });
    });

    describe("validation", () => {
      it("names each field at fault", async () => {
        const error = await fails(catalogAs().getListing({ listingId: "1" }), "INVALID_REQUEST", Code.InvalidArgument);
        assert.deepEqual(
          violationsOf(error).map(({ field, rule }) => [field, rule]),
          [["listing_id", "string.uuid"]],
        );
        assert.equal(error.findDetails(BadRequestSchema).length, 1);
        assert.equal(stage.handled, 0);
      });
    });

    describe("errors", () => {
      it("carry the reason, code, metadata and wait of the handler", async () => {
        stage.handler = async () => fail(PAGE_TOKEN_INVALID, { metadata: { page: "7" }, retryAfterMs: 1250 });
        const error = await fails(catalogAs().getListing({ listingId: LISTING }), "PAGE_TOKEN_INVALID", Code.InvalidArgument);
        assert.deepEqual(metadataOf(error), { page: "7" });
        assert.equal(retryAfterMsOf(error), 1250);
      });
      it("tell nothing inner, only the id of the log line", async () => {
        stage.handler = async () => {
          throw new Error("secret of the house");
        };
        const error = await fails(catalogAs().getListing({ listingId: LISTING }), "INTERNAL", Code.Internal);
        assert.match(metadataOf(error).error_id ?? "", /^[0-9a-f-]{36}$/);
        assert.doesNotMatch(JSON.stringify([error.message, error.details]), /secret/);
      });
      it("without a reason that a handler lets through are our fault", async () => {
        stage.handler = async () => {
          throw new ConnectError("inner", Code.NotFound);
        };
        await fails(catalogAs().getListing({ listingId: LISTING }), "INTERNAL", Code.Internal);
      });
      it("name methods that are not implemented yet", async () => {
        await fails(catalogAs().listBrands({}), "UNIMPLEMENTED", Code.Unimplemented);
      });
    });

    describe("time", () => {
      it("gives a call the method's timeout when the caller gives none, and the caller's when that is shorter", async () => {
        const before = Date.now();
        await catalogAs().getListing({ listingId: LISTING });
        const own = (stage.call?.deadline ?? 0) - before;
        assert.ok(own >= 2000 && own < 3000, `${own}`);
        await catalogAs().getListing({ listingId: LISTING }, { timeoutMs: 300 });
        assert.ok((stage.call?.deadline ?? 0) - Date.now() <= 300);
        await catalogAs().getListing({ listingId: LISTING }, { timeoutMs: 60_000 });
        assert.ok((stage.call?.deadline ?? 0) - Date.now() <= 2000);
      });
      it("ends a call at its deadline even when the handler does not, and tells the handler", async () => {
        let told: unknown;
        stage.handler = async ({ signal }) => {
          signal.addEventListener("abort", () => {
            told = signal.reason;
          });
          await sleep(400);
        };
        await fails(catalogAs().getListing({ listingId: LISTING }, { timeoutMs: 60 }), "DEADLINE_EXCEEDED", Code.DeadlineExceeded);
        await sleep(20);
        // The caller, whose clock runs too, may be gone before our own deadline.
        assert.ok(["DEADLINE_EXCEEDED", "CANCELLED"].includes(reasonOf(told) ?? ""), String(told));
      });
      it("tells the handler when the caller goes away", async () => {
        const aborted = Promise.withResolvers<unknown>();
        const caller = new AbortController();
        stage.handler = async ({ signal }) => {
          signal.addEventListener("abort", () => aborted.resolve(signal.reason));
          caller.abort();
          await aborted.promise;
        };
        await refusal(catalogAs().getListing({ listingId: LISTING }, { signal: caller.signal }));
        assert.equal(reasonOf(await aborted.promise), "CANCELLED");
      });
    });

    describe("a stream", () => {
      const watch = (options = {}) => subject().client(OrderService, { account: ALICE }).watchOrder({ orderId: newId() }, options);

      it("is behind the same duties", async () => {
        const anonymous = subject().client(OrderService).watchOrder({ orderId: newId() });
        await fails(all(anonymous), "TOKEN_MISSING", Code.Unauthenticated);
        const invalid = subject().client(OrderService, { account: ALICE }).watchOrder({ orderId: "x" });
        await fails(all(invalid), "INVALID_REQUEST", Code.InvalidArgument);
      });
      it("delivers its messages and ends", async () => {
        assert.equal((await all(watch())).length, 2);
      });
      it("carries the handler's reason after messages", async () => {
        stage.handler = async () => fail(UNAVAILABLE);
        let messages = 0;
        const reading = (async () => {
          for await (const _ of watch()) messages++;
        })();
        const error = await fails(reading, "UNAVAILABLE", Code.Unavailable);
        assert.equal(messages, 1);
        assert.ok(error.details.length > 0);
      });
      it("ends in the handler when its reader leaves", async () => {
        stage.handler = ({ signal }) => new Promise((resolve) => signal.addEventListener("abort", resolve));
        const reader = new AbortController();
        const reading = (async () => {
          for await (const _ of watch({ signal: reader.signal })) reader.abort();
        })();
        await fails(reading, "CANCELLED", Code.Canceled);
        for (let i = 0; i < 100 && !stage.streamEnded; i++) await sleep(10);
        assert.ok(stage.streamEnded);
      });
    });
  },
  ["Connect JSON", "Connect protobuf", "gRPC", "gRPC-Web"],
);
