import { create, createFileRegistry, type DescFile, type FileRegistry } from "@bufbuild/protobuf";
import {
  type CodeGeneratorRequest,
  type CodeGeneratorResponse,
  CodeGeneratorResponse_Feature,
  CodeGeneratorResponseSchema,
  FileDescriptorSetSchema,
} from "@bufbuild/protobuf/wkt";
import type { Plugin } from "@bufbuild/protoplugin";
import { alertRules } from "./alert-rules.ts";
import { callGraph } from "./call-graph.ts";
import type { Contract } from "./contract.ts";
import { dashboard } from "./dashboard.ts";
import { readableJson } from "./json.ts";
import { policies } from "./policies.ts";
import { readContract } from "./read.ts";
import { reference } from "./reference.ts";
import { serviceConfigs } from "./service-config.ts";
import { valuesSchema } from "./values-schema.ts";

/** What the plugin makes, by what it is asked for: files by their names, each made of the contract alone. */
const OUTPUTS = {
  chart: (contract: Contract): Record<string, string> => ({
    "generated/policies.json": readableJson(policies(contract)),
    "generated/alert-rules.yaml": alertRules(contract),
    "generated/dashboard.json": readableJson(dashboard(contract)),
    "values.schema.json": readableJson(valuesSchema(contract)),
  }),
  "service-config": (contract: Contract): Record<string, string> =>
    Object.fromEntries(serviceConfigs(contract).map(([name, config]) => [`${name}.json`, readableJson(config)])),
  docs: (contract: Contract): Record<string, string> => ({
    "reference.md": reference(contract),
    "call-graph.md": callGraph(contract),
  }),
} as const;

interface Options {
  output: keyof typeof OUTPUTS;
  readonly workloads: string[];
}

/** protoc-gen-mesh: reads policies from protos, and writes what the chart, callers outside the mesh and people need of them. */
export const meshPlugin: Plugin = {
  name: "protoc-gen-mesh",
  version: "v1",
  run(request) {
    try {
      const { output, workloads } = readOptions(request.parameter);
      const { contract, problems } = readContract(filesOf(request), workloads);
      const refusals = problems.map(({ position, text }) => `${position}: ${text}`);
      if (refusals.length > 0) return answer({ error: `policies refused\n${refusals.join("\n")}` });
      const file = Object.entries(OUTPUTS[output](contract)).map(([name, content]) => ({ name, content }));
      return answer({ file });
    } catch (error) {
      return answer({ error: error instanceof Error ? error.message : String(error) });
    }
  },
};

function answer(what: { file: { name: string; content: string }[] } | { error: string }): CodeGeneratorResponse {
  const supportedFeatures = BigInt(CodeGeneratorResponse_Feature.PROTO3_OPTIONAL);
  return create(CodeGeneratorResponseSchema, { ...what, supportedFeatures });
}

function readOptions(parameter: string): Options {
  const options: Options = { output: "chart", workloads: [] };
  for (const option of parameter.split(",").filter((part) => part !== "")) {
    const [key, value = ""] = option.split("=", 2);
    if (key === "output" && Object.hasOwn(OUTPUTS, value)) options.output = value as Options["output"];
    else if (key === "workload" && /^[a-z]{2,16}$/.test(value)) options.workloads.push(value);
    else throw new Error(`The option "${option}" is none of output=${Object.keys(OUTPUTS).join("|")} and workload=NAME.`);
  }
  return options;
}

/** The files that were asked for, in the order of their names; what they import is known, too. */
function filesOf({ protoFile, fileToGenerate }: CodeGeneratorRequest): DescFile[] {
  const registry: FileRegistry = createFileRegistry(create(FileDescriptorSetSchema, { file: protoFile }));
  return [...fileToGenerate].sort().flatMap((name) => registry.getFile(name) ?? []);
}
