import assert from "node:assert/strict";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { Code } from "@connectrpc/connect";
import { build } from "esbuild";
import { OrderState } from "#gen/marketplace/order/v1/order_pb.ts";
import { newId } from "#runtime/ids.ts";
import { loadOrCreateKeys, signAccountToken } from "#runtime/tokens.ts";
import { packClient } from "../../tools/pack-client.ts";
import { pathWithCurl } from "../support/curl.ts";
import { temporaryFolder } from "../support/database.ts";
import { demo } from "../support/marketplace.ts";
import { type StartedMarketplace, shell, startMarketplace } from "../support/process.ts";
import { type InstalledClient, installClient, readmeCode } from "./installed.ts";

/** What a page pays at most for the client of one service, minified and gzipped, with everything it needs. */
const MAX_BUNDLE_BYTES = 38 * 1024;
/** How much of it is ours; the rest is connect-web and protobuf. */
const MAX_OWN_BYTES = 5 * 1024;
/** What a page pays that shows prices and calls nobody. */
const MAX_MONEY_BYTES = 2 * 1024;

const PEERS = ["@bufbuild/protobuf", "@connectrpc/connect", "@connectrpc/connect-web"];
/** How programs of others find packages. */
const RESOLUTIONS = [
  { module: "nodenext", types: ["node"] },
  { module: "node16", types: ["node"] },
  { module: "esnext", moduleResolution: "bundler", types: ["node"] },
];

describe("The packed client, installed in somebody else's project,", function () {
  this.timeout(180_000);
  const folder = temporaryFolder();
  let marketplace: StartedMarketplace;
  let client: InstalledClient;
  let env: NodeJS.ProcessEnv;

  before(async () => {
    const dataDir = join(folder.path, "data");
    marketplace = await startMarketplace(["--port", "0", "--data-dir", dataDir]);
    client = await installClient(...PEERS, "@connectrpc/connect-node", "@types/node");
    const token = await signAccountToken(await loadOrCreateKeys(join(dataDir, "keys")), { accountId: demo("ben").account });
    env = { SOUK_URL: marketplace.url, SOUK_TOKEN: token };
  });
  after(async () => {
    client?.remove();
    assert.equal(await marketplace.stop(), 0);
    folder.remove();
  });

  it("buys from JavaScript, and then reads its order from strict TypeScript over gRPC", async () => {
    const bought = (await client.run("purchase.js", ["jazz quartet"], env)) as Record<string, unknown>;
    const { orderId, refused, key, ...rest } = bought as { orderId: string; refused: object; key: string[] };
    assert.deepEqual(rest, {
      title: "Jazz quartet LP, 1959 pressing, deep groove",
      total: { currencyCode: "USD", amountMinor: "4500" },
      shown: "$45.00",
      state: OrderState.PAID,
      sameOrder: true,
      wrong: ["order_id"],
    });
    assert.deepEqual(key, ["marketplace.order.v1.OrderService/GetOrder", JSON.stringify({ orderId })]);
    const { reason, metadata } = refused as { reason: string; metadata: Record<string, string> };
    assert.equal(reason, "PRICE_CHANGED");
    assert.equal(metadata.amount_minor, "4500");

    assert.deepEqual(await client.run("reads.ts", [orderId, newId()], env), {
      paid: true,
      dear: true,
      known: true,
      reason: Code.NotFound,
      retryAfterMs: null,
      read: true,
      repeatable: true,
    });
  });

  for (const options of RESOLUTIONS) {
    it(`has types that hold in strict TypeScript with nothing skipped: ${options.moduleResolution ?? options.module}`, async () => {
      assert.equal(await client.compile(["reads.ts"], { ...options, allowImportingTsExtensions: true }), "");
    });
  }

  it("does what its README shows, in a browser's form, on Node and by curl", async () => {
    const browser = readmeCode("browser").replaceAll("http://localhost:8080", marketplace.url);
    writeFileSync(join(client.path, "browser.ts"), browser);
    writeFileSync(join(client.path, "node.ts"), readmeCode("node"));
    assert.equal(await client.compile(["browser.ts", "node.ts"], RESOLUTIONS[2] ?? {}), "");

    const [address = ""] = await addressesOf(env);
    writeFileSync(
      join(client.path, "visit.ts"),
      `import { results, buy } from "./shown.ts";
       const order = await buy(results[0], ${JSON.stringify(address)});
       console.log(JSON.stringify({ found: results.length > 0, state: order.state }));`,
    );
    // The page prints what it found; a program that wants JSON does not.
    const shown = browser.replace(/console\.log/, "void").replace("const { results }", "export const { results }");
    const storage = "globalThis.sessionStorage = { getItem: () => process.env.SOUK_TOKEN ?? null };\n";
    writeFileSync(join(client.path, "shown.ts"), `${shown.replace(/^(?!import)/m, storage)}`);
    assert.deepEqual(await client.run("visit.ts", [], env), { found: true, state: OrderState.PAID });

    const path = pathWithCurl(folder.path);
    const counted = await shell(`cd ${JSON.stringify(client.path)} && ${JSON.stringify(process.execPath)} node.ts`, env);
    assert.match(counted, /^[1-9]\d+ categories$/m);
    const answer = JSON.parse(await shell(readmeCode("curl"), { ...env, PATH: path }));
    assert.ok(answer.results.length > 0);
  });

  it("costs a page little: no rules and no policies of the contract are in it", async () => {
    const own = await bundled(
      client.path,
      `import { createClient } from "@connectrpc/connect";
       import { createSoukTransport, reasonOf } from "@souk/client";
       import { OrderService } from "@souk/client/order/v1";
       globalThis.souk = { orders: createClient(OrderService, createSoukTransport({ baseUrl: "/" })), reasonOf };`,
    );
    const bare = await bundled(
      client.path,
      `import { createClient } from "@connectrpc/connect";
       import { createConnectTransport } from "@connectrpc/connect-web";
       globalThis.souk = { createClient, transport: createConnectTransport({ baseUrl: "/" }) };`,
    );
    const prices = await bundled(
      client.path,
      `import { formatMoney, parseMoney } from "@souk/client";
       globalThis.souk = { formatMoney, parseMoney };`,
    );
    const sizes = { own, bare, prices };
    assert.ok(own <= MAX_BUNDLE_BYTES && own - bare <= MAX_OWN_BYTES && prices <= MAX_MONEY_BYTES, JSON.stringify(sizes));
    for (const file of readdirSync(client.packed.folder, { recursive: true, encoding: "utf8" })) {
      assert.doesNotMatch(file, /(validate|policy|events?)_pb/);
    }
  });

  it("asks npm for exactly what it imports", () => {
    const files = readdirSync(client.packed.folder, { recursive: true, encoding: "utf8" }).filter((file) => file.endsWith(".js"));
    const imported = files.flatMap((file) =>
      [...readFileSync(join(client.packed.folder, file), "utf8").matchAll(/ from "(@[^/"]+\/[^/"]+|[^./"][^"]*)/g)].map(
        ([, name]) => name,
      ),
    );
    const { peerDependencies, dependencies } = JSON.parse(readFileSync(join(client.packed.folder, "package.json"), "utf8"));
    assert.deepEqual([...new Set(imported)].sort(), PEERS);
    assert.deepEqual([Object.keys(peerDependencies), dependencies], [PEERS, undefined]);
  });

  it("is packed byte for byte the same again", async () => {
    const again = await packClient(join(folder.path, "again"));
    assert.ok(readFileSync(again.tarball).equals(readFileSync(client.packed.tarball)));
    assert.ok(readFileSync(again.descriptors).equals(readFileSync(client.packed.descriptors)));
  });
});

async function addressesOf({ SOUK_URL, SOUK_TOKEN }: NodeJS.ProcessEnv): Promise<string[]> {
  const response = await fetch(`${SOUK_URL}/marketplace.account.v1.AccountService/ListAddresses`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${SOUK_TOKEN}` },
    body: "{}",
  });
  const { addresses } = (await response.json()) as { addresses: { addressId: string }[] };
  return addresses.map(({ addressId }) => addressId);
}

/** The bytes of a bundle, minified and gzipped. */
async function bundled(folder: string, contents: string): Promise<number> {
  const { outputFiles } = await build({
    stdin: { contents, resolveDir: folder },
    bundle: true,
    minify: true,
    write: false,
    format: "esm",
    platform: "browser",
    target: "es2023",
  });
  return gzipSync(outputFiles[0]?.contents ?? "", { level: 9 }).length;
}
