import assert from "node:assert/strict";
import { getOption } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import { Health } from "#gen/grpc/health/v1/health_pb.ts";
import { CatalogService } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { method as policy } from "#gen/marketplace/policy/v1/policy_pb.ts";
import { fail, OVERLOADED, PERMISSION_DENIED, UNAVAILABLE } from "#runtime/errors.ts";
import { isRead, isRepeatable, newRequestId } from "../../client/calls.ts";
import { createSoukTransport, type SoukTransportOptions } from "../../client/transport.ts";
import { contractMethods, methodPath } from "../support/contract.ts";
import { refused } from "../support/refused.ts";
import { onServer, rpcModule } from "../support/server.ts";

describe("the client's transport", () => {
  const failures: (() => never)[] = [];
  let handled = 0;
  let sent: string[] = [];
  let server: Awaited<ReturnType<typeof onServer>>;

  before(async () => {
    const catalog = rpcModule("catalog", (router) =>
      router.service(CatalogService, {
        listBrands() {
          handled++;
          failures.shift()?.();
          return {};
        },
      }),
    );
    server = await onServer([catalog]);
  });
  after(() => server.stop());
  beforeEach(() => {
    failures.length = 0;
    handled = 0;
    sent = [];
  });

  const connect = (options: Partial<SoukTransportOptions> = {}) =>
    createSoukTransport({
      baseUrl: server.url,
      fetch: (input, init) => {
        sent.push(`${init?.method} ${new Headers(init?.headers).get("authorization")}`);
        return fetch(input, init);
      },
      ...options,
    });
  const listBrands = (options?: Partial<SoukTransportOptions>) => createClient(CatalogService, connect(options)).listBrands({});

  it("tries a call again that met a server that cannot answer now, and asks for the token anew", async () => {
    let tokens = 0;
    failures.push(
      () => fail(UNAVAILABLE),
      () => fail(OVERLOADED, { retryAfterMs: 1 }),
    );
    const token = async () => {
      tokens++;
      return undefined;
    };
    await listBrands({ token });
    assert.deepEqual([handled, tokens], [3, 3]);
    assert.deepEqual(sent, Array(3).fill("GET null"));
  });

  it("gives up after as many attempts as it is allowed, with the last error", async () => {
    failures.push(...Array(5).fill(() => fail(UNAVAILABLE)));
    await refused(listBrands({ maxAttempts: 2 }), "UNAVAILABLE");
    assert.equal(handled, 2);
  });

  it("does not try again what was refused, or what may have taken effect", async () => {
    failures.push(() => fail(PERMISSION_DENIED));
    await refused(listBrands(), "PERMISSION_DENIED");
    assert.equal(sent.length, 1);
    const nowhere = connect({ baseUrl: "http://127.0.0.1:9" });
    await refused(createClient(Health, nowhere).check({}), "UNAVAILABLE");
    assert.equal(sent.length, 2, "the health check does not say that it can be repeated");
  });

  it("names a marketplace that cannot be reached, after the same attempts", async () => {
    await refused(listBrands({ baseUrl: "http://127.0.0.1:9" }), "UNAVAILABLE");
    assert.equal(sent.length, 3);
  });

  it("waits for no attempt that the call's time does not allow", async () => {
    failures.push(() => fail(OVERLOADED, { retryAfterMs: 60_000 }));
    await refused(listBrands({ timeoutMs: 300 }), "DEADLINE_EXCEEDED");
    assert.equal(sent.length, 1);
  });

  it("repeats what the policy lets be tried more than once, and takes for a read what has no side effects", async () => {
    const methods = await contractMethods();
    for (const method of methods) {
      assert.equal(isRepeatable(method), getOption(method, policy).maxAttempts > 1, methodPath(method));
    }
    assert.deepEqual(
      methods.filter((method) => isRead(method) === method.input.fields.some(({ name }) => name === "request_id")).map(methodPath),
      [],
    );
  });

  it("makes request ids that the contract takes, and never the same again", () => {
    const ids = Array.from({ length: 1000 }, newRequestId);
    assert.equal(new Set(ids).size, 1000);
    for (const id of ids) assert.match(id, /^[A-Za-z0-9._:/-]{1,64}$/);
  });
});
