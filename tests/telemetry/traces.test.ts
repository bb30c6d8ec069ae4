import assert from "node:assert/strict";
import { Code, ConnectError } from "@connectrpc/connect";
import { type SpanKind, SpanStatusCode } from "@opentelemetry/api";
import { InMemorySpanExporter, SimpleSpanProcessor } from "@opentelemetry/sdk-trace";
import { CatalogService } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { createLog, silentLog } from "#runtime/log.ts";
import type { Carriage, ObservedCall } from "#runtime/telemetry/observer.ts";
import { openTelemetry, type Telemetry } from "#runtime/telemetry/telemetry.ts";
import { traceFields } from "#runtime/telemetry/traces.ts";

const TRACE = "0af7651916cd43dd8448eb211c80319c";
const SPAN = "b7ad6b7169203331";
const SAMPLED = `00-${TRACE}-${SPAN}-01`;
const UNSAMPLED = `00-${TRACE}-${SPAN}-00`;
const method = CatalogService.method.getListing;
const CLIENT: SpanKind = 2;

describe("traces", () => {
  const exporter = new InMemorySpanExporter();
  const opened: Telemetry[] = [];
  const open = (ratio: number): Telemetry => {
    const processors = [new SimpleSpanProcessor({ exporter })];
    const telemetry = openTelemetry({ serviceName: "test", ratio, intervalMs: 60_000, log: silentLog(), processors });
    opened.push(telemetry);
    return telemetry;
  };
  const [all, none] = [open(1), open(0)];
  beforeEach(() => exporter.reset());
  after(() => Promise.all(opened.map((telemetry) => telemetry.stop())));

  function arrival({ observer }: Telemetry, headers: Record<string, string> = {}, carriage: Carriage = "grpc"): ObservedCall {
    return observer.serverCall({ method, carriage, header: (name) => headers[name] });
  }

  /** The headers of a call that is made while another is served. */
  function onwards(telemetry: Telemetry, headers: Record<string, string> = {}): Record<string, string> {
    const sent: Record<string, string> = {};
    const setHeader = (name: string, value: string) => {
      sent[name] = value;
    };
    const served = arrival(telemetry, headers);
    served.run(() => telemetry.observer.clientCall({ method, carriage: "grpc", target: "souk-order:8080", setHeader }).end());
    served.end();
    return sent;
  }

  it("go on as they came, recorded or not, whatever the share that begins here", () => {
    for (const telemetry of [all, none]) {
      assert.match(
        onwards(telemetry, { traceparent: SAMPLED, tracestate: "a=1,b=2" }).traceparent ?? "",
        new RegExp(`^00-${TRACE}-.{16}-01$`),
      );
      const [client, server] = exporter.getFinishedSpans();
      assert.equal(server?.parentSpanContext?.spanId, SPAN);
      assert.equal(client?.parentSpanContext?.spanId, server?.spanContext().spanId);
      exporter.reset();
      assert.deepEqual(onwards(telemetry, { traceparent: UNSAMPLED }), { traceparent: UNSAMPLED });
      assert.equal(exporter.getFinishedSpans().length, 0);
    }
  });

  it("carry on what other tracing systems added", () => {
    assert.equal(onwards(all, { traceparent: SAMPLED, tracestate: "a=1,b=2" }).tracestate, "a=1,b=2");
    assert.equal(onwards(all, { traceparent: SAMPLED, tracestate: `a=${"x".repeat(600)}` }).tracestate, undefined);
  });

  it("begin here by their share, and tell the next process what was decided", () => {
    assert.match(onwards(all).traceparent ?? "", /^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/);
    assert.equal(exporter.getFinishedSpans().length, 2);
    exporter.reset();
    assert.match(onwards(none).traceparent ?? "", /^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-00$/);
    assert.equal(exporter.getFinishedSpans().length, 0);
  });

  it("begin anew where the header is not one", () => {
    const wrong = [
      "",
      "00",
      `ff-${TRACE}-${SPAN}-01`,
      `00-${"0".repeat(32)}-${SPAN}-01`,
      `00-${TRACE}-${"0".repeat(16)}-01`,
      SAMPLED.toUpperCase(),
      `${SAMPLED}x`,
    ];
    for (const traceparent of wrong) {
      arrival(all, { traceparent }).end();
      assert.equal(exporter.getFinishedSpans().at(-1)?.parentSpanContext, undefined, traceparent);
    }
  });

  it("keep calls apart that are served at once", async () => {
    const serve = async () => {
      const call = arrival(all);
      const seen = await call.run(async () => {
        const before = traceFields();
        await new Promise((resolve) => setTimeout(resolve, Math.random() * 5));
        assert.deepEqual(traceFields(), before);
        return before.trace_id;
      });
      call.end();
      return seen;
    };
    const seen = await Promise.all(Array.from({ length: 50 }, serve));
    assert.equal(new Set(seen).size, 50);
    assert.deepEqual(traceFields(), {});
  });

  it("stand in each line of the log that is written within them", () => {
    for (const telemetry of [all, none]) {
      let text = "";
      const write = (line: string) => {
        text += line;
      };
      const log = createLog({ level: "info", format: "json", fields: traceFields, destination: { write } }).child({
        service: "order",
      });
      log.info("outside");
      arrival(telemetry).run(() => log.info("inside"));
      const [outside, inside] = text
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line) as Record<string, string>);
      assert.equal(outside?.trace_id, undefined);
      assert.match(inside?.trace_id ?? "", /^[0-9a-f]{32}$/);
      assert.match(inside?.span_id ?? "", /^[0-9a-f]{16}$/);
    }
  });

  it("call a span failed where its side is to blame, and tell no message", () => {
    const faults = [Code.Unknown, Code.DeadlineExceeded, Code.Unimplemented, Code.Internal, Code.Unavailable, Code.DataLoss];
    for (const code of Object.values(Code).filter((each): each is Code => typeof each === "number")) {
      arrival(all).end(new ConnectError("Ada's secret", code));
      all.observer
        .clientCall({ method, carriage: "grpc", target: "souk-order:8080", setHeader: () => {} })
        .end(new ConnectError("no", code));
      const [server, client] = exporter.getFinishedSpans().slice(-2);
      assert.deepEqual(server?.status, { code: faults.includes(code) ? SpanStatusCode.ERROR : SpanStatusCode.UNSET }, Code[code]);
      assert.equal(server?.attributes["error.type"], faults.includes(code) ? server?.attributes["rpc.status_code"] : undefined);
      assert.equal(client?.kind, CLIENT);
      assert.deepEqual(client?.status, { code: SpanStatusCode.ERROR });
      assert.deepEqual([client?.attributes["server.address"], client?.attributes["server.port"]], ["souk-order", 8080]);
    }
    arrival(all).end(new ConnectError("no", Code.Canceled));
    assert.equal(exporter.getFinishedSpans().at(-1)?.attributes["rpc.status_code"], "CANCELLED");
  });

  it("have one span for a call in memory", () => {
    const caller = arrival(all);
    caller.run(() => {
      const made = all.observer.clientCall({
        method,
        carriage: "memory",
        target: "catalog",
        setHeader: () => assert.fail("a header"),
      });
      made.run(() => arrival(all, { traceparent: UNSAMPLED }, "memory").end());
      made.end();
    });
    caller.end();
    const [inner, outer] = exporter.getFinishedSpans();
    assert.equal(exporter.getFinishedSpans().length, 2);
    assert.equal(inner?.parentSpanContext?.spanId, outer?.spanContext().spanId);
    assert.deepEqual([inner?.attributes["rpc.system.name"], outer?.attributes["rpc.system.name"]], ["memory", "grpc"]);
  });
});
