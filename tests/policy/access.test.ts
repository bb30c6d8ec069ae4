import assert from "node:assert/strict";
import type { DescMessage, DescMethod, DescMethodUnary, MessageInitShape } from "@bufbuild/protobuf";
import { type CallOptions, createClient, type Interceptor } from "@connectrpc/connect";
import { ACCOUNT_HEADER } from "#runtime/access.ts";
import { reasonOf } from "#runtime/errors.ts";
import { contractMethods, methodPath } from "../support/contract.ts";
import { demo, type TestMarketplace, testMarketplace } from "../support/marketplace.ts";
import { type Identity, signedIn } from "../support/server.ts";
import { type AccessFixture, accessFixture, SERVICES } from "./fixture.ts";
import { type Expected, rows } from "./rows.ts";

/** Reasons that say the caller may not, rather than that the request is wrong. */
const REFUSALS = new Set(["TOKEN_MISSING", "TOKEN_INVALID", "PERMISSION_DENIED"]);
/** Reasons that no caller should ever see here. */
const FAULTS = new Set(["INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED"]);

describe("who may call what", () => {
  let marketplace: TestMarketplace;
  let fixture: AccessFixture;
  let methods: DescMethod[];

  before(async () => {
    methods = await contractMethods();
    marketplace = await testMarketplace();
    fixture = await accessFixture(marketplace);
  });
  after(() => marketplace.stop());

  it("has a row for every method of the contract and for no other", () => {
    assert.deepEqual(Object.keys(rows).sort(), methods.map(shortPath).sort());
  });

  for (const [path, row] of Object.entries(rows)) {
    it(`${path} admits exactly the callers it should`, async () => {
      const method = methods.find((each) => shortPath(each) === path);
      assert.ok(method, "the method is in the contract");
      const message = row.request?.(fixture) ?? {};
      const owner = row.owner ?? "ada";
      const outcomes: Record<string, string> = {};
      const expected: Record<string, string> = {};
      const attempt = async (name: string, identity: Identity, expectation: Expected): Promise<void> => {
        expected[name] = expectation;
        outcomes[name] = named(await outcome(marketplace, method, message, identity, owner), expectation);
      };
      await attempt("anonymous", undefined, row.anonymous);
      await attempt("other account", demo("tess"), row.other);
      for (const service of SERVICES) {
        const admitted = row.services.includes(service);
        await attempt(`service ${service}`, { service }, admitted ? "admitted" : "PERMISSION_DENIED");
      }
      await attempt("operator", demo("olga"), row.operator);
      await attempt("owner", demo(owner), row.ownerMay ?? "admitted");
      assert.deepEqual(outcomes, expected);
    });
  }
});

/** An expectation of "admitted" is met by any outcome that is neither a refusal nor a fault. */
function named(actual: string, expectation: Expected): string {
  return expectation === "admitted" && !REFUSALS.has(actual) && !FAULTS.has(actual) ? "admitted" : actual;
}

function shortPath(method: DescMethod): string {
  return methodPath(method).replace("marketplace.", "");
}

/** The reason of the error, or "ok". A service acts for the owner. */
async function outcome(
  marketplace: TestMarketplace,
  method: DescMethod,
  message: object,
  identity: Identity,
  owner: string,
): Promise<string> {
  const module = method.parent.name === "MaintenanceService" ? "payment" : undefined;
  const actingFor: Interceptor = (next) => (request) => {
    request.header.set(ACCOUNT_HEADER, demo(owner).account);
    return next(request);
  };
  const transport = marketplace.directory.transport(method.parent, module, [
    signedIn(marketplace.keys, identity),
    ...(identity !== undefined && "service" in identity ? [actingFor] : []),
  ]);
  try {
    if (method.methodKind === "server_streaming") {
      const client = createClient(method.parent, transport) as unknown as Record<
        string,
        (input: object, options: CallOptions) => AsyncIterable<unknown>
      >;
      const enough = new AbortController();
      for await (const _ of client[method.localName]?.(message, { signal: enough.signal }) ?? []) break;
      enough.abort();
    } else {
      const unary = method as DescMethodUnary<DescMessage, DescMessage>;
      await transport.unary(unary, undefined, 10_000, undefined, message as MessageInitShape<DescMessage>);
    }
    return "ok";
  } catch (error) {
    return reasonOf(error) ?? String(error);
  }
}
