import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { newId } from "#runtime/ids.ts";
import { loadOrCreateKeys, signAccountToken } from "#runtime/tokens.ts";
import { Histogram } from "../../tools/load/histogram.ts";
import type { LoadPlan, Protocol } from "../../tools/load/plan.ts";
import type { LoadReport } from "../../tools/load/report.ts";
import { runLoad } from "../../tools/load/run.ts";
import { temporaryFolder } from "../support/database.ts";
import { ROOT, type StartedMarketplace, startMarketplace } from "../support/process.ts";

/** Rates that any machine bears, and few enough people that nobody is turned away. */
const SMALL = [
  "--browse",
  "4",
  "--sell",
  "1",
  "--buy",
  "1",
  "--watch",
  "1",
  "--ramp",
  "0",
  "--duration",
  "3",
  "--arrivals",
  "constant",
];

/** Whether calls failed for no other reason than that the machine has too much to do. */
const isOnlySlow = (failures: Readonly<Record<string, number>>) =>
  Object.keys(failures).every((reason) => reason === "DEADLINE_EXCEEDED");

describe("npm run load, beside a marketplace that runs,", function () {
  this.timeout(120_000);
  const folder = temporaryFolder();
  const dataDir = join(folder.path, "data");
  let marketplace: StartedMarketplace;
  before(async () => {
    marketplace = await startMarketplace(["--port", "0", "--data-dir", dataDir, "--no-seed"]);
  });
  after(async () => {
    assert.equal(await marketplace.stop(), 0);
    folder.remove();
  });

  /** Runs the tool; `onText` sees what it has written so far. */
  async function load(args: readonly string[], onText?: (text: string, kill: (signal: NodeJS.Signals) => void) => void) {
    const child = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", "tools/load.ts", ...args], {
      cwd: ROOT,
      env: { ...process.env, SOUK_DATA_DIR: dataDir },
    });
    const text = { out: "", err: "" };
    for (const [stream, name] of [
      [child.stdout, "out"],
      [child.stderr, "err"],
    ] as const) {
      stream.on("data", (chunk: Buffer) => {
        text[name] += chunk.toString();
        onText?.(text.err, (signal) => child.kill(signal));
      });
    }
    const [code] = (await once(child, "close")) as [number | null];
    return { code, ...text };
  }

  it("runs the whole purchase in several processes, and its exit code says whether a promise is missed", async () => {
    const file = join(folder.path, "report.json");
    const { code, out, err } = await load(["--url", marketplace.url, ...SMALL, "--workers", "2", "--json", file]);
    const report: LoadReport = JSON.parse(readFileSync(file, "utf8"));
    assert.equal(code, report.missed.length === 0 ? 0 : 1, out + err);
    for (const [flow, arrived] of [
      ["browse", 12],
      ["sell", 3],
      ["buy", 3],
      ["watch", 3],
    ] as const) {
      const { finished, failed, turnedAway } = report.flows[flow] ?? {};
      // Each process has its share, in whole people.
      assert.ok(Math.abs((finished ?? 0) + (failed ?? 0) - arrived) <= 1, `${flow}: ${finished}`);
      assert.equal(turnedAway, 0, out);
    }
    assert.ok(
      report.methods.every(({ failures }) => isOnlySlow(failures)),
      out,
    );
    const called = report.methods.map(({ method }) => method);
    for (const method of ["SearchService/SearchListings", "CatalogService/PublishListing", "OrderService/ConfirmOrder"]) {
      assert.ok(called.includes(method), `${called}`);
    }
    assert.ok(called.includes("OrderService/WatchOrder (a change)"));
    assert.match(out, /^OrderService\/PlaceOrder +\d/m);
  });

  /** A plan of a second, with two accounts that buy. */
  async function planFor(rates: LoadPlan["rates"]): Promise<LoadPlan> {
    const keys = await loadOrCreateKeys(join(dataDir, "keys"));
    const actor = async () => {
      const accountId = newId();
      return { accountId, token: await signAccountToken(keys, { accountId }) };
    };
    return {
      url: marketplace.url,
      protocol: "grpc",
      rates,
      shape: "constant",
      rampMs: 0,
      durationMs: 1_000,
      sellers: [await actor()],
      buyers: [await actor(), await actor()],
      connections: 2,
      inFlightMax: 1_000,
      retries: true,
      seed: 7,
    };
  }

  for (const protocol of ["grpc", "connect", "connect-json"] satisfies Protocol[]) {
    it(`is a function for other programs (${protocol})`, async () => {
      const rates = { browse: 5, sell: 5, buy: 5, watch: 5 };
      const plan = { ...(await planFor(rates)), protocol };
      const { flows, calls, attempts } = await runLoad(plan);
      for (const { arrived, finished, failed, turnedAway } of Object.values(flows)) {
        assert.deepEqual([arrived, finished + failed, turnedAway], [5, 5, 0]);
      }
      assert.ok(
        Object.values(calls).every(({ failures }) => isOnlySlow(failures)),
        JSON.stringify(calls),
      );
      assert.equal(calls["marketplace.order.v1.OrderService/PlaceOrder"]?.calls, 10);
      assert.equal(attempts.sent, attempts.calls);
    });
  }

  it("shows in its durations that the marketplace stands still, and that it stands still itself", async () => {
    const STILL_MS = 1_000;
    const plan = { ...(await planFor({ browse: 50, sell: 0, buy: 0, watch: 0 })), durationMs: 4_000 };
    for (const stall of [
      async () => {
        marketplace.child.kill("SIGSTOP");
        await sleep(STILL_MS);
        marketplace.child.kill("SIGCONT");
      },
      async () => {
        for (const end = performance.now() + STILL_MS; performance.now() < end; );
      },
    ]) {
      const [figures] = await Promise.all([runLoad(plan), sleep(1_000).then(stall)]);
      assert.equal(figures.flows.browse?.arrived, 200);
      const durations = new Histogram();
      durations.add(figures.calls["marketplace.search.v1.SearchService/SearchListings"]?.latency ?? assert.fail("nothing"));
      // A quarter of all came meanwhile, and half of these waited for half of it or longer.
      assert.ok(durations.percentile(90) >= (STILL_MS / 2) * 1000, `${durations.percentile(90)}`);
    }
  });

  it("acts as the accounts of a token file", async () => {
    const keys = await loadOrCreateKeys(join(dataDir, "keys"));
    const file = join(folder.path, "tokens");
    const tokens = await Promise.all([newId(), newId()].map((accountId) => signAccountToken(keys, { accountId })));
    writeFileSync(file, `${tokens.join("\n")}\n`);
    const args = ["--url", marketplace.url, ...SMALL, "--json", "-"];
    const { out, err } = await load([...args, "--token-file", file]);
    assert.equal((JSON.parse(out || "{}") as LoadReport).flows?.buy?.finished, 3, err);
    writeFileSync(file, `${tokens[0]}\n`);
    const few = await load([...args, "--token-file", file]);
    assert.equal(few.code, 2);
    assert.match(few.err, /has 1 tokens; each of 1 processes needs two/);
    writeFileSync(file, "a\nb\n");
    assert.match((await load([...args, "--token-file", file])).err, /not a token/);
  });

  it("ends with code 1 when arrivals find too many under way", async () => {
    const rates = ["--browse", "0", "--sell", "0", "--watch", "0", "--buy", "60", "--duration", "2", "--ramp", "0"];
    const { code, out } = await load(["--url", marketplace.url, ...rates, "--in-flight", "1"]);
    assert.equal(code, 1);
    assert.match(out, /buy: \d+ of \d+ arrivals were not begun/);
  });

  it("reports what there is when it is interrupted", async () => {
    let interrupted = false;
    const { code, out, err } = await load(["--url", marketplace.url, ...SMALL, "--duration", "600"], (text, kill) => {
      if (interrupted || !/[1-9]\d* finished/.test(text)) return;
      interrupted = true;
      kill("SIGINT");
    });
    assert.ok(code === 0 || code === 1, `${code} ${err}`);
    assert.match(out, /stopped early/);
    assert.match(out, /^SearchService\/SearchListings +[1-9]/m);
  });

  it("ends with code 1, in time, when the marketplace dies, and says why calls failed", async () => {
    const doomed = await startMarketplace(["--port", "0", "--data-dir", join(folder.path, "doomed"), "--no-seed"], {
      SOUK_KEYS_DIR: join(dataDir, "keys"),
    });
    let killed = false;
    const { code, out, err } = await load(["--url", doomed.url, ...SMALL, "--duration", "8"], (text) => {
      if (killed || !/[1-9]\d* finished/.test(text)) return;
      killed = true;
      void doomed.kill();
    });
    assert.equal(code, 1, err);
    assert.match(out, /^ +\w+Service\/\w+ +UNAVAILABLE +[1-9]/m);
    assert.match(out, /^Attempts: [1-9]\d* sent for [1-9]\d* calls, \d+ of them again/m);
  });

  it("ends with code 2 and a sentence when nothing can be measured", async () => {
    const empty = join(folder.path, "empty");
    for (const [args, sentence] of [
      [["--url", "http://127.0.0.1:9"], /127\.0\.0\.1:9 .*Start a marketplace/],
      [["--url", "http://shop.example"], /--allow-host shop\.example/],
      [["--url", "ftp://x"], /is not an address/],
      [["--browse", "-1"], /browse/],
      [["--buy", "1e9"], /--buy is a number from 0 to 20000/],
      [["--workers", "1.5"], /--workers is a whole number from 1 to 64/],
      [["--duration", "0"], /--duration is a number from 1 to 3600/],
      [["--protocol", "smoke"], /--protocol is grpc or connect or connect-json/],
      [["--protocol", "connect", "--authority", "shop.example"], /--authority goes with --protocol grpc/],
      [["--browse", "0", "--sell", "0", "--buy", "0", "--watch", "0"], /nobody arrives/],
      [["--fast"], /--fast/],
      [["--token-file", empty], /empty/],
    ] as const) {
      const { code, out, err } = await load(args);
      assert.equal(code, 2, `${args}: ${out}${err}`);
      assert.match(err, sentence);
      assert.equal(out, "");
      assert.doesNotMatch(err, /^ +at /m);
    }
    const { code, out } = await load(["--help"]);
    assert.equal(code, 0);
    assert.match(out, /--browse N/);
  });
});
