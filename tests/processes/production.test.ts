import assert from "node:assert/strict";
import { mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { AccountService } from "#gen/marketplace/account/v1/account_pb.ts";
import { PaymentService, PayoutState } from "#gen/marketplace/payment/v1/payment_pb.ts";
import { newId } from "#runtime/ids.ts";
import { openRedis, redisReady } from "#runtime/redis.ts";
import { loadOrCreateAccountKey, signAccountToken } from "#runtime/tokens.ts";
import { SERVICES } from "../../services/main.ts";
import { callerOf, check } from "../../tools/purchase-check.ts";
import { type ProcessorAtPort, processorAtPort } from "../payment/processor-at-port.ts";
import { quietLog, temporaryFolder } from "../support/database.ts";
import { emptyDatabases } from "../support/mariadb.ts";
import { type Program, runToEnd, startProgram, stopProgram } from "../support/programs.ts";
import { startProvider, type TestProvider } from "../support/provider.ts";
import { testStores } from "../support/stores.ts";

const PROCESSOR_TOKEN = "secret-of-ours";
/** What the check buys for, and what is left of it after the fee. */
const [PRICE_MINOR, SALE_MINOR] = [5_000n, 4_500n];

describe("a marketplace in production", function () {
  this.timeout(180_000);
  const folder = temporaryFolder();
  const dataDir = join(folder.path, "data");
  let databases: Awaited<ReturnType<typeof emptyDatabases>>;
  let provider: TestProvider;
  let processor: ProcessorAtPort;
  let settings: Readonly<Record<string, string>>;
  let marketplace: Program | undefined;

  before(async () => {
    databases = await emptyDatabases(SERVICES);
    provider = await startProvider("souk");
    processor = await processorAtPort({ token: PROCESSOR_TOKEN, simulated: false });
    const authorities = join(folder.path, "authorities.pem");
    writeFileSync(authorities, provider.authority);
    settings = {
      NODE_EXTRA_CA_CERTS: authorities,
      SOUK_ENV: "production",
      SOUK_HOST: "127.0.0.1",
      SOUK_PORT: "0",
      SOUK_DRAIN_DELAY_MS: "0",
      SOUK_DATA_DIR: dataDir,
      SOUK_DATABASE_URL: databases.url,
      SOUK_REDIS_URL: (await testStores()).redisUrl,
      SOUK_REDIS_PREFIX: `${newId()}.`,
      SOUK_ISSUER: provider.url,
      SOUK_PROCESSOR: processor.url,
      SOUK_PROCESSOR_TOKEN: PROCESSOR_TOKEN,
    };
  });
  after(async () => {
    if (marketplace !== undefined) await stopProgram(marketplace);
    await processor?.close();
    await provider?.close();
    await databases?.remove();
    folder.remove();
  });

  /** Starts that must not come about: the exit code, and what is said. */
  async function refusal(changes: Readonly<Record<string, string | undefined>>) {
    const dir = join(folder.path, newId());
    mkdirSync(dir);
    return runToEnd(["services/main.ts"], { ...settings, SOUK_DATA_DIR: dir, ...changes });
  }
  const running = (): Program => marketplace ?? assert.fail("it does not run");

  it("does not start without one of its parts, and says which and where to name it", async () => {
    const parts = {
      SOUK_DATABASE_URL: "tables in MySQL or MariaDB: name them in SOUK_DATABASE_URL",
      SOUK_REDIS_URL: "events and caches in Redis: name it in SOUK_REDIS_URL",
      SOUK_ISSUER: "an OpenID provider to sign in with: name it in SOUK_ISSUER",
      SOUK_PROCESSOR: "a payment processor: name it in SOUK_PROCESSOR",
    };
    for (const [name, sentence] of Object.entries(parts)) {
      const { code, output } = await refusal({ [name]: undefined });
      assert.equal(
        output,
        `SOUK_ENV is production, and production never falls back to an embedded part. It lacks:\n  - ${sentence}\nTo try things out, start it with SOUK_ENV=development.\n`,
      );
      assert.equal(code, 2);
    }
  });

  it("does not start on tables that nobody has made, and starts when they are", async () => {
    const { code, output } = await refusal({});
    assert.match(output, /are older than this program: .* Bring them up to date with: npm run migrate -- up/);
    assert.equal(code, 1);
    const { SOUK_ENV, SOUK_DATABASE_URL } = settings;
    const migrated = await runToEnd(["tools/migrate.ts", "up"], { SOUK_ENV, SOUK_DATABASE_URL });
    assert.equal(migrated.code, 0, migrated.output);
    marketplace = await startProgram(["services/main.ts"], settings);
  });

  it("sells by the provider's tokens, with the processor's money, and pays out", async () => {
    const [seller, buyer] = [await provider.token("seller@shop.test"), await provider.token("buyer@shop.test")];
    const operator = await provider.token("operator@shop.test", ["operator"]);
    const call = callerOf({ url: running().url });
    const said: string[] = [];
    await check(call, { seller, buyer, operator, paymentMethod: "tok_approved" }, (line) => said.push(line));
    assert.deepEqual(said.slice(-2), ["It was shipped and confirmed, and the seller has the money.", "The books balance."]);

    const bank = { destinationToken: "bank_demo_ada", currencyCode: "USD" };
    await call(AccountService.method.setPayoutDestination, seller, { requestId: newId(), ...bank });
    const amount = { currencyCode: "USD", amountMinor: SALE_MINOR };
    const { payout } = await call(PaymentService.method.createPayout, seller, { requestId: newId(), amount });
    const payoutId = payout?.payoutId ?? "";
    for (let state = payout?.state; state !== PayoutState.PAID; await sleep(200)) {
      processor.clock.advance(60_000);
      state = (await call(PaymentService.method.getPayout, seller, { payoutId })).payout?.state;
    }
    assert.deepEqual(await processor.simulator.books("USD", AbortSignal.timeout(1_000)), {
      capturedMinor: PRICE_MINOR,
      refundedMinor: 0n,
      paidOutMinor: SALE_MINOR,
    });
    const measured = await (await fetch(`${running().url}/metrics`)).text();
    assert.match(measured, /^http_client_request_duration_seconds_count\{[^}]*url_template="\/v1\/captures",[^}]*\} 1$/m);
  });

  it("has nothing embedded: no tables or books of its own, no keys that sign accounts' tokens, no doors for trying things out", async () => {
    const files = readdirSync(dataDir, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
    // Every replica has an index of its own in production, too.
    const kept = files.map(({ name }) => name).filter((name) => !name.startsWith("search-index"));
    assert.deepEqual(kept.sort(), ["page-tokens.key", "services.pem", "souk.pid"]);
    const redis = openRedis({ url: settings.SOUK_REDIS_URL ?? "", log: quietLog, name: "test" });
    await redisReady(redis, 5_000);
    const told = await redis.keys(`*${settings.SOUK_REDIS_PREFIX}*`).finally(() => redis.disconnect());
    assert.ok(
      told.some((key) => key.includes("souk.events")),
      String(told),
    );
    const own = await loadOrCreateAccountKey(join(dataDir, "keys"));
    const token = await signAccountToken(own, { accountId: newId() });
    const ask = (path: string, init: RequestInit = {}) => fetch(running().url + path, init);
    const headers = { "content-type": "application/json", authorization: `Bearer ${token}` };
    const answer = await ask("/marketplace.account.v1.AccountService/GetProfile", { method: "POST", headers, body: "{}" });
    assert.equal(answer.status, 401);
    assert.match(await answer.text(), /TOKEN_INVALID/);
    for (const path of ["/simulator/confirmations/1", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"]) {
      assert.equal((await ask(path)).status, 404, path);
    }
    assert.equal(await stopProgram(running()), 0);
  });

  it("refuses a processor that says it is simulated, and a provider whose keys arrive in the clear", async () => {
    const simulated = await startProgram(["services/processor.ts", "--port", "0", "--simulator-file", `${folder.path}/books.db`]);
    try {
      const url = `${simulated.url}/v1`;
      const { code, output } = await refusal({ SOUK_PROCESSOR: url, SOUK_PROCESSOR_TOKEN: undefined });
      const sentence = `The processor at ${url} says that it is simulated, and SOUK_ENV is production. Name a real one in SOUK_PROCESSOR.`;
      assert.ok(output.includes(sentence), output);
      assert.equal(code, 1);
    } finally {
      await stopProgram(simulated);
    }
    const { code, output } = await refusal({ SOUK_ISSUER: "http://127.0.0.1:8082" });
    assert.match(output, /^SOUK_ISSUER is "http:.*: keys that arrive in the clear may be anybody's\. Use https:\/\/\.\n$/);
    assert.equal(code, 2);
  });
});
