import assert from "node:assert/strict";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { SpanKind, SpanStatusCode } from "@opentelemetry/api";
import { InMemorySpanExporter, SimpleSpanProcessor } from "@opentelemetry/sdk-trace";
import { PaymentService } from "#gen/marketplace/payment/v1/payment_pb.ts";
import { newId } from "#runtime/ids.ts";
import { silentLog } from "#runtime/log.ts";
import { ATTRIBUTE } from "#runtime/telemetry/conventions.ts";
import { openTelemetry, type Telemetry } from "#runtime/telemetry/telemetry.ts";
import { type HttpProcessor, openHttpProcessor } from "../../services/payment/http-processor.ts";
import { type ProcessorAtPort, processorAtPort } from "../payment/processor-at-port.ts";

const TOKEN = "secret-of-ours";
const order = { amountMinor: 500n, currencyCode: "USD", paymentMethodToken: "tok_approved" };

describe("the telemetry of calls to the payment processor", () => {
  const { signal } = new AbortController();
  const opened: { close(): unknown }[] = [];
  let exporter: InMemorySpanExporter;
  let telemetry: Telemetry;
  let there: ProcessorAtPort;
  beforeEach(async () => {
    exporter = new InMemorySpanExporter();
    const processors = [new SimpleSpanProcessor({ exporter })];
    telemetry = openTelemetry({ serviceName: "test", ratio: 1, intervalMs: 60_000, log: silentLog(), processors });
    there = await processorAtPort({ token: TOKEN });
  });
  afterEach(async () => {
    for (const each of opened.splice(0)) await each.close();
    await there.close();
    await telemetry.stop();
  });

  function open(url: string, token = TOKEN): HttpProcessor {
    const processor = openHttpProcessor({ url, token, admit: async () => {}, observer: telemetry.observer });
    opened.push(processor);
    return processor;
  }

  /** Does work as a call of payment would; gives the id of that call's span. */
  async function within(work: () => Promise<unknown>): Promise<string | undefined> {
    const call = telemetry.observer.serverCall({
      method: PaymentService.method.authorizePayment,
      carriage: "memory",
      header: () => undefined,
    });
    await call.run(work).catch(() => {});
    call.end();
    return exporter.getFinishedSpans().at(-1)?.spanContext().spanId;
  }
  const sent = () => exporter.getFinishedSpans().filter(({ kind }) => kind === SpanKind.CLIENT);

  it("is a client's span for each request, within the call that needs it, and a measurement", async () => {
    const processor = open(there.url);
    await processor.ready(signal);
    const key = newId();
    const parent = await within(async () => {
      await processor.authorize(key, order, signal);
      await processor.find("authorization", key, signal);
    });
    const { hostname, port } = new URL(there.url);
    const told = (method: string, path: string) => ({
      [ATTRIBUTE.httpMethod]: method,
      [ATTRIBUTE.serverAddress]: hostname,
      [ATTRIBUTE.serverPort]: Number(port),
      [ATTRIBUTE.urlTemplate]: `/v1/${path}`,
      [ATTRIBUTE.urlFull]: `${there.url}/${path}`,
      [ATTRIBUTE.httpStatus]: 200,
    });
    assert.deepEqual(
      sent().map(({ name, attributes }) => [name, attributes]),
      [
        ["POST /v1/authorizations", told("POST", "authorizations")],
        ["GET /v1/outcomes", told("GET", "outcomes")],
      ],
    );
    assert.ok(sent().every(({ parentSpanContext, status }) => parentSpanContext?.spanId === parent && status.code === 0));
    const text = await telemetry.metrics();
    const labels = `http_request_method="POST",server_address="${hostname}",server_port="${port}",url_template="/v1/authorizations",http_response_status_code="200"`;
    assert.ok(text.includes(`http_client_request_duration_seconds_count{${labels}} 1\n`), text);
  });

  it("takes an answer that refuses, and none at all, for errors by their status and code", async () => {
    await within(() => open(there.url, "another-secret").authorize(newId(), order, signal));
    await within(() => open("http://127.0.0.1:1/v1").authorize(newId(), order, signal));
    assert.deepEqual(
      sent().map(({ name, attributes, status }) => [name, attributes[ATTRIBUTE.errorType], status]),
      [
        ["GET /v1/identity", "401", { code: SpanStatusCode.ERROR }],
        ["GET /v1/identity", "ECONNREFUSED", { code: SpanStatusCode.ERROR }],
      ],
    );
  });

  it("counts a request that is sent again on another connection", async () => {
    let requests = 0;
    const server: Server = createServer((request, response) => {
      if (++requests === 2) request.socket.destroy();
      else response.end(request.url === "/identity" ? '{"processorId":"p1","simulated":false}' : '{"state":"captured"}');
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    opened.push({ close: () => server.close() });
    const processor = open(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
    await within(() => processor.capture(newId(), newId(), signal));
    assert.deepEqual(
      sent().map(({ name, attributes }) => [name, attributes[ATTRIBUTE.httpResends], attributes[ATTRIBUTE.errorType]]),
      [
        ["GET /identity", undefined, undefined],
        ["POST /captures", undefined, "ECONNRESET"],
        ["POST /captures", 1, undefined],
      ],
    );
  });

  it("has no secret of ours, no payment method, no key and no amount", async () => {
    const processor = open(there.url);
    const key = newId();
    await within(async () => {
      await processor.authorize(key, { ...order, amountMinor: 98_765n }, signal);
      await processor.find("authorization", key, signal);
      await processor.payout(newId(), { amountMinor: 98_765n, currencyCode: "USD", destinationToken: "bank_demo_ada" }, signal);
    });
    assert.equal(sent().length, 4);
    const all = JSON.stringify(
      exporter.getFinishedSpans().map(({ name, attributes, status, events }) => [name, attributes, status, events]),
    );
    const text = await telemetry.metrics();
    for (const word of [TOKEN, "Bearer", "tok_", "bank_", key, "98765"]) {
      assert.ok(!all.includes(word) && !text.includes(word), word);
    }
  });
});
