import assert from "node:assert/strict";
import { create, createFileRegistry, type DescMethod, type MessageInitShape, setExtension } from "@bufbuild/protobuf";
import {
  FileDescriptorProtoSchema,
  FileDescriptorSetSchema,
  MethodOptions_IdempotencyLevel as Level,
  MethodOptionsSchema,
} from "@bufbuild/protobuf/wkt";
import { CatalogService } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { OrderService } from "#gen/marketplace/order/v1/order_pb.ts";
import { PolicySchema, method as policyOption } from "#gen/marketplace/policy/v1/policy_pb.ts";
import { policyOf, policyProblems, readPolicies } from "#runtime/policy.ts";

type PolicyInit = MessageInitShape<typeof PolicySchema>;

const GOOD: PolicyInit = { callers: { account: true }, timeout: { seconds: 1n }, budget: { availabilityPpm: 999_000 } };

/** A method of a contract made for the test. */
function methodWith(policy: PolicyInit | undefined, options: { level?: Level; streams?: boolean } = {}): DescMethod {
  const methodOptions = create(MethodOptionsSchema, { idempotencyLevel: options.level ?? Level.IDEMPOTENCY_UNKNOWN });
  if (policy !== undefined) setExtension(methodOptions, policyOption, create(PolicySchema, policy));
  const file = create(FileDescriptorProtoSchema, {
    name: "test.proto",
    package: "test",
    syntax: "proto3",
    messageType: [{ name: "Empty" }],
    service: [
      {
        name: "TestService",
        method: [
          {
            name: "Try",
            inputType: ".test.Empty",
            outputType: ".test.Empty",
            options: methodOptions,
            serverStreaming: options.streams ?? false,
          },
        ],
      },
    ],
  });
  const registry = createFileRegistry(create(FileDescriptorSetSchema, { file: [file] }));
  return registry.getService("test.TestService")?.methods[0] as DescMethod;
}

function problem(policy: PolicyInit | undefined, options = {}): string {
  const problems = policyProblems(methodWith(policy, options));
  assert.equal(problems.length, 1, problems.join("\n"));
  return problems[0] as string;
}

describe("the policy of a method", () => {
  it("is accepted when it is whole", () => {
    assert.deepEqual(policyProblems(methodWith(GOOD)), []);
    assert.deepEqual(policyProblems(methodWith({ ...GOOD, maxAttempts: 3 }, { level: Level.IDEMPOTENT })), []);
    assert.deepEqual(
      policyProblems(methodWith({ ...GOOD, timeout: undefined, maxStreamAge: { seconds: 60n } } as PolicyInit, { streams: true })),
      [],
    );
  });
  it("may not be missing", () => assert.match(problem(undefined), /declares no policy/));
  it("admits somebody", () => assert.match(problem({ ...GOOD, callers: {} }), /admits no caller/));
  it("bounds the time of a call", () => {
    const { timeout: _, ...endless } = GOOD;
    assert.match(problem(endless), /declares no timeout/);
    assert.match(problem(endless, { streams: true }), /neither a timeout nor max_stream_age/);
    assert.match(problem({ ...GOOD, timeout: { seconds: 61n } }), /outside 1 ms to 60 s/);
    assert.match(problem({ ...GOOD, maxStreamAge: { seconds: 60n } }), /is unary and declares max_stream_age/);
  });
  it("allows several attempts only where the idempotency level does", () => {
    assert.match(problem({ ...GOOD, maxAttempts: 2 }), /may be tried 2 times but declares no idempotency_level/);
    assert.match(problem({ ...GOOD, maxAttempts: 6 }, { level: Level.IDEMPOTENT }), /5 is the most/);
  });
  it("keeps answers only of methods without side effects, and shared ones only for anyone", () => {
    const cache = { maxAge: { seconds: 5n } };
    assert.match(problem({ ...GOOD, cache }), /has side effects and declares a cache/);
    assert.match(problem({ ...GOOD, cache: { ...cache, shared: true } }, { level: Level.NO_SIDE_EFFECTS }), /not anyone may see/);
  });
  it("bounds the request and promises something", () => {
    assert.match(problem({ ...GOOD, maxRequestBytes: 5_000_000 }), /4194304 is the most/);
    const { budget: _, ...silent } = GOOD;
    assert.match(problem(silent), /declares no budget/);
  });
  it("is read with its defaults filled in", () => {
    const read = policyOf(CatalogService.method.getListing);
    assert.deepEqual([read.timeoutMs, read.maxRequestBytes, read.cacheControl], [2000, 65_536, "private, max-age=5"]);
    assert.equal(policyOf(CatalogService.method.batchCreateListings).maxRequestBytes, 4_194_304);
    assert.deepEqual(
      [policyOf(OrderService.method.watchOrder).timeoutMs, policyOf(OrderService.method.watchOrder).maxStreamAgeMs],
      [undefined, 600_000],
    );
  });
  it("stops the start, with all problems at once", () => {
    assert.throws(
      () => readPolicies([methodWith(undefined).parent, methodWith({ ...GOOD, callers: {} }).parent]),
      /no policy.*no caller/s,
    );
  });
});
