import assert from "node:assert/strict";
import { create, createFileRegistry, fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { Health, HealthCheckResponse_ServingStatus as Status } from "#gen/grpc/health/v1/health_pb.ts";
import { ServerReflection, type ServerReflectionRequest } from "#gen/grpc/reflection/v1/reflection_pb.ts";
import { CatalogService } from "#gen/marketplace/catalog/v1/catalog_pb.ts";
import { SearchService } from "#gen/marketplace/search/v1/search_pb.ts";
import { reasonOf } from "#runtime/errors.ts";
import { createHealth, type HealthState } from "#runtime/health.ts";
import type { Server } from "#runtime/server.ts";
import { onServer, rpcModule, type Subject } from "../support/server.ts";

const modules = [rpcModule("catalog", (router) => router.service(CatalogService, {}))];
const withSearch = [...modules, rpcModule("search", (router) => router.service(SearchService, {}))];

describe("health", () => {
  let health: HealthState;
  let subject: Subject & { server: Server };
  beforeEach(async () => {
    health = createHealth();
    health.add("catalog");
    health.add("search");
    subject = await onServer(withSearch, "gRPC", { health });
  });
  afterEach(() => subject.stop());
  const ready = async () => {
    const response = await fetch(`${subject.url}/readyz`);
    return [response.status, await response.text()];
  };

  it("is ready when every part is, and names those that are not", async () => {
    assert.deepEqual(await ready(), [503, "waiting for catalog, search\n"]);
    assert.equal((await fetch(`${subject.url}/healthz`)).status, 200);
    health.set("catalog", true);
    assert.deepEqual(await ready(), [503, "waiting for search\n"]);
    health.set("search", true);
    assert.deepEqual(await ready(), [200, "ok\n"]);
  });

  it("answers grpc.health.v1 for the process, and for each contract what its own service is", async () => {
    const client = subject.client(Health);
    const statuses = async () => {
      const { statuses: all } = await client.list({});
      const asked = await Promise.all(Object.keys(all).map(async (service) => (await client.check({ service })).status));
      assert.deepEqual(
        Object.values(all).map(({ status }) => status),
        asked,
      );
      return [all[""], all[CatalogService.typeName], all[SearchService.typeName]].map((each) => each?.status);
    };
    assert.deepEqual(await statuses(), [Status.NOT_SERVING, Status.NOT_SERVING, Status.NOT_SERVING]);
    health.set("catalog", true);
    assert.deepEqual(await statuses(), [Status.NOT_SERVING, Status.SERVING, Status.NOT_SERVING]);
    health.set("search", true);
    assert.deepEqual(await statuses(), [Status.SERVING, Status.SERVING, Status.SERVING]);
    health.set("catalog", false);
    assert.deepEqual(await statuses(), [Status.NOT_SERVING, Status.NOT_SERVING, Status.SERVING]);
    await assert.rejects(client.check({ service: "nobody" }), (error) => reasonOf(error) === "SERVICE_UNKNOWN");
    health.set("catalog", true);
    health.stop();
    assert.deepEqual(await statuses(), [Status.NOT_SERVING, Status.NOT_SERVING, Status.NOT_SERVING]);
  });

  it("tells who watches a service of that one only", async () => {
    const told: Status[] = [];
    for await (const { status } of subject.client(Health).watch({ service: SearchService.typeName })) {
      told.push(status);
      if (told.length === 1) health.set("search", true);
      if (told.length > 1) break;
    }
    // The process is not ready: catalog is not.
    assert.deepEqual(told, [Status.NOT_SERVING, Status.SERVING]);
  });

  it("tells who watches of each change, and that the process stops", async () => {
    const told: Status[] = [];
    let stopping: Promise<void> | undefined;
    for await (const { status } of subject.client(Health).watch({})) {
      told.push(status);
      if (told.length === 1) {
        health.set("catalog", true);
        health.set("search", true);
      } else {
        stopping ??= subject.server.stop(3000);
      }
    }
    await stopping;
    assert.deepEqual(told, [Status.NOT_SERVING, Status.SERVING, Status.NOT_SERVING]);
  });
});

describe("reflection", () => {
  let subject: Subject;
  before(async () => {
    subject = await onServer(modules, "gRPC");
  });
  after(() => subject.stop());

  async function ask(...requests: ServerReflectionRequest["messageRequest"][]) {
    const answers = [];
    const client = subject.client(ServerReflection);
    async function* messages() {
      for (const messageRequest of requests) yield { messageRequest };
    }
    for await (const { messageResponse } of client.serverReflectionInfo(messages())) answers.push(messageResponse);
    return answers;
  }

  it("lists the services", async () => {
    const [answer] = await ask({ case: "listServices", value: "" });
    assert.ok(answer?.case === "listServicesResponse");
    const names = answer.value.service.map(({ name }) => name);
    assert.deepEqual(names.sort(), [Health.typeName, ServerReflection.typeName, CatalogService.typeName].sort());
  });

  it("answers files with all they import, by name and by symbol", async () => {
    const symbols = [
      CatalogService.typeName,
      `${CatalogService.typeName}.GetListing`,
      "marketplace.catalog.v1.GetListingRequest.listing_id",
    ];
    const answers = await ask(
      { case: "fileByFilename", value: "marketplace/catalog/v1/catalog.proto" },
      ...symbols.map((value) => ({ case: "fileContainingSymbol" as const, value })),
    );
    for (const answer of answers) {
      assert.ok(answer.case === "fileDescriptorResponse", JSON.stringify(answer.value));
      const file = answer.value.fileDescriptorProto.map((bytes) => fromBinary(FileDescriptorProtoSchema, bytes));
      // Dependencies come after; the registry wants them before.
      const registry = createFileRegistry(create(FileDescriptorSetSchema, { file: file.reverse() }));
      assert.ok(registry.getService(CatalogService.typeName));
    }
    assert.equal(answers.length, 4);
  });

  it("answers extensions, and says what it does not have", async () => {
    const containingType = "google.protobuf.MethodOptions";
    const [file, numbers, missing, nothing] = await ask(
      {
        case: "fileContainingExtension",
        value: { $typeName: "grpc.reflection.v1.ExtensionRequest", containingType, extensionNumber: 50_300 },
      },
      { case: "allExtensionNumbersOfType", value: containingType },
      { case: "fileContainingSymbol", value: "marketplace.Nothing" },
      { case: undefined },
    );
    assert.equal(file?.case, "fileDescriptorResponse");
    assert.ok(numbers?.case === "allExtensionNumbersResponse" && numbers.value.extensionNumber.includes(50_300));
    assert.ok(missing?.case === "errorResponse" && missing.value.errorCode === 5);
    assert.ok(nothing?.case === "errorResponse" && nothing.value.errorCode === 3);
  });

  it("is not there when it is off", async () => {
    const closed = await onServer(modules, "gRPC", { reflection: false });
    try {
      const answers = closed.client(ServerReflection).serverReflectionInfo((async function* () {})());
      await assert.rejects(
        async () => {
          for await (const _ of answers) assert.fail("It answered.");
        },
        (error) => reasonOf(error) === "UNIMPLEMENTED",
      );
    } finally {
      await closed.stop();
    }
  });
});
