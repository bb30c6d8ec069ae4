import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { DescFile, DescMethod, DescService } from "@bufbuild/protobuf";

const gen = new URL("../../gen/marketplace/", import.meta.url);

/** Every file of the marketplace's contract, found on disk so that a new one cannot be forgotten. */
export async function contractFiles(): Promise<DescFile[]> {
  const paths = readdirSync(fileURLToPath(gen), { recursive: true, encoding: "utf8" }).filter((path) => path.endsWith("_pb.ts"));
  const modules = await Promise.all(paths.sort().map((path) => import(new URL(path, gen).href)));
  return modules.map((module) => Object.values(module).find(isFile)).filter((file) => file !== undefined);
}

/** Every service of the marketplace's contract. */
export async function contractServices(): Promise<DescService[]> {
  return (await contractFiles()).flatMap((file) => file.services);
}

/** Every method of the marketplace's contract. */
export async function contractMethods(): Promise<DescMethod[]> {
  return (await contractServices()).flatMap((service) => service.methods);
}

/** A method's name as it stands in a path and in logs: "marketplace.order.v1.OrderService/PlaceOrder". */
export function methodPath(method: DescMethod): string {
  return `${method.parent.typeName}/${method.name}`;
}

function isFile(value: unknown): value is DescFile {
  return typeof value === "object" && value !== null && "kind" in value && value.kind === "file";
}
