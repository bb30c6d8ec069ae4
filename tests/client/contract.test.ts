import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { methodOf } from "#runtime/client/method.ts";
import { policyOf } from "#runtime/policy.ts";
import { contractServices } from "../support/contract.ts";
import { ROOT } from "../support/process.ts";

interface MethodConfig {
  readonly name: readonly { readonly service: string; readonly method: string }[];
  readonly timeout?: string;
  readonly retryPolicy?: { readonly maxAttempts: number };
}

describe("callers in other processes and callers outside the mesh", () => {
  it("try every method equally often, for an equal time", async () => {
    const own: string[] = [];
    const outside: string[] = [];
    for (const service of await contractServices()) {
      const file = join(ROOT, "mesh/generated/service-config", `${service.typeName}.json`);
      const { methodConfig }: { methodConfig: MethodConfig[] } = JSON.parse(readFileSync(file, "utf8"));
      for (const { name, timeout, retryPolicy } of methodConfig) {
        const desc = service.methods.find((method) => method.name === name[0]?.method);
        assert.ok(desc, `${name[0]?.service}/${name[0]?.method}`);
        const method = methodOf(desc, policyOf(desc));
        own.push(`${method.path} ${method.maxAttempts} ${method.timeoutMs / 1000}s`);
        outside.push(`${method.path} ${retryPolicy?.maxAttempts ?? 1} ${timeout ?? "Infinitys"}`);
      }
    }
    assert.ok(own.length > 50);
    assert.deepEqual(own, outside);
  });
});
