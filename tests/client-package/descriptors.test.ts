import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { create, createFileRegistry, fromBinary, type MessageShape, toBinary, toJson } from "@bufbuild/protobuf";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { credentials, Client as GrpcClient } from "@grpc/grpc-js";
import { silentLog } from "#runtime/log.ts";
import { type Server, startServer } from "#runtime/server.ts";
import { embeddedVerifiers } from "#runtime/tokens.ts";
import { runNode } from "../../tools/checks/run.ts";
import { packClient } from "../../tools/pack-client.ts";
import { contractMethods, methodPath } from "../support/contract.ts";
import { temporaryFolder } from "../support/database.ts";
import { type TestMarketplace, testMarketplace } from "../support/marketplace.ts";

const LIST_CATEGORIES = "marketplace.catalog.v1.CatalogService";

describe("The descriptor set, for callers in any language,", function () {
  this.timeout(120_000);
  const folder = temporaryFolder();
  let marketplace: TestMarketplace;
  let server: Server;
  let file: string;

  before(async () => {
    ({ descriptors: file } = await packClient(folder.path));
    marketplace = await testMarketplace();
    const { modules } = marketplace;
    const verifiers = embeddedVerifiers(marketplace.keys);
    server = await startServer({ modules, port: 0, host: "127.0.0.1", verifiers, log: silentLog() });
  });
  after(async () => {
    await server.stop(1000);
    await marketplace.stop();
    folder.remove();
  });

  it("has every method, all that it refers to, its policy and its comment", async () => {
    const set = fromBinary(FileDescriptorSetSchema, readFileSync(file));
    const registry = createFileRegistry(set);
    for (const method of await contractMethods()) {
      const found = registry.getService(method.parent.typeName)?.methods.find(({ name }) => name === method.name);
      assert.ok(found?.proto.options?.$unknown?.length, `${methodPath(method)} has its policy`);
    }
    const order = set.file.find(({ name }) => name === "marketplace/order/v1/order.proto");
    const comments = order?.sourceCodeInfo?.location.map(({ leadingComments }) => leadingComments ?? "") ?? [];
    assert.ok(comments.some((comment) => comment.includes("Reasons: LISTING_NOT_FOUND")));
  });

  it("lets a program that has no generated code call over gRPC", async () => {
    const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, readFileSync(file)));
    const method = registry.getService(LIST_CATEGORIES)?.method.listCategories;
    assert.ok(method);
    const client = new GrpcClient(new URL(server.url).host, credentials.createInsecure());
    const { promise, resolve, reject } = Promise.withResolvers<MessageShape<typeof method.output>>();
    client.makeUnaryRequest(
      `/${methodPath(method)}`,
      () => Buffer.from(toBinary(method.input, create(method.input))),
      (bytes) => fromBinary(method.output, bytes),
      undefined,
      (error, value) => (value === undefined ? reject(error) : resolve(value)),
    );
    const answer = toJson(method.output, await promise) as { categories: unknown[] };
    client.close();
    assert.ok(answer.categories.length > 10);
  });

  for (const protocol of ["connect", "grpc", "grpcweb"]) {
    it(`lets a client written in Go call over ${protocol}`, async () => {
      const options = ["--schema", file, "--protocol", protocol, "--http2-prior-knowledge", "-d", "{}"];
      const url = `${server.url}/${LIST_CATEGORIES}/ListCategories`;
      const { code, output } = await runNode(join("node_modules", "@bufbuild", "buf", "bin", "buf"), ["curl", ...options, url]);
      assert.equal(code, 0, output);
      assert.ok(JSON.parse(output).categories.length > 10);
    });
  }
});
