import assert from "node:assert/strict";
import { SpanKind } from "@opentelemetry/api";
import { InMemorySpanExporter, SimpleSpanProcessor } from "@opentelemetry/sdk-trace";
import { OrderService } from "#gen/marketplace/order/v1/order_pb.ts";
import { callOf } from "#runtime/call.ts";
import { ETAG_MISMATCH, fail } from "#runtime/errors.ts";
import { newId } from "#runtime/ids.ts";
import { createLog } from "#runtime/log.ts";
import { openTelemetry, type Telemetry } from "#runtime/telemetry/telemetry.ts";
import { traceFields } from "#runtime/telemetry/traces.ts";
import { onServer, type Protocol, rpcModule, type Subject } from "../support/server.ts";

const account = { account: newId() };
const [KNOWN, CHANGED, WAITING] = [newId(), newId(), newId()];
const SYSTEMS: readonly (readonly [Protocol, string])[] = [
  ["Connect JSON", "connectrpc"],
  ["Connect protobuf", "connectrpc"],
  ["gRPC", "grpc"],
  ["gRPC-Web", "grpc"],
];

for (const [protocol, system] of SYSTEMS) {
  describe(`the telemetry of calls over ${protocol}`, () => {
    const exporter = new InMemorySpanExporter();
    let telemetry: Telemetry;
    let subject: Subject;
    let lines: string;
    /** The traces that handlers saw. */
    let seen: (string | undefined)[];
    /** Lets the calls go on that wait. */
    const waiting: (() => void)[] = [];
    const see = () => seen.push(traceFields().trace_id);
    const write = (line: string) => {
      lines += line;
    };
    const module = rpcModule("order", (router) => {
      router.service(OrderService, {
        async getOrder({ orderId }, context) {
          see();
          if (orderId === WAITING) {
            callOf(context).signal.addEventListener("abort", see);
            await new Promise<void>((resolve) => waiting.push(resolve));
            return {};
          }
          await new Promise((resolve) => setImmediate(resolve));
          see();
          if (orderId === KNOWN) return {};
          if (orderId === CHANGED) fail(ETAG_MISMATCH);
          throw new Error("Ada's secret");
        },
        async *watchOrder() {
          see();
          yield {};
          see();
          await new Promise((resolve) => setImmediate(resolve));
          yield {};
          see();
        },
      });
    });
    before(async () => {
      const log = createLog({ level: "info", format: "json", fields: traceFields, destination: { write } });
      const processors = [new SimpleSpanProcessor({ exporter })];
      telemetry = openTelemetry({ serviceName: "test", ratio: 1, intervalMs: 60_000, log, processors });
      subject = await onServer([module], protocol, { observer: telemetry.observer, log });
    });
    after(async () => {
      await subject?.stop();
      await telemetry?.stop();
    });
    beforeEach(() => {
      exporter.reset();
      lines = "";
      seen = [];
    });

    /** The one span of the call that was made, and what the log says. */
    async function made(call: () => Promise<unknown>) {
      await call().catch(() => {});
      while (exporter.getFinishedSpans().length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
      const spans = exporter.getFinishedSpans();
      assert.equal(spans.length, 1);
      const [span] = spans;
      const told = lines
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line) as Record<string, unknown>);
      const traceId = span?.spanContext().traceId;
      assert.deepEqual([...new Set(told.map((line) => line.trace_id))], [traceId]);
      assert.deepEqual([...new Set(seen)], seen.length === 0 ? [] : [traceId]);
      assert.equal(span?.kind, SpanKind.SERVER);
      return { span, told };
    }

    it("are in the trace of their span, with their lines of the log", async () => {
      const { span, told } = await made(() => subject.client(OrderService, account).getOrder({ orderId: KNOWN }));
      const method = "marketplace.order.v1.OrderService/GetOrder";
      assert.deepEqual(span?.attributes, { "rpc.system.name": system, "rpc.method": method, "rpc.status_code": "OK" });
      assert.equal(span?.name, method);
      assert.equal(seen.length, 2);
      assert.equal(told.length, 1);
    });

    it("name a reason, and what nobody named by its id in the log alone", async () => {
      const { span } = await made(() => subject.client(OrderService, account).getOrder({ orderId: CHANGED }));
      assert.deepEqual([span?.attributes["souk.reason"], span?.attributes["rpc.status_code"]], ["ETAG_MISMATCH", "ABORTED"]);
      exporter.reset();
      lines = "";
      seen = [];
      const broken = await made(() => subject.client(OrderService, account).getOrder({ orderId: newId() }));
      assert.equal(broken.span?.attributes["error.type"], "INTERNAL");
      assert.doesNotMatch(JSON.stringify([broken.span?.attributes, broken.span?.status, broken.span?.events]), /secret/);
      assert.ok(broken.told.some((line) => "error_id" in line));
    });

    it("are told of when they are refused before anything of them is read", async () => {
      const { span } = await made(() => subject.client(OrderService).getOrder({ orderId: KNOWN }));
      assert.equal(span?.attributes["souk.reason"], "TOKEN_MISSING");
      assert.deepEqual(seen, []);
    });

    it("hold what a handler does when their time is over", async () => {
      const client = subject.client(OrderService, account);
      // On a busy machine its time may be over as well.
      const first = client.getOrder({ orderId: WAITING }).catch(() => {});
      while (waiting.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
      seen = [];
      await assert.rejects(client.getOrder({ orderId: WAITING }, { timeoutMs: 100 }));
      while (seen.length < 2) await new Promise((resolve) => setTimeout(resolve, 5));
      for (const goOn of waiting.splice(0)) goOn();
      await first;
      assert.equal(seen[1], seen[0]);
    });

    it("of which a stream is the answer hold all that its handler does", async () => {
      const watch = async () => {
        for await (const _ of subject.client(OrderService, account).watchOrder({ orderId: KNOWN }));
      };
      const { span } = await made(watch);
      assert.equal(span?.attributes["rpc.status_code"], "OK");
      assert.equal(seen.length, 3);
    });
  });
}
