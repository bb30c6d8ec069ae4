import assert from "node:assert/strict";
import { copyFileSync } from "node:fs";
import { createServer, type Server as HttpServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { build } from "esbuild";
import { CatalogService, Condition } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { OrderService } from "#gen/marketplace/order/v1/order_pb.ts";
import { newId } from "#runtime/ids.ts";
import { silentLog } from "#runtime/log.ts";
import { type Server, startServer } from "#runtime/server.ts";
import { embeddedVerifiers, signAccountToken } from "#runtime/tokens.ts";
import { seed } from "../../tools/seed/seed.ts";
import { type InstalledClient, installClient } from "../client-package/installed.ts";
import { demo, type TestMarketplace, testMarketplace } from "../support/marketplace.ts";
import { ROOT } from "../support/process.ts";
import { type Browser, type Page, startBrowser } from "./chromium.ts";

const PEERS = ["@bufbuild/protobuf", "@connectrpc/connect", "@connectrpc/connect-web"];

describe("A page in a real browser, of another origin than the marketplace,", function () {
  this.timeout(180_000);
  const closing: (() => unknown)[] = [];
  let marketplace: TestMarketplace;
  let server: Server;
  let client: InstalledClient;
  let browser: Browser;
  let page: Page;
  let strangersPage: Page;

  before(async () => {
    client = await installClient(...PEERS);
    closing.push(() => client.remove());
    const script = await bundledPage(client.path);
    const [own, strangers] = [await serve(script), await serve(script)];
    closing.push(
      () => own.close(),
      () => strangers.close(),
    );
    marketplace = await testMarketplace({ going: true });
    closing.push(() => marketplace.stop());
    await seed((account, service) => marketplace.as(account.name, service));
    await marketplace.settle();
    const { modules, keys } = marketplace;
    server = await startServer({
      modules,
      port: 0,
      host: "127.0.0.1",
      verifiers: embeddedVerifiers(keys),
      log: silentLog(),
      corsOrigins: [originOf(own)],
    });
    closing.push(() => server.stop(1_000));
    const token = await signAccountToken(keys, { accountId: demo("ben").account });
    const settings = `#${new URLSearchParams({ baseUrl: server.url, token })}`;
    browser = await startBrowser();
    closing.push(() => browser.close());
    page = await browser.open(`${originOf(own)}/${settings}`);
    strangersPage = await browser.open(`${originOf(strangers)}/${settings}`);
  });
  after(async () => {
    for (const close of closing.reverse()) await close();
  });

  it("buys, and sees every change of its order as it happens", async () => {
    const bought = (await page.run('shop.buy("jazz quartet")')) as Record<"orderId" | "sellerId" | "total", string>;
    const { orderId, sellerId: account, total } = bought;
    assert.equal(total, "$45.00");
    const watched = page.run(`shop.watch("${orderId}")`);
    // Should the test fail before.
    watched.catch(() => {});
    await seen(page, "PAID");
    await marketplace.as({ account }, OrderService).shipOrder({ requestId: newId(), orderId, carrier: "UPS" });
    await seen(page, "SHIPPED");
    await page.run(`shop.confirm("${orderId}")`);
    await watched;
    assert.equal(((await page.run("shop.states()")) as string[]).at(-1), "COMPLETED");
    assert.deepEqual(await page.run("shop.ordersOverGrpcWeb()"), [orderId]);
  });

  it("gets the same reasons over Connect and gRPC-Web, read through what the server lets it see", async () => {
    const refusal = { reason: "ORDER_NOT_FOUND", metadata: {} };
    assert.deepEqual(await page.run(`shop.missing("${newId()}")`), [refusal, refusal]);
  });

  it("asks once, and without asking for leave before, for what the policy lets it keep", async () => {
    const counts = [await page.run("shop.categories()"), await page.run("shop.categories()")];
    assert.ok(Number(counts[0]) > 10 && counts[0] === counts[1]);
    const asked = page.told.filter(({ params }) => params.request?.url.includes("ListCategories"));
    assert.deepEqual(
      asked.map(({ params }) => params.request.method),
      ["GET", "GET"],
    );
    const answers = page.told.filter(
      ({ method, params }) => method === "Network.responseReceived" && /ListCategories/.test(params.response.url),
    );
    assert.deepEqual(
      answers.map(({ params }) => params.response.fromDiskCache),
      [false, true],
    );
  });

  it("shows nobody what it kept for somebody else who was signed in before", async () => {
    const listing = {
      title: "A lamp",
      categoryId: "lamps",
      condition: Condition.GOOD,
      price: { currencyCode: "USD", amountMinor: 1n },
    };
    const created = await marketplace.as("ada", CatalogService).createListing({ requestId: newId(), listing });
    const token = await signAccountToken(marketplace.keys, { accountId: demo("ada").account });
    const seen = await page.run(`shop.draft("${created.listing?.listingId}", "${token}")`);
    assert.deepEqual(seen, ["seen", "LISTING_NOT_FOUND", "LISTING_NOT_FOUND", "seen"]);
  });

  it("meets nothing that the browser complains about", () => {
    const complaints = page.told.filter(
      ({ method, params }) =>
        method === "Runtime.exceptionThrown" ||
        // An answer that is an error is said in the log, too.
        (method === "Log.entryAdded" && params.entry.level === "error" && !/status of (404|400)/.test(params.entry.text)),
    );
    assert.deepEqual(complaints, []);
  });

  it("gets nothing when its origin is not one that the marketplace was told of", async () => {
    assert.equal(await strangersPage.run("shop.refusal()"), "UNAVAILABLE");
    const blocked = strangersPage.told.filter(({ method }) => method === "Network.loadingFailed");
    assert.match(blocked[0]?.params.corsErrorStatus?.corsError ?? "", /AllowOrigin/);
  });
});

/** Waits until the page has seen the state; the test's own time is the bound. */
async function seen(page: Page, state: string): Promise<void> {
  while (((await page.run("shop.states()")) as string[]).at(-1) !== state) await sleep(20);
}

async function bundledPage(folder: string): Promise<string> {
  copyFileSync(join(ROOT, "tests/browser/page.js"), join(folder, "page.js"));
  const { outputFiles } = await build({
    entryPoints: [join(folder, "page.js")],
    bundle: true,
    minify: true,
    write: false,
    format: "esm",
    platform: "browser",
    target: "es2023",
  });
  return outputFiles[0]?.text ?? "";
}

async function serve(script: string): Promise<HttpServer> {
  const server = createServer((request, response) => {
    const isScript = request.url === "/page.js";
    response.setHeader("content-type", isScript ? "text/javascript" : "text/html; charset=utf-8");
    response.end(
      isScript ? script : '<!doctype html><link rel="icon" href="data:,"><script type="module" src="/page.js"></script>',
    );
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return server;
}

function originOf(server: HttpServer): string {
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}
