import assert from "node:assert/strict";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createClient, type Interceptor } from "@connectrpc/connect";
import { CatalogService } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { ACCOUNT_HEADER, SERVICE_TOKEN_HEADER } from "#runtime/access.ts";
import { type Call, callOf } from "#runtime/call.ts";
import { reasonOf } from "#runtime/errors.ts";
import { CLIENT_CERT_HEADER, lastUri, meshIdentity } from "#runtime/mesh-identity.ts";
import { embeddedVerifiers, type Keys, loadOrCreateKeys, serviceTokens, signAccountToken, temporaryKeys } from "#runtime/tokens.ts";
import { onServer, type Protocol, rpcModule, transportOf } from "../support/server.ts";

const ALICE = "0198a0de-0000-7000-8000-00000000a11c";
const NAMESPACE = "spiffe://cluster.local/ns/shop/sa";
const ORDER = `${NAMESPACE}/souk-order`;
const SEARCH = `${NAMESPACE}/souk-search`;
const GATEWAY = "spiffe://cluster.local/ns/istio-ingress/sa/istio-ingressgateway";

/** What the proxy in front of the catalog writes when it saw this URI. */
const seenBy = (uri: string) => `By=${NAMESPACE}/souk-catalog;Hash=0f2c;Subject="";URI=${uri}`;

describe("the last element of x-forwarded-client-cert", () => {
  it("names whom the proxy saw, whatever stands before it", () => {
    assert.equal(lastUri(seenBy(ORDER)), ORDER);
    assert.equal(lastUri(`${seenBy(ORDER)},${seenBy(SEARCH)}`), SEARCH);
    assert.equal(lastUri(`${seenBy(ORDER)}, ${seenBy(SEARCH)}`), SEARCH);
    assert.equal(lastUri(`By=a;Subject="CN=\\"x\\",O=y;URI=${ORDER}";URI=${SEARCH};DNS=b`), SEARCH);
    assert.equal(lastUri(`uri="${SEARCH}"`), SEARCH);
  });

  it("is not swallowed or outlived by one that came with the request", () => {
    const forgeries = [
      `By=a;Subject="`,
      `By=a;Subject="x\\`,
      `URI=${ORDER};Subject="`,
      `URI=${ORDER}"`,
      `"`,
      `URI=${ORDER};DNS`,
      `URI=${ORDER},,`,
      `URI=${ORDER};`,
    ];
    for (const forged of forgeries) {
      const uri = lastUri(`${forged},${seenBy(SEARCH)}`);
      assert.ok(uri === undefined || uri === SEARCH, forged);
    }
  });

  it("is nobody where it is no element, or has no URI or several", () => {
    const broken = ["", "nonsense", `URI=${ORDER},`, `URI=${ORDER};`, `URI=${ORDER},By=a`, `URI=${ORDER};URI=${SEARCH}`, "URI="];
    for (const text of broken) assert.equal(lastUri(text), undefined, text);
  });
});

describe("a URI of the mesh", () => {
  const identity = meshIdentity({ services: `${NAMESPACE}/souk-{service}`, gateway: GATEWAY });

  it("is a service, the gateway, or a stranger, and nothing is known without one", () => {
    assert.deepEqual(identity(seenBy(ORDER)), { service: "order" });
    assert.equal(identity(seenBy(GATEWAY)), "gateway");
    const strangers = [
      "spiffe://cluster.local/ns/other/sa/souk-order",
      "spiffe://evil.example/ns/shop/sa/souk-order",
      `${NAMESPACE}/souk-`,
      `${NAMESPACE}/souk-order/x`,
      `${NAMESPACE}/souk-Order`,
      `${NAMESPACE}/order`,
      `x${ORDER}`,
    ];
    for (const uri of strangers) assert.equal(identity(seenBy(uri)), "stranger", uri);
    assert.equal(identity("broken"), "stranger");
    assert.equal(identity(undefined), undefined);
  });

  it("may be anybody's who brings an account's token, where no gateway is named", () => {
    const open = meshIdentity({ services: `${NAMESPACE}/souk-{service}` });
    assert.equal(open(seenBy("spiffe://cluster.local/ns/other/sa/ingress")), "gateway");
    assert.deepEqual(open(seenBy(ORDER)), { service: "order" });
    assert.equal(open("broken"), "stranger");
  });
});

for (const protocol of ["Connect JSON", "gRPC"] satisfies Protocol[]) {
  describe(`a server in a mesh, over ${protocol}`, () => {
    let keys: Keys;
    let server: Awaited<ReturnType<typeof onServer>>;
    let plain: Awaited<ReturnType<typeof onServer>>;
    let seen: Call | undefined;

    before(async () => {
      keys = await temporaryKeys();
      const catalog = rpcModule("catalog", (router) =>
        router.service(CatalogService, {
          listCategories: (_request, context) => {
            seen = callOf(context);
            return {};
          },
        }),
      );
      const mesh = meshIdentity({ services: `${NAMESPACE}/souk-{service}`, gateway: GATEWAY });
      const verifiers = embeddedVerifiers(keys);
      server = await onServer([catalog], protocol, { verifiers: { ...verifiers, mesh } });
      plain = await onServer([catalog], protocol, { verifiers });
    });
    after(async () => {
      await server.stop();
      await plain.stop();
    });

    /** Who the catalog says calls with these headers, or why it refuses. */
    async function caller(headers: Record<string, string>, { url } = server) {
      seen = undefined;
      const withHeaders: Interceptor = (next) => (request) => {
        for (const [name, value] of Object.entries(headers)) request.header.set(name, value);
        return next(request);
      };
      try {
        await createClient(CatalogService, transportOf(protocol, url, [withHeaders])).listCategories({});
        return (seen as Call | undefined)?.caller;
      } catch (error) {
        return reasonOf(error);
      }
    }

    it("knows a service by its certificate, and the account that it acts for", async () => {
      const headers = { [CLIENT_CERT_HEADER]: seenBy(SEARCH), [ACCOUNT_HEADER]: ALICE };
      assert.deepEqual(await caller(headers), { kind: "service", service: "search", accountId: ALICE });
      assert.equal(await caller({ ...headers, [ACCOUNT_HEADER]: "alice" }), "TOKEN_INVALID");
    });

    it("believes neither an earlier element nor a service's token, however well signed", async () => {
      const forged = { [CLIENT_CERT_HEADER]: `${seenBy(SEARCH)},${seenBy(ORDER)}` };
      assert.equal(await caller(forged), "PERMISSION_DENIED");
      const token = await serviceTokens(keys, "search")();
      assert.equal(await caller({ [CLIENT_CERT_HEADER]: seenBy(ORDER), [SERVICE_TOKEN_HEADER]: token }), "PERMISSION_DENIED");
      assert.deepEqual(await caller({ [SERVICE_TOKEN_HEADER]: token }), { kind: "anonymous" });
    });

    it("takes accounts from the gateway, for whom no header speaks but their token", async () => {
      const authorization = `Bearer ${await signAccountToken(keys, { accountId: ALICE })}`;
      const headers = { [CLIENT_CERT_HEADER]: seenBy(GATEWAY), [ACCOUNT_HEADER]: "0198a0de-0000-7000-8000-000000000b0b" };
      assert.deepEqual(await caller({ ...headers, authorization }), { kind: "account", accountId: ALICE, operator: false });
      assert.deepEqual(await caller(headers), { kind: "anonymous" });
    });

    it("refuses whom the mesh knows and we do not, whatever token he brings", async () => {
      const authorization = `Bearer ${await signAccountToken(keys, { accountId: ALICE })}`;
      const stranger = seenBy("spiffe://cluster.local/ns/other/sa/souk-search");
      assert.equal(await caller({ [CLIENT_CERT_HEADER]: stranger, authorization }), "PERMISSION_DENIED");
    });

    it("believes no certificate that a header tells of, unless it was told to", async () => {
      assert.deepEqual(await caller({ [CLIENT_CERT_HEADER]: seenBy(SEARCH) }, plain), { kind: "anonymous" });
      const token = await serviceTokens(plain.keys, "search")();
      const headers = { [CLIENT_CERT_HEADER]: seenBy(ORDER), [SERVICE_TOKEN_HEADER]: token };
      assert.equal(await caller(headers, plain), "TOKEN_INVALID", "signed by another's key");
    });
  });
}

describe("the keys of a process in a mesh", () => {
  let dir: string;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), "souk-keys-"));
  });
  afterEach(() => rm(dir, { recursive: true }));

  it("need none for the services, and keep one that is there", async () => {
    await loadOrCreateKeys(dir, { services: false });
    assert.deepEqual((await readdir(dir)).sort(), ["accounts.pem", "page-tokens.key"]);
    const whole = await loadOrCreateKeys(dir);
    const token = await serviceTokens(await loadOrCreateKeys(dir, { services: false }), "order")();
    assert.equal(await embeddedVerifiers(whole).services(token), "order");
  });
});
