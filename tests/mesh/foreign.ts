import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { create, fromBinary } from "@bufbuild/protobuf";
import { CodeGeneratorRequestSchema, FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { meshPlugin } from "../../mesh/plugin/plugin.ts";
import { root, runNode } from "../../tools/checks/run.ts";

/** What a proto of somebody else imports to declare policies. */
const IMPORTED = ["proto/marketplace/policy/v1/policy.proto", "third_party/proto/buf/validate/validate.proto"];

/** The ten lines that mesh/plugin/README.md shows. */
export const TEN_LINES = `syntax = "proto3";
package shop.cart.v1;
import "google/protobuf/empty.proto";
import "marketplace/policy/v1/policy.proto";
service CartService {
  rpc GetCart(google.protobuf.Empty) returns (google.protobuf.Empty) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (marketplace.policy.v1.method) = {callers: {account: true, services: ["checkout"]}, timeout: {seconds: 2}, max_attempts: 3, budget: {p99_latency: {nanos: 50000000}, availability_ppm: 999000}};
  }
}
`;

/** A proto that is none of ours, with comments and messages. */
export const CART = `syntax = "proto3";
package shop.cart.v1;
import "marketplace/policy/v1/policy.proto";

// Carts of the shop.
service CartService {
  // Answers the caller's cart.
  rpc GetCart(GetCartRequest) returns (GetCartResponse) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (marketplace.policy.v1.method) = {
      callers: {account: true, services: ["checkout"]}
      timeout: {seconds: 2}
      max_attempts: 3
      budget: {p99_latency: {nanos: 50000000}, availability_ppm: 999000}
    };
  }
}
message GetCartRequest {}
message GetCartResponse {}
`;

/** A folder with somebody's proto in it and what it imports, as `buf` takes it. */
export function folderWith(proto: string): { folder: string; remove(): void } {
  const folder = mkdtempSync(join(tmpdir(), "souk-mesh-"));
  for (const path of IMPORTED) {
    const copy = join(folder, path.replace(/^(third_party\/)?proto\//, ""));
    mkdirSync(dirname(copy), { recursive: true });
    copyFileSync(join(root, path), copy);
  }
  mkdirSync(join(folder, "shop/cart/v1"), { recursive: true });
  writeFileSync(join(folder, "shop/cart/v1/cart.proto"), proto);
  return { folder, remove: () => rmSync(folder, { recursive: true, force: true }) };
}

/** What the plugin makes of a proto for each parameter: its files by name, or why it refuses. */
async function answers(proto: string, parameters: readonly string[]): Promise<{ files: Map<string, string>; error: string }[]> {
  const { folder, remove } = folderWith(proto);
  try {
    const image = join(folder, "image.binpb");
    const { code, output } = await runNode("node_modules/@bufbuild/buf/bin/buf", ["build", folder, "-o", image]);
    if (code !== 0) throw new Error(output);
    const { file: protoFile } = fromBinary(FileDescriptorSetSchema, readFileSync(image));
    return parameters.map((parameter) => {
      const fileToGenerate = ["shop/cart/v1/cart.proto"];
      const answer = meshPlugin.run(create(CodeGeneratorRequestSchema, { protoFile, fileToGenerate, parameter }));
      return { files: new Map(answer.file.map(({ name, content }) => [name, content])), error: answer.error };
    });
  } finally {
    remove();
  }
}

/** Why the plugin refuses a proto; empty if it does not. */
export async function refusal(proto: string, parameter = "output=chart,workload=checkout"): Promise<string> {
  const [answer] = await answers(proto, [parameter]);
  return answer?.error ?? "";
}

/** Everything the plugin makes of a proto, as lines with the file's name before each. */
export async function everything(proto: string): Promise<string[]> {
  const outputs = ["chart", "service-config", "docs"];
  const all = await answers(
    proto,
    outputs.map((output) => `output=${output},workload=checkout`),
  );
  return all.flatMap(({ files, error }) => {
    if (error !== "") throw new Error(error);
    return [...files].flatMap(([name, content]) => content.split("\n").map((line) => `${name}: ${line.trim()}`));
  });
}

/** The lines that two outputs do not share, each side in its order. */
export function difference(before: readonly string[], after: readonly string[]): { gone: string[]; new: string[] } {
  const only = (these: readonly string[], those: readonly string[]) => {
    const left = new Map<string, number>();
    for (const line of those) left.set(line, (left.get(line) ?? 0) + 1);
    return these.filter((line) => {
      const count = left.get(line) ?? 0;
      left.set(line, count - 1);
      return count <= 0;
    });
  };
  return { gone: only(before, after), new: only(after, before) };
}
