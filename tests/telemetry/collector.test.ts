import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { CatalogService } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { readConfig } from "#runtime/config.ts";
import { createLog, type Log } from "#runtime/log.ts";
import { openTelemetry, type Telemetry } from "#runtime/telemetry/telemetry.ts";
import { type Running, run, SERVICES } from "../../services/main.ts";
import { temporaryFolder } from "../support/database.ts";
import { startMarketplace } from "../support/process.ts";
import { type Collector, startCollector } from "./collector.ts";

/** As many as are sent at once, so that nothing waits for the clock. */
const BATCH = 512;
const CALLS = 30;
const method = CatalogService.method.listCategories;

/** Waits for what happens in the background. */
async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await holds())) await sleep(20);
}

describe("a collector of telemetry", function () {
  this.timeout(60_000);
  let collector: Collector;
  let telemetry: Telemetry | undefined;
  let lines: string;
  beforeEach(async () => {
    collector = await startCollector();
    lines = "";
  });
  afterEach(async () => {
    await telemetry?.stop();
    telemetry = undefined;
    await collector.die();
  });

  const write = (line: string) => {
    lines += line;
  };
  const log = (): Log => createLog({ level: "info", format: "json", destination: { write } });
  const open = (endpoint = collector.endpoint, headers = {}): Telemetry => {
    const to = { endpoint, headers, timeoutMs: 300 };
    telemetry = openTelemetry({ serviceName: "test", collector: to, ratio: 1, intervalMs: 60_000, log: log() });
    return telemetry;
  };

  /** Makes spans, as calls do. */
  function serve(count: number): void {
    for (let made = 0; made < count; made++) {
      const call = (telemetry as Telemetry).observer.serverCall({ method, carriage: "grpc", header: () => undefined });
      assert.equal(
        call.run(() => "answer"),
        "answer",
      );
      call.end();
    }
  }

  const lost = async (why: string) => {
    const found = [
      ...(await (telemetry as Telemetry).metrics()).matchAll(/^otel_sdk_processor_span_processed\S*\{([^}]*)\} (\d+)$/gm),
    ];
    return found.reduce((sum, [, labels = "", value]) => sum + (labels.includes(`error_type="${why}`) ? Number(value) : 0), 0);
  };

  it("gets spans and measurements with the headers that it wants, and what is left at the end", async () => {
    open(collector.endpoint, { "x-api-key": "open sesame" });
    serve(BATCH);
    await until(() => collector.spans.length === BATCH);
    serve(1);
    await telemetry?.stop();
    assert.equal(collector.spans.length, BATCH + 1);
    assert.ok(collector.metrics.has("rpc.server.call.duration"));
    assert.ok(collector.headers.every((headers) => headers["x-api-key"] === "open sesame"));
    const [span] = collector.spans;
    assert.equal(span?.name, "marketplace.catalog.v1.CatalogService/ListCategories");
    assert.deepEqual([span?.process, span?.kind, span?.attributes.get("rpc.status_code")], ["test", 2, "OK"]);
  });

  it("that hangs costs calls nothing: what it does not take is dropped and counted", async () => {
    collector.behave("hangs");
    open();
    serve(20 * BATCH);
    assert.ok((await lost("queue_full")) > 0);
    await until(async () => (await lost("")) > (await lost("queue_full")));
    assert.equal(lines.match(/"the collector of telemetry is out of reach"/g)?.length, 1);
  });

  it("that hangs keeps nobody from ending", async () => {
    collector.behave("hangs");
    open();
    serve(20 * BATCH);
    await telemetry?.stop();
    assert.ok(collector.requests > 0);
  });

  it("that is away from the start is said once, and found when it comes", async () => {
    await collector.die();
    open();
    serve(BATCH);
    await until(() => lines.includes("out of reach"));
    collector = await startCollector(Number(new URL(collector.endpoint).port));
    await until(() => {
      serve(BATCH);
      return collector.spans.length > 0;
    });
    await until(() => lines.includes("is back"));
    assert.equal(lines.match(/out of reach/g)?.length, 1);
  });

  it("that dies midway gets what comes after it is back", async () => {
    open();
    serve(BATCH);
    await until(() => collector.spans.length === BATCH);
    await collector.die();
    serve(BATCH);
    await until(async () => (await lost("")) > 0);
    collector = await startCollector(Number(new URL(collector.endpoint).port));
    await until(() => {
      serve(BATCH);
      return collector.spans.length > 0;
    });
  });

  it("that says it cannot now is no error of anybody's", async () => {
    collector.behave("refuses");
    open();
    serve(2 * BATCH);
    await until(async () => (await lost("")) > 0);
  });
});

describe("a server with a collector", function () {
  this.timeout(60_000);
  const folder = temporaryFolder();
  let collector: Collector;
  let running: Running;
  before(async () => {
    collector = await startCollector();
    const env = { OTEL_EXPORTER_OTLP_ENDPOINT: collector.endpoint, OTEL_EXPORTER_OTLP_TIMEOUT: "300" };
    const argv = ["--port", "0", "--data-dir", folder.path, "--log-level", "silent"];
    const settings = readConfig({ argv, env, services: SERVICES });
    assert.ok("config" in settings);
    running = await run(settings.config);
  });
  after(async () => {
    await running?.stop();
    await collector.die();
    folder.remove();
  });

  it("answers every call while the collector hangs, refuses and is gone", async () => {
    const client = createClient(CatalogService, createConnectTransport({ baseUrl: running.url, httpVersion: "2" }));
    for (const [index, how] of (["takes", "hangs", "refuses", "gone"] as const).entries()) {
      if (how === "gone") await collector.die();
      else collector.behave(how);
      const before = collector.requests;
      const answers = await Promise.all(Array.from({ length: CALLS }, () => client.listCategories({})));
      assert.ok(answers.every(({ categories }) => categories.length > 0));
      if (how !== "gone") await until(() => collector.requests > before);
      const text = await (await fetch(`${running.url}/metrics`)).text();
      const [, served] = /^rpc_server_call_duration_seconds_count\{[^}]*ListCategories"[^}]*="OK"\} (\d+)$/m.exec(text) ?? [];
      assert.equal(Number(served), (index + 1) * CALLS);
      assert.match(text, /^souk_server_connections [1-9]\d*$/m);
      assert.match(text, /^souk_server_calls \d+$/m);
    }
    collector = await startCollector(Number(new URL(collector.endpoint).port));
  });

  it("ends well while the collector hangs", async () => {
    const hanging = await startCollector();
    hanging.behave("hangs");
    const other = temporaryFolder();
    try {
      // Longer than this test may take.
      const env = { OTEL_EXPORTER_OTLP_ENDPOINT: hanging.endpoint, OTEL_EXPORTER_OTLP_TIMEOUT: "60000" };
      const program = await startMarketplace(["--port", "0", "--data-dir", other.path, "--no-seed"], env);
      await fetch(`${program.url}/marketplace.catalog.v1.CatalogService/ListCategories?encoding=json&message=%7B%7D`);
      assert.equal(await program.stop(), 0);
      assert.ok(hanging.requests > 0);
    } finally {
      await hanging.die();
      other.remove();
    }
  });
});

describe("/metrics", () => {
  it("is not there for who comes through a proxy, nor where it is switched off", async () => {
    const folder = temporaryFolder();
    const start = async (...more: string[]) => {
      const argv = ["--port", "0", "--data-dir", folder.path, "--log-level", "silent", ...more];
      const settings = readConfig({ argv, env: {}, services: SERVICES });
      assert.ok("config" in settings);
      return run(settings.config);
    };
    try {
      const on = await start();
      const look = async (url: string, init: RequestInit = {}) => (await fetch(`${url}/metrics`, init)).status;
      assert.equal(await look(on.url), 200);
      assert.equal(await look(on.url, { method: "POST" }), 404);
      for (const name of ["x-forwarded-for", "forwarded", "x-envoy-external-address"]) {
        assert.equal(await look(on.url, { headers: { [name]: "192.0.2.1" } }), 404);
      }
      await on.stop();
      const off = await start("--no-metrics");
      assert.equal(await look(off.url), 404);
      await off.stop();
    } finally {
      folder.remove();
    }
  });
});
