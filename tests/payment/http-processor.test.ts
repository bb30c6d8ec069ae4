import assert from "node:assert/strict";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { newId } from "#runtime/ids.ts";
import { type HttpProcessor, openHttpProcessor } from "../../services/payment/http-processor.ts";
import { ProcessorTimeout, ProcessorUnreachable } from "../../services/payment/processor.ts";
import { type ProcessorAtPort, processorAtPort } from "./processor-at-port.ts";

const order = (paymentMethodToken = "tok_approved") => ({ amountMinor: 500n, currencyCode: "USD", paymentMethodToken });

describe("a processor over HTTP", () => {
  let there: ProcessorAtPort;
  const { signal } = new AbortController();
  const opened: HttpProcessor[] = [];
  const open = (url: string, token?: string, admit: Parameters<typeof openHttpProcessor>[0]["admit"] = async () => {}) => {
    const processor = openHttpProcessor({ url, token, admit });
    opened.push(processor);
    return processor;
  };
  beforeEach(async () => {
    there = await processorAtPort({ token: "secret-of-ours" });
  });
  afterEach(async () => {
    for (const processor of opened.splice(0)) processor.close();
    await there.close();
  });

  it("answers everything as one in the process does", async () => {
    const processor = open(there.url, "secret-of-ours");
    const [a, c, r] = [newId(), newId(), newId()];
    assert.equal(await processor.find("authorization", a, signal), undefined);
    assert.deepEqual(await processor.authorize(a, order(), signal), { state: "approved" });
    assert.deepEqual(await processor.capture(c, a, signal), { state: "captured" });
    assert.deepEqual(await processor.refund(r, a, signal), { state: "refunded" });
    assert.deepEqual(await processor.find("capture", c, signal), { state: "captured" });
    assert.deepEqual(await processor.void(newId(), newId(), signal), { state: "not_found" });
    const declined = await processor.authorize(newId(), order("tok_insufficient_funds"), signal);
    assert.deepEqual(declined, { state: "declined", reason: "INSUFFICIENT_FUNDS" });
    const confirm = await processor.authorize(newId(), order("tok_needs_confirmation"), signal);
    assert.ok(confirm.state === "confirm" && confirm.confirmationUrl.startsWith("http://shop.test/simulator/confirmations/"));
    const payout = { amountMinor: 9_007_199_254_740_993n, currencyCode: "JPY", destinationToken: "bank_demo_ada" };
    assert.deepEqual(await processor.payout(newId(), payout, signal), { state: "pending" });
    there.clock.advance(60_000);
    assert.deepEqual(await processor.books("JPY", signal), {
      capturedMinor: 0n,
      refundedMinor: 0n,
      paidOutMinor: 9_007_199_254_740_993n,
    });
    assert.deepEqual(await processor.books("USD", signal), { capturedMinor: 500n, refundedMinor: 500n, paidOutMinor: 0n });
  });

  it("tells an open outcome from a mistake", async () => {
    const processor = open(there.url, "secret-of-ours");
    const key = newId();
    await assert.rejects(processor.authorize(key, order("tok_timeout_charged"), signal), ProcessorTimeout);
    assert.deepEqual(await processor.find("authorization", key, signal), { state: "approved" });
    const mistake = processor.authorize(key, { ...order("tok_timeout_charged"), amountMinor: 1n }, signal);
    await assert.rejects(mistake, (error: Error) => !isOpen(error) && /was used for something else/.test(error.message));
  });

  it("does nothing for who does not have its secret, and nothing for who means other books", async () => {
    for (const token of [undefined, "another-secret"]) {
      await assert.rejects(open(there.url, token).authorize(newId(), order(), signal), /UNAUTHENTICATED/);
      await assert.rejects(open(there.url, token).ready(signal), ProcessorUnreachable);
    }
    const processor = open(there.url, "secret-of-ours");
    await processor.ready(signal);
    await there.replaceBooks();
    await assert.rejects(processor.authorize(newId(), order(), signal), ProcessorUnreachable);
    assert.equal((await there.simulator.books("USD", signal)).capturedMinor, 0n);
  });

  it("is looked at before anything is asked of it, and again until it may be", async () => {
    let asked = 0;
    const processor = open(there.url, "secret-of-ours", async ({ simulated }) => {
      asked++;
      assert.equal(simulated, true);
      if (asked === 1) throw new ProcessorUnreachable("not you");
    });
    const key = newId();
    await assert.rejects(processor.authorize(key, order(), signal), /not you/);
    assert.equal(await there.simulator.find("authorization", key, signal), undefined);
    await processor.authorize(key, order(), signal);
    await processor.authorize(newId(), order(), signal);
    assert.equal(asked, 2);
  });
});

const isOpen = (error: unknown): boolean => error instanceof ProcessorTimeout || error instanceof ProcessorUnreachable;

describe("a processor that misbehaves", () => {
  let server: Server;
  let url: string;
  let processor: HttpProcessor;
  let requests: string[];
  /** What it does with a command; it says who it is in any case. */
  let manner: (request: IncomingMessage, response: ServerResponse) => void;
  beforeEach(async () => {
    requests = [];
    server = createServer((request, response) => {
      if (request.url === "/identity") response.end('{"processorId":"p1","simulated":false}');
      else {
        requests.push(request.headers["idempotency-key"] as string);
        manner(request, response);
      }
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    processor = openHttpProcessor({ url, token: undefined, admit: async () => {} });
  });
  afterEach(async () => {
    processor.close();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  const authorize = (ms = 500) => processor.authorize("key-1", order(), AbortSignal.timeout(ms));

  const manners: Readonly<Record<string, typeof manner>> = {
    "never answers": () => {},
    "hangs in the middle of an answer": (_request, response) => response.writeHead(200).write('{"state":'),
    "breaks off in the middle of an answer": (_request, response) => {
      response.writeHead(200, { "content-length": "100" }).write('{"state":');
      setTimeout(() => response.destroy(), 20);
    },
    "answers without end": (_request, response) => response.end(`{"state":"approved","more":"${"x".repeat(20_000)}"}`),
    "answers a page": (_request, response) => response.writeHead(404).end("<html>"),
    "answers as something between does": (_request, response) => response.writeHead(503).end("upstream connect error"),
    "answers another state": (_request, response) => response.end('{"state":"done"}'),
    "answers a state with nothing behind it": (_request, response) => response.end('{"state":"confirm"}'),
    "does not know itself": (_request, response) => response.writeHead(500).end('{"error":{"code":"OOPS","message":"?"}}'),
    "leads elsewhere": (_request, response) => response.writeHead(307, { location: "/identity" }).end(),
  };
  for (const [what, how] of Object.entries(manners)) {
    it(`leaves the outcome open when it ${what}`, async () => {
      manner = how;
      await assert.rejects(authorize(), ProcessorTimeout);
      assert.deepEqual(requests, ["key-1"]);
    });
  }

  it("has done nothing when it cannot be connected to, or says so", async () => {
    manner = (_request, response) => response.writeHead(503).end('{"error":{"code":"UNAVAILABLE","message":"later"}}');
    await assert.rejects(authorize(), ProcessorUnreachable);
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    await assert.rejects(authorize(), ProcessorUnreachable);
    await assert.rejects(authorize(0), ProcessorUnreachable);
  });

  it("is asked again under the same key when it had closed an idle connection, and the outcome stays open when it is gone then", async () => {
    manner = (_request, response) => response.end('{"state":"approved"}');
    await authorize();
    manner = (request) => request.socket.destroy();
    await assert.rejects(authorize(), ProcessorTimeout);
    assert.deepEqual(requests, ["key-1", "key-1", "key-1"]);
    manner = (_request, response) => response.end('{"state":"approved"}');
    await authorize();
    manner = (request) => {
      server.close();
      request.socket.destroy();
    };
    await assert.rejects(authorize(), ProcessorTimeout);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  });

  it("is never believed to know nothing unless it says so", async () => {
    const find = () => processor.find("authorization", "key-1", AbortSignal.timeout(500));
    manner = (_request, response) => response.end('{"outcome":null}');
    assert.equal(await find(), undefined);
    for (const answer of ["{}", '{"outcome":{}}', '{"outcome":[]}', "null"]) {
      manner = (_request, response) => response.end(answer);
      await assert.rejects(find(), ProcessorTimeout, answer);
    }
    manner = (_request, response) => response.writeHead(404).end('{"outcome":null}');
    await assert.rejects(find(), ProcessorTimeout);
  });
});
