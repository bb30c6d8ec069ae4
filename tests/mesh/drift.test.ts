import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { getOption } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel as Level } from "@bufbuild/protobuf/wkt";
import { method as methodOption } from "#gen/marketplace/policy/v1/policy_pb.ts";
import { CALL_SECONDS } from "#runtime/telemetry/conventions.ts";
import type { policies } from "../../mesh/plugin/policies.ts";
import { OUTLINES, SERVICES } from "../../services/marketplace.ts";
import { root } from "../../tools/checks/run.ts";
import { contractMethods, methodPath } from "../support/contract.ts";
import { type TestMarketplace, testMarketplace } from "../support/marketplace.ts";

type Policies = ReturnType<typeof policies>;
const generated: Policies = JSON.parse(readFileSync(join(root, "mesh/generated/policies.json"), "utf8"));
const methods = generated.workloads.flatMap((workload) =>
  workload.methods.map((method) => ({ workload: workload.name, ...method })),
);

describe("the mesh's policies", () => {
  it("have each workload that the marketplace runs, with the contracts it implements there", () => {
    const inMesh = generated.workloads.map(({ name, methods: own }) => [
      name,
      [...new Set(own.map((each) => each.name.split("/")[0]))].sort(),
    ]);
    const inCode = [...SERVICES].sort().map((name) => [name, OUTLINES[name].contracts.map(({ typeName }) => typeName).sort()]);
    assert.deepEqual(inMesh, inCode);
  });

  it("have every method of the contract, and only those", async () => {
    const names = new Set(methods.map(({ name }) => name));
    assert.deepEqual([...names].sort(), (await contractMethods()).map(methodPath).sort());
  });

  it("give every method a timeout or make it a stream, and a caller", () => {
    const wrong = methods.filter(({ timeoutMs, stream, access }) => {
      const callers = access.anyone || access.account || access.operator || access.services.length > 0;
      return !callers || stream !== (timeoutMs === 0);
    });
    assert.deepEqual(wrong, []);
  });

  it("retry no command that is not replayed by its request_id", async () => {
    const retried = (await contractMethods()).filter((method) => getOption(method, methodOption).maxAttempts > 1);
    const wrong = retried.filter(
      (method) => method.idempotency !== Level.NO_SIDE_EFFECTS && !method.input.fields.some(({ name }) => name === "request_id"),
    );
    assert.deepEqual(wrong.map(methodPath), []);
    assert.ok(retried.length > 50);
  });

  it("promise no 99th percentile that the buckets of the calls' durations cannot tell", async () => {
    const promised = (await contractMethods()).map((method) => getOption(method, methodOption).budget?.p99Latency);
    const seconds = promised.map((each) => Number(each?.seconds) + Number(each?.nanos) / 1e9);
    assert.deepEqual(
      seconds.filter((each) => !CALL_SECONDS.includes(each)),
      [],
    );
  });

  describe("of doors", () => {
    let marketplace: TestMarketplace;
    before(async () => {
      marketplace = await testMarketplace();
    });
    after(() => marketplace.stop());

    it("are declared for every door that a service has, and for no other", () => {
      const open = marketplace.modules.flatMap(({ name, doors = [] }) =>
        doors.map(({ method, path }) => `${name} ${method} ${path}`),
      );
      const declared = generated.doors.flatMap(({ workload, http, path }) => http.map((method) => `${workload} ${method} ${path}`));
      assert.deepEqual(declared.sort(), open.sort());
    });
  });
});
