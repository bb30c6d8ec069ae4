import assert from "node:assert/strict";
import { type ClientHttp2Session, connect as connectHttp2, type IncomingHttpHeaders } from "node:http2";
import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { createClient, type ServiceImpl } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { credentials, Client as GrpcClient, type ServiceError } from "@grpc/grpc-js";
import { ErrorInfoSchema } from "#gen/google/rpc/error_details_pb.ts";
import { StatusSchema } from "#gen/google/rpc/status_pb.ts";
import { CatalogService, GetListingRequestSchema, GetListingResponseSchema } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { OrderService } from "#gen/marketplace/order/v1/order_pb.ts";
import { callOf } from "#runtime/call.ts";
import { silentLog } from "#runtime/log.ts";
import { type Server, type ServerOptions, startServer } from "#runtime/server.ts";
import type { Door } from "#runtime/service.ts";
import { embeddedVerifiers, signAccountToken, temporaryKeys } from "#runtime/tokens.ts";
import { onServer, rpcModule, type Subject } from "../support/server.ts";

const LISTING = "0198a0de-0000-7000-8000-000000000001";
const ALICE = "0198a0de-0000-7000-8000-00000000a11c";
const GET_LISTING = "/marketplace.catalog.v1.CatalogService/GetListing";

let handler: (signal: AbortSignal) => Promise<void> = async () => {};
let handled = 0;
const catalog: Partial<ServiceImpl<typeof CatalogService>> = {
  async getListing({ listingId }, context) {
    handled++;
    await handler(callOf(context).signal);
    return { listing: { listingId } };
  },
  listCategories: () => ({}),
  batchCreateListings: () => ({}),
};
const order: Partial<ServiceImpl<typeof OrderService>> = {
  async *watchOrder({ orderId }, context) {
    yield { order: { orderId } };
    const { signal } = callOf(context);
    await new Promise((resolve) => signal.addEventListener("abort", resolve));
  },
};
const door: Door = {
  method: "POST",
  path: "/test/door/",
  handle: async (request) => new Response(`got ${await request.text()} at ${new URL(request.url).pathname}`, { status: 201 }),
};
const modules = [
  { ...rpcModule("catalog", (router) => router.service(CatalogService, catalog)), doors: [door] },
  rpcModule("order", (router) => router.service(OrderService, order)),
];

type Body = NonNullable<RequestInit["body"]>;

interface Refusal {
  status: number;
  code: string;
  reason: string | undefined;
  headers: Headers;
}

/** A call as curl makes it. */
async function post(url: string, body: Body, headers: Record<string, string> = {}, path = GET_LISTING): Promise<Refusal> {
  const response = await fetch(url + path, {
    method: "POST",
    body,
    headers: { "content-type": "application/json", ...headers },
    ...(body instanceof ReadableStream ? { duplex: "half" as const } : {}),
  } as RequestInit);
  return refusalOf(response);
}

async function refusalOf(response: Response): Promise<Refusal> {
  const answer = (await response.json()) as { code?: string; details?: { type: string; value: string }[] };
  const info = answer.details?.find(({ type }) => type === "google.rpc.ErrorInfo");
  const reason = info && fromBinary(ErrorInfoSchema, Buffer.from(info.value, "base64")).reason;
  return { status: response.status, code: answer.code ?? "ok", reason, headers: response.headers };
}

function assertRefusal({ status, code, reason }: Refusal, expected: [status: number, code: string, reason: string]): void {
  assert.deepEqual([status, code, reason], expected);
}

/** A raw HTTP/2 call: headers, trailers and body as they are on the wire. */
function rawHttp2(
  session: ClientHttp2Session,
  headers: Record<string, string>,
  body: Uint8Array,
): Promise<{ headers: IncomingHttpHeaders; trailers: IncomingHttpHeaders | undefined; body: Buffer }> {
  return new Promise((resolve, reject) => {
    const stream = session.request({ ":method": "POST", ":path": GET_LISTING, ...headers });
    const chunks: Buffer[] = [];
    let received: IncomingHttpHeaders = {};
    let trailers: IncomingHttpHeaders | undefined;
    stream.on("response", (h) => {
      received = h;
    });
    stream.on("trailers", (t) => {
      trailers = t;
    });
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    stream.on("error", reject);
    stream.on("end", () => resolve({ headers: received, trailers, body: Buffer.concat(chunks) }));
    stream.end(body);
  });
}

function envelope(message: Uint8Array, flags = 0): Buffer {
  const head = Buffer.alloc(5);
  head[0] = flags;
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

function grpcReason(headers: IncomingHttpHeaders): string | undefined {
  const details = headers["grpc-status-details-bin"];
  if (typeof details !== "string") return undefined;
  const any = fromBinary(StatusSchema, Buffer.from(details, "base64")).details[0];
  return any && fromBinary(ErrorInfoSchema, any.value).reason;
}

describe("a server", () => {
  let subject: Subject & { server: Server };
  let url: string;
  before(async () => {
    subject = await onServer(modules, "Connect JSON", {
      corsOrigins: ["https://shop.example"],
      limits: { bodyTimeoutMs: 300, headersTimeoutMs: 800 },
    });
    url = subject.url;
  });
  after(() => subject.stop());
  beforeEach(() => {
    handler = async () => {};
    handled = 0;
  });

  describe("refuses with a reason, before any work", () => {
    afterEach(() => assert.equal(handled, 0));
    const good = JSON.stringify({ listingId: LISTING });

    it("an unknown field", async () => {
      assertRefusal(await post(url, JSON.stringify({ listingId: LISTING, color: "red" })), [
        400,
        "invalid_argument",
        "UNKNOWN_FIELD",
      ]);
    });
    it("a wrong type", async () => {
      assertRefusal(await post(url, '{"listingId": 7}'), [400, "invalid_argument", "MALFORMED_REQUEST"]);
    });
    it("JSON that ends too early", async () => {
      assertRefusal(await post(url, good.slice(0, -3)), [400, "invalid_argument", "MALFORMED_REQUEST"]);
    });
    it("JSON that is nested too deep", async () => {
      assertRefusal(await post(url, "[".repeat(30_000)), [400, "invalid_argument", "MALFORMED_REQUEST"]);
      assertRefusal(await post(url, `${'{"listingId":'.repeat(3000)}1${"}".repeat(3000)}`), [
        400,
        "invalid_argument",
        "MALFORMED_REQUEST",
      ]);
    });
    it("protobuf that cannot be decoded", async () => {
      const headers = { "content-type": "application/proto" };
      assertRefusal(await post(url, Buffer.from([0x0a, 0xff, 0x01]), headers), [400, "invalid_argument", "MALFORMED_REQUEST"]);
    });
    it("a body larger than the method's policy allows, promised or not", async () => {
      const large = JSON.stringify({ listingId: "x".repeat(70_000) });
      assertRefusal(await post(url, large), [429, "resource_exhausted", "REQUEST_TOO_LARGE"]);
      const chunked = new Blob([large]).stream();
      assertRefusal(await post(url, chunked), [429, "resource_exhausted", "REQUEST_TOO_LARGE"]);
    });
    it("a body that is larger than that only when decompressed", async () => {
      const bomb = gzipSync(Buffer.alloc(50_000_000, " "));
      assertRefusal(await post(url, bomb, { "content-encoding": "gzip" }), [429, "resource_exhausted", "REQUEST_TOO_LARGE"]);
    });
    it("a body that is not compressed as it says, or by something unknown", async () => {
      assertRefusal(await post(url, good, { "content-encoding": "gzip" }), [400, "invalid_argument", "MALFORMED_REQUEST"]);
      assertRefusal(await post(url, good, { "content-encoding": "zip" }), [501, "unimplemented", "PROTOCOL_UNSUPPORTED"]);
    });
    it("a body that does not arrive", async () => {
      const never = new ReadableStream({ start: (controller) => controller.enqueue(Buffer.from("{")) });
      assertRefusal(await post(url, never), [504, "deadline_exceeded", "DEADLINE_EXCEEDED"]);
    });
    it("an unreadable timeout", async () => {
      assertRefusal(await post(url, good, { "connect-timeout-ms": "soon" }), [400, "invalid_argument", "MALFORMED_REQUEST"]);
    });
    it("a deadline that has passed", async () => {
      assertRefusal(await post(url, good, { "connect-timeout-ms": "0" }), [504, "deadline_exceeded", "DEADLINE_EXCEEDED"]);
    });
    it("a method that does not exist", async () => {
      assertRefusal(await post(url, "{}", {}, "/marketplace.catalog.v1.CatalogService/Steal"), [
        404,
        "unimplemented",
        "UNIMPLEMENTED",
      ]);
    });
    it("a content type that is none of ours", async () => {
      assertRefusal(await post(url, good, { "content-type": "text/xml" }), [415, "unimplemented", "PROTOCOL_UNSUPPORTED"]);
    });
    it("an HTTP method that is none of ours", async () => {
      const refusal = await refusalOf(await fetch(url + GET_LISTING, { method: "PUT", body: good }));
      assertRefusal(refusal, [405, "unimplemented", "PROTOCOL_UNSUPPORTED"]);
      assert.match(refusal.headers.get("allow") ?? "", /POST/);
    });
    it("a message in the URL that is not base64", async () => {
      const response = await fetch(`${url}${GET_LISTING}?encoding=proto&base64=1&message=***`);
      assertRefusal(await refusalOf(response), [400, "invalid_argument", "MALFORMED_REQUEST"]);
    });
  });

  describe("refuses tokens", () => {
    const refuse = async (token: string, reason: string) =>
      assertRefusal(await post(url, JSON.stringify({ listingId: LISTING }), { authorization: token }), [
        401,
        "unauthenticated",
        reason,
      ]);
    const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");

    it("that have expired", async () => {
      await refuse(`Bearer ${await signAccountToken(subject.keys, { accountId: ALICE, ttlMs: -60_000 })}`, "TOKEN_EXPIRED");
    });
    it("signed by somebody else", async () => {
      await refuse(`Bearer ${await signAccountToken(await temporaryKeys(), { accountId: ALICE })}`, "TOKEN_INVALID");
    });
    it("that no key signed", async () => {
      const claims = { iss: "souk", aud: "souk", sub: ALICE, iat: 1, exp: 9_999_999_999 };
      await refuse(`Bearer ${part({ alg: "none", typ: "at+jwt" })}.${part(claims)}.`, "TOKEN_INVALID");
    });
    it("whose contents were changed", async () => {
      const [head, , signature] = (await signAccountToken(subject.keys, { accountId: ALICE })).split(".");
      const claims = { iss: "souk", aud: "souk", sub: ALICE, roles: ["operator"], iat: 1, exp: 9_999_999_999 };
      await refuse(`Bearer ${head}.${part(claims)}.${signature}`, "TOKEN_INVALID");
    });
    it("that are not tokens", async () => {
      await refuse("Basic YWxpY2U6cHc=", "TOKEN_INVALID");
      await refuse("Bearer x", "TOKEN_INVALID");
      await refuse(`Bearer ${"x".repeat(5000)}`, "TOKEN_INVALID");
    });
  });

  it("ends a call at the deadline by itself, tells the handler, and answers details", async () => {
    let told = false;
    handler = async (signal) => {
      signal.addEventListener("abort", () => {
        told = true;
      });
      await sleep(300);
    };
    const refusal = await post(url, JSON.stringify({ listingId: LISTING }), { "connect-timeout-ms": "50" });
    assertRefusal(refusal, [504, "deadline_exceeded", "DEADLINE_EXCEEDED"]);
    assert.ok(told);
  });

  it("answers reads over GET with the cache header of the policy, and nothing to keep for errors", async () => {
    const read = (message: string, path = GET_LISTING, headers = {}) =>
      fetch(`${url}${path}?encoding=json&message=${encodeURIComponent(message)}`, { headers });
    const mine = await read(JSON.stringify({ listingId: LISTING }));
    assert.equal(mine.headers.get("cache-control"), "private, max-age=5");
    const categories = "/marketplace.catalog.v1.CatalogService/ListCategories";
    assert.equal((await read("{}", categories)).headers.get("cache-control"), "public, max-age=3600");
    const authorization = `Bearer ${await signAccountToken(subject.keys, { accountId: ALICE })}`;
    assert.equal((await read("{}", categories, { authorization })).headers.get("cache-control"), "private, max-age=3600");
    assert.doesNotMatch((await read('{"listingId":"x"}')).headers.get("cache-control") ?? "", /max-age/);
  });

  it("lets pages of the configured origins call, and no others", async () => {
    const preflight = (origin: string) =>
      fetch(url + GET_LISTING, { method: "OPTIONS", headers: { origin, "access-control-request-method": "POST" } });
    const shop = await preflight("https://shop.example");
    assert.equal(shop.status, 204);
    assert.equal(shop.headers.get("access-control-allow-origin"), "https://shop.example");
    assert.match(shop.headers.get("access-control-allow-headers") ?? "", /authorization/i);
    assert.equal((await preflight("https://thief.example")).headers.get("access-control-allow-origin"), null);
    const called = await post(url, JSON.stringify({ listingId: LISTING }), { origin: "https://shop.example" });
    assert.equal(called.headers.get("access-control-allow-origin"), "https://shop.example");
  });

  it("says where to look, that it lives, and that it is ready", async () => {
    assert.match(await (await fetch(`${url}/`)).text(), /RPCs are at/);
    assert.equal(await (await fetch(`${url}/healthz`)).text(), "ok\n");
    assert.equal((await fetch(`${url}/readyz`)).status, 200);
    assert.equal((await fetch(`${url}/favicon.ico`)).status, 404);
  });

  it("serves doors that are not RPCs, within bounds", async () => {
    const knock = (body: Body) => fetch(`${url}/test/door/7`, { method: "POST", body });
    const answer = await knock("hello");
    assert.deepEqual([answer.status, await answer.text()], [201, "got hello at /test/door/7"]);
    assert.equal((await knock("x".repeat(70_000))).status, 413);
    assert.equal((await fetch(`${url}/test/door/7`)).status, 404);
  });

  it("gives up on a connection that does not say what it wants", async () => {
    const ended = (first: string) =>
      new Promise<string>((resolve) => {
        const socket = connect(subject.server.port, "127.0.0.1", () => first !== "" && socket.write(first));
        let text = "";
        socket.on("data", (chunk) => {
          text += chunk;
        });
        socket.on("close", () => resolve(text));
      });
    const [silent, preface, slow, nonsense] = await Promise.all([
      ended(""),
      ended("PR"),
      ended("POST / HTTP/1.1\r\nhost: x\r\n"),
      ended("\x16\x03\x01 hello\r\n\r\n"),
    ]);
    assert.deepEqual([silent, preface], ["", ""]);
    assert.match(slow, /^HTTP\/1.1 408/);
    assert.match(nonsense, /^HTTP\/1.1 400.*MALFORMED_REQUEST/s);
  });

  describe("over gRPC", () => {
    let session: ClientHttp2Session;
    beforeEach(() => {
      session = connectHttp2(url);
    });
    afterEach(() => session.destroy());
    const headers = { "content-type": "application/grpc", te: "trailers" };
    const message = toBinary(GetListingRequestSchema, create(GetListingRequestSchema, { listingId: LISTING }));

    it("answers a unary error as headers that end the stream, where proxies look for it", async () => {
      const invalid = toBinary(GetListingRequestSchema, create(GetListingRequestSchema, { listingId: "x" }));
      const { headers: answer, trailers, body } = await rawHttp2(session, headers, envelope(invalid));
      assert.deepEqual([answer["grpc-status"], trailers, body.length], ["3", undefined, 0]);
      assert.equal(grpcReason(answer), "INVALID_REQUEST");
    });
    it("names what cannot be read, in its own form", async () => {
      const ask = async (body: Uint8Array, extra = {}) => {
        const { headers: answer } = await rawHttp2(session, { ...headers, ...extra }, body);
        return [answer["grpc-status"], grpcReason(answer)];
      };
      assert.deepEqual(await ask(envelope(message).subarray(0, 20)), ["3", "MALFORMED_REQUEST"]);
      assert.deepEqual(await ask(envelope(Buffer.from([0x0a, 0xff, 0x01]))), ["3", "MALFORMED_REQUEST"]);
      assert.deepEqual(await ask(Buffer.alloc(0)), ["12", "PROTOCOL_UNSUPPORTED"]);
      assert.deepEqual(await ask(envelope(gzipSync(message), 1)), ["13", "COMPRESSION_UNNAMED"]);
      assert.deepEqual(await ask(envelope(Buffer.alloc(70_000))), ["8", "REQUEST_TOO_LARGE"]);
      const bomb = envelope(gzipSync(Buffer.alloc(50_000_000)), 1);
      assert.deepEqual(await ask(bomb, { "grpc-encoding": "gzip" }), ["8", "REQUEST_TOO_LARGE"]);
      assert.deepEqual(await ask(envelope(message), { ":path": "/marketplace.catalog.v1.CatalogService/Steal" }), [
        "12",
        "UNIMPLEMENTED",
      ]);
      assert.deepEqual(await ask(envelope(message), { "grpc-timeout": "0m" }), ["4", "DEADLINE_EXCEEDED"]);
    });
    it("serves other implementations' clients", async () => {
      const client = new GrpcClient(new URL(url).host, credentials.createInsecure());
      const call = (listingId: string) =>
        new Promise((resolve, reject) =>
          client.makeUnaryRequest(
            GET_LISTING,
            (request: Uint8Array) => Buffer.from(request),
            (bytes: Buffer) => fromBinary(GetListingResponseSchema, bytes),
            toBinary(GetListingRequestSchema, create(GetListingRequestSchema, { listingId })),
            (error: ServiceError | null, response) => (error ? reject(error) : resolve(response)),
          ),
        );
      try {
        assert.deepEqual(await call(LISTING), create(GetListingResponseSchema, { listing: { listingId: LISTING } }));
        await assert.rejects(call("x"), (error: ServiceError) => {
          const details = error.metadata.get("grpc-status-details-bin")[0] as Buffer;
          assert.equal(grpcReason({ "grpc-status-details-bin": details.toString("base64") }), "INVALID_REQUEST");
          return error.code === 3;
        });
      } finally {
        client.close();
      }
    });
  });

  it("sets a bound to calls at once", async () => {
    const release = Promise.withResolvers<void>();
    handler = () => release.promise;
    const narrow = await start({ limits: { maxCalls: 1 } });
    try {
      const body = JSON.stringify({ listingId: LISTING });
      const first = post(narrow.url, body);
      while (handled === 0) await sleep(5);
      const second = await post(narrow.url, body);
      assertRefusal(second, [429, "resource_exhausted", "OVERLOADED"]);
      release.resolve();
      assert.equal((await first).status, 200);
      assert.equal((await post(narrow.url, body)).status, 200);
    } finally {
      await narrow.stop();
    }
  });
});

async function start(options: Partial<ServerOptions> = {}): Promise<Server> {
  const verifiers = embeddedVerifiers(await temporaryKeys());
  return startServer({ modules, port: 0, host: "127.0.0.1", verifiers, log: silentLog(), ...options });
}

describe("starting and stopping a server", () => {
  beforeEach(() => {
    handler = async () => {};
    handled = 0;
  });

  it("names a port that is in use, and the flag that changes it", async () => {
    const server = await start();
    try {
      await assert.rejects(start({ port: server.port }), {
        message: `Port ${server.port} on 127.0.0.1 is in use. Choose another one with --port.`,
      });
    } finally {
      await server.stop();
    }
  });

  it("finishes the calls in flight, takes no new ones, and is done when they are", async () => {
    for (const httpVersion of ["1.1", "2"] as const) {
      const release = Promise.withResolvers<void>();
      handler = () => release.promise;
      handled = 0;
      const server = await start();
      const client = createClient(CatalogService, createConnectTransport({ baseUrl: server.url, httpVersion }));
      const call = client.getListing({ listingId: LISTING });
      while (handled === 0) await sleep(5);
      let stopped = false;
      const stopping = server.stop(5000).then(() => {
        stopped = true;
      });
      await sleep(30);
      assert.equal(stopped, false);
      await assert.rejects(fetch(`${server.url}/healthz`));
      release.resolve();
      assert.equal((await call).listing?.listingId, LISTING);
      await stopping;
    }
  });

  it("cuts calls that outlive the grace", async () => {
    handler = () => new Promise(() => {});
    const server = await start();
    const call = assert.rejects(
      fetch(server.url + GET_LISTING, {
        method: "POST",
        body: JSON.stringify({ listingId: LISTING }),
        headers: { "content-type": "application/json" },
      }),
    );
    while (handled === 0) await sleep(5);
    await server.stop(50);
    await call;
  });

  it("lets idle connections go without ending the process of either side, and a client comes back", async () => {
    const uncaught: unknown[] = [];
    const note = (error: unknown) => uncaught.push(error);
    process.on("uncaughtException", note);
    try {
      const first = await start();
      const client = createClient(CatalogService, createConnectTransport({ baseUrl: first.url, httpVersion: "2" }));
      await client.getListing({ listingId: LISTING });
      await first.stop(5000);
      await sleep(20);
      const second = await start({ port: first.port });
      await client.getListing({ listingId: LISTING });
      await second.stop(5000);
      await sleep(20);
      assert.deepEqual(uncaught, []);
    } finally {
      process.off("uncaughtException", note);
    }
  });

  it("ends open streams well, so that their clients resume", async () => {
    const subject = await onServer(modules, "gRPC");
    const stream = subject.client(OrderService, { account: ALICE }).watchOrder({ orderId: LISTING });
    let messages = 0;
    let stopping: Promise<void> | undefined;
    for await (const _ of stream) {
      messages++;
      stopping ??= subject.server.stop(5000);
    }
    await stopping;
    assert.equal(messages, 1);
  });
});
