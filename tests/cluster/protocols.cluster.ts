import assert from "node:assert/strict";
import { lookup } from "node:dns";
import type { LookupFunction } from "node:net";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { createClient, type Transport } from "@connectrpc/connect";
import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { Client, credentials, Metadata, status } from "@grpc/grpc-js";
import {
  CatalogService,
  ListCategoriesRequestSchema,
  ListCategoriesResponseSchema,
} from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { GATEWAY_URL, until } from "./cluster.ts";
import { endGuarded, type Guarded, guarded, LONGEST_MS } from "./guarded.ts";
import { internalMethodsAreHidden, tokensAreChecked } from "./guards.ts";
import { askGateway, bearer } from "./through-gateway.ts";

const LIST = "/marketplace.catalog.v1.CatalogService/ListCategories";

describe("the gateway before real workloads", function () {
  this.timeout(300_000);
  let lab: Guarded;
  // No file behind this one needs it, and a node has room for so many proxies only.
  after(endGuarded);
  before(async () => {
    lab = await guarded();
    await until("the gateway knows the routes", async () => (await askGateway(lab, LIST)).status === 200);
  });

  it("takes the tokens of the issuer and no others", async () => {
    await until("the gateway knows the issuer", () => tokensAreChecked(lab).then(() => true));
  });

  it("hides every method of the inside, itself", async () => {
    assert.ok((await internalMethodsAreHidden(lab)) > 10);
  });

  it("answers Connect with POST and GET, gRPC-Web and gRPC alike", async () => {
    const { hostname, port } = new URL(GATEWAY_URL);
    const baseUrl = `http://${lab.host}:${port}`;
    const toGateway: LookupFunction = (_host, options, callback) => lookup(hostname, options, callback);
    const nodeOptions = { lookup: toGateway };
    const options = { baseUrl, httpVersion: "1.1", nodeOptions } as const;
    const categories = async (transport: Transport) =>
      (await createClient(CatalogService, transport).listCategories({})).categories;
    const expected = (await categories(createConnectTransport(options))).length;
    assert.ok(expected > 10);
    assert.equal((await categories(createConnectTransport({ ...options, useHttpGet: true }))).length, expected);
    assert.equal((await categories(createGrpcWebTransport(options))).length, expected);
    const client = grpcClient(lab.host);
    try {
      const answer = await new Promise<Uint8Array>((resolve, reject) => {
        const request = Buffer.from(toBinary(ListCategoriesRequestSchema, create(ListCategoriesRequestSchema)));
        client.makeUnaryRequest(LIST, identity, identity, request, (error, value) =>
          error ? reject(error) : resolve(value as Buffer),
        );
      });
      assert.equal(fromBinary(ListCategoriesResponseSchema, answer).categories.length, expected);
    } finally {
      client.close();
    }
  });

  it("lets what may be kept be kept: a GET has an ETag, and is not sent twice", async () => {
    const path = `${LIST}?connect=v1&encoding=json&message=%7B%7D`;
    const first = await askGateway(lab, path, { method: "GET" });
    assert.equal(first.status, 200);
    assert.match(String(first.headers["cache-control"]), /max-age/);
    const second = await askGateway(lab, path, { method: "GET", headers: { "if-none-match": String(first.headers.etag) } });
    assert.deepEqual([second.status, second.text], [304, ""]);
  });

  it("lets the page of a named origin ask first, and call", async () => {
    const origin = "https://shop.example";
    const asked = {
      origin,
      "access-control-request-method": "POST",
      "access-control-request-headers": "authorization,connect-protocol-version",
    };
    const preflight = await askGateway(lab, LIST, { method: "OPTIONS", headers: asked });
    assert.equal(preflight.headers["access-control-allow-origin"], origin);
    assert.match(String(preflight.headers["access-control-allow-headers"]), /authorization/);
    const called = await askGateway(lab, LIST, { headers: { origin } });
    assert.equal(called.headers["access-control-allow-origin"], origin);
    assert.equal(
      (await askGateway(lab, LIST, { headers: { origin: "https://evil.example" } })).headers["access-control-allow-origin"],
      undefined,
    );
  });

  it("keeps a watched order's stream open beyond every time-out, which end any other call", async () => {
    const streamMs = 2.5 * LONGEST_MS;
    const watch = await streamed(lab, "/marketplace.order.v1.OrderService/WatchOrder", streamMs);
    assert.equal(watch.code, status.OK, watch.details);
    assert.ok(watch.messages > 5 && watch.ms >= streamMs, JSON.stringify(watch));
    const get = await streamed(lab, "/marketplace.order.v1.OrderService/GetOrder", streamMs);
    assert.notEqual(get.code, status.OK);
    assert.ok(get.ms < streamMs, JSON.stringify(get));
  });
});

const identity = (bytes: Buffer) => bytes;

function grpcClient(host: string): Client {
  return new Client(new URL(GATEWAY_URL).host, credentials.createInsecure(), { "grpc.default_authority": host });
}

/** A call that the workload answers for so long, with a message now and then. */
async function streamed(lab: Guarded, path: string, streamMs: number) {
  const client = grpcClient(lab.host);
  const metadata = new Metadata();
  metadata.set("x-lab-stream-ms", String(streamMs));
  for (const [name, value] of Object.entries(await bearer(lab.keys))) metadata.set(name, value);
  const beginTime = Date.now();
  try {
    return await new Promise<{ code: number; details: string; messages: number; ms: number }>((resolve) => {
      let messages = 0;
      const stream = client.makeServerStreamRequest(path, identity, identity, Buffer.alloc(0), metadata);
      stream.on("data", () => messages++);
      stream.on("error", () => {});
      stream.on("status", ({ code, details }) => resolve({ code, details, messages, ms: Date.now() - beginTime }));
    });
  } finally {
    client.close();
  }
}
