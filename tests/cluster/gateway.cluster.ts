import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { connect } from "node:http2";
import { ConnectError, createClient } from "@connectrpc/connect";
import { CatalogService } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { GATEWAY_NAMESPACE, GATEWAY_URL, type Installed, install, issuer, until } from "./cluster.ts";
import { type Secured, secure, securely, startCatalog } from "./secure.ts";
import { askGateway, type GatewayAnswer } from "./through-gateway.ts";

const HOST = "gateway-test.souk.example";
/** Of another installation behind the same gateway, over HTTPS. */
const SECURE_HOST = "secure-test.souk.example";
const ERASE = "/marketplace.account.v1.AccountService/EraseAccount";
const GET_LISTING = "/marketplace.catalog.v1.CatalogService/GetListing";

const randomName = () => `souk-${randomBytes(3).toString("hex")}`;

/** A call to the gateway under the test's own host. The mesh has no workloads here, so what it lets through is answered with 503. */
const call = (path: string, headers: Record<string, string> = {}, method = "POST") =>
  askGateway({ host: HOST }, path, { method, headers });

function grpcCall(path: string, headers: Record<string, string>): Promise<Readonly<Record<string, unknown>>> {
  return new Promise((resolve, reject) => {
    const session = connect(GATEWAY_URL);
    const stream = session.request({
      ":method": "POST",
      ":path": path,
      ":authority": HOST,
      "content-type": "application/grpc",
      ...headers,
    });
    stream.on("response", (answer) => resolve(answer));
    stream.on("error", reject).on("close", () => session.close());
    stream.end();
    stream.resume();
  });
}

const statuses = async (calls: number, make: () => Promise<GatewayAnswer>) => {
  const all: number[] = [];
  for (let each = 0; each < calls; each++) all.push((await make()).status);
  return all;
};

describe("the gateway of a cluster, with the chart's policies", () => {
  const signer = issuer("https://id.example");
  let release: Installed;
  const bearer = async (subject: string, claims = {}) => ({
    authorization: `Bearer ${await (await signer).token(subject, claims)}`,
  });

  before(async function () {
    this.timeout(120_000);
    const { url, jwks } = await signer;
    release = await install("mesh", {
      values: {
        environment: "development",
        issuer: { url, jwks },
        gateway: { namespace: GATEWAY_NAMESPACE, hosts: [HOST], plainHttp: "serve", corsOrigins: ["https://shop.example"] },
      },
    });
    await until("the gateway knows the routes", async () => (await call(GET_LISTING)).status === 503);
    await until(
      "the gateway checks tokens",
      async () => (await call(GET_LISTING, { authorization: "Bearer a.b.c" })).status === 401,
    );
  });
  after(() => release?.end());

  it("lets exposed methods in and no others", async () => {
    assert.equal((await call(GET_LISTING)).status, 503);
    assert.equal((await call("/marketplace.inventory.v1.InventoryService/Reserve")).status, 403);
    assert.equal((await call("/marketplace.ops.v1.MaintenanceService/ListOwnJobs")).status, 403);
    assert.equal((await call("/metrics", {}, "GET")).status, 403);
  });

  it("refuses tokens that are expired, of another issuer, for another audience or by another key", async () => {
    const foreign = await issuer("https://id.example");
    const refused = [
      await bearer("late", { expires: "-2m" }),
      await bearer("other", { issuer: "https://evil.example" }),
      await bearer("else", { audience: "others" }),
      { authorization: `Bearer ${await foreign.token("forger")}` },
    ];
    for (const headers of refused)
      assert.ok([401, 403].includes((await call(GET_LISTING, headers)).status), JSON.stringify(headers));
    assert.equal((await call(GET_LISTING, await bearer("good"))).status, 503);
  });

  it("counts a method's rate for each account by itself", async () => {
    const [ada, ben] = [await bearer("ada"), await bearer("ben")];
    assert.deepEqual(await statuses(3, () => call(ERASE, ada)), [503, 429, 429]);
    assert.deepEqual(await statuses(2, () => call(ERASE, ben)), [503, 429]);
  });

  it("counts who is not signed in by address, whatever account a header claims", async () => {
    let claims = 0;
    assert.deepEqual(await statuses(4, () => call(ERASE, { "x-souk-subject": `somebody-${claims++}` })), [503, 429, 429, 429]);
  });

  it("tells gRPC callers of a rate with RESOURCE_EXHAUSTED, which nobody retries by himself", async () => {
    const eve = await bearer("eve");
    await call(ERASE, eve);
    const answer = await grpcCall(ERASE, eve);
    assert.equal(String(answer["grpc-status"]), "8");
  });

  it("lets pages of the named origin call, and of no other", async () => {
    const preflight = (origin: string) => call(GET_LISTING, { origin, "access-control-request-method": "POST" }, "OPTIONS");
    const own = await preflight("https://shop.example");
    assert.equal(own.headers["access-control-allow-origin"], "https://shop.example");
    assert.match(String(own.headers["access-control-allow-headers"]), /connect-timeout-ms/);
    assert.equal((await preflight("https://evil.example")).headers["access-control-allow-origin"], undefined);
  });

  describe("behind which there is another installation, over HTTPS", () => {
    const name = randomName();
    const burst = 3;
    let secured: Secured | undefined;
    let other: Installed | undefined;
    const listCategories = (authority: string, version: "1.1" | "2") =>
      createClient(CatalogService, securely(SECURE_HOST, authority, version)).listCategories({});

    before(async function () {
      this.timeout(240_000);
      secured = await secure(`${name}-tls`, SECURE_HOST);
      const { url, jwks } = await signer;
      other = await install("mesh", {
        name,
        prepare: () => startCatalog(name),
        values: {
          environment: "development",
          issuer: { url, jwks },
          gateway: { namespace: GATEWAY_NAMESPACE, hosts: [SECURE_HOST], tlsSecret: secured.secret },
          methods: { [ERASE.slice(1)]: { perMinute: 1, burst } },
        },
      });
      await until("the gateway serves the host", async () => {
        const { categories } = await listCategories(secured?.authority ?? "", "2");
        return categories.length > 0;
      });
    });
    after(async () => {
      await other?.end();
      await secured?.end();
    });

    it("answers Connect calls of who trusts the authority of its certificate, and of nobody else", async () => {
      assert.ok(secured);
      for (const version of ["1.1", "2"] as const) {
        const { categories } = await listCategories(secured.authority, version);
        assert.ok(categories.length > 0);
        await assert.rejects(listCategories(secured.otherAuthority, version), (error) => {
          assert.ok(error instanceof ConnectError);
          assert.match(error.message, /certificate/);
          return true;
        });
      }
    });

    it("sends plain HTTP of that host to HTTPS", async () => {
      const { status, headers } = await askGateway({ host: SECURE_HOST }, GET_LISTING);
      assert.equal(status, 301);
      assert.equal(headers.location, `https://${SECURE_HOST}${GET_LISTING}`);
    });

    it("counts a method's rate by each installation's own values", async () => {
      const fay = await bearer("fay");
      assert.deepEqual(await statuses(3, () => call(ERASE, fay)), [503, 429, 429]);
      assert.ok(secured);
      const { authority } = secured;
      const erase = () => askGateway({ host: SECURE_HOST, authority }, ERASE, { headers: fay });
      assert.deepEqual(await statuses(burst + 1, erase), [...Array(burst).fill(503), 429]);
    });
  });
});
