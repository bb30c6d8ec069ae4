// Writes arguments.json: what the providers take and give, for what terraform/ uses. Run by hand, when a provider's version changes or a new resource is used:
//   node tests/terraform/record-arguments.ts FOLDER
// FOLDER has the unpacked packages that are generated from the providers' own schemas: aws/, helm/, … with what `npm pack @cdktf/provider-aws` fetches.

import { globSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { root } from "../../tools/checks/run.ts";
import { type Body, readModule } from "./module.ts";

/** What may stand in a block. A block within that the module does not use is null. */
export interface Arguments {
  readonly arguments: readonly string[];
  readonly required: readonly string[];
  readonly blocks: { readonly [name: string]: Arguments | null };
}

/** What a resource or data source takes, and what it gives beside that. */
export interface Schema extends Arguments {
  readonly attributes: readonly string[];
}

const snake = (name: string) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`).replace(/_attribute$/, "");

interface Field {
  readonly name: string;
  readonly isRequired: boolean;
  readonly isBlock: boolean;
  readonly type: string;
}

function interfacesOf(declarations: string): Map<string, Field[]> {
  const found = new Map<string, Field[]>();
  for (const [, name = "", content = ""] of declarations.matchAll(/export interface (\w+) (?:extends [\w.]+ )?\{([\s\S]*?)\n\}/g)) {
    const fields = [...content.matchAll(/\/\*\*([\s\S]*?)\*\/\s*readonly (\w+)(\??): ([^;]+);/g)].map(
      ([, comment = "", field = "", optional, type = ""]) => ({
        name: snake(field),
        isRequired: optional === "",
        isBlock: / block\n/.test(comment),
        type: /\w+/.exec(type)?.[0] ?? "",
      }),
    );
    found.set(name, fields);
  }
  return found;
}

function record(interfaces: Map<string, Field[]>, name: string, used: readonly Body[]): Arguments {
  const fields = (interfaces.get(name) ?? []).filter((field) => field.name !== "tags_all");
  const blocks = fields.filter(({ isBlock }) => isBlock);
  return {
    arguments: fields.filter(({ isBlock }) => !isBlock).map((field) => field.name),
    required: fields.filter(({ isRequired }) => isRequired).map((field) => field.name),
    blocks: Object.fromEntries(
      blocks.map((field) => {
        const inner = used.flatMap((body) => within(body, field.name));
        return [field.name, inner.length > 0 || field.isRequired ? record(interfaces, field.type, inner) : null];
      }),
    ),
  };
}

function within(body: Body, name: string): Body[] {
  const dynamic = ((body.dynamic ?? {}) as Record<string, Body[]>)[name] ?? [];
  return [...((body[name] ?? []) as Body[]), ...dynamic.flatMap(({ content }) => content as Body[])];
}

const [folder] = process.argv.slice(2);
if (import.meta.main && folder !== undefined) {
  const { blocks } = await readModule("terraform");
  const schemas: Record<string, Schema> = {};
  const kept = blocks.filter(({ kind }) => kind === "resource" || kind === "data");
  for (const [key, same] of [...Map.groupBy(kept, ({ kind, type }) => `${kind}.${type}`)].sort()) {
    const [provider = "", ...rest] = (same[0]?.type ?? "").split("_");
    const name = `${key.startsWith("data.") ? `data-${provider}-` : ""}${rest.join("-")}`;
    const files = globSync(path.join(folder, provider, "lib", name, "**/*.d.ts")).sort();
    const declarations = files.map((file) => readFileSync(file, "utf8")).join("\n");
    const interfaces = interfacesOf(declarations);
    const config = /export interface (\w+) extends cdktf\.TerraformMetaArguments/.exec(declarations)?.[1] ?? "";
    const resource = declarations.slice(
      declarations.search(/export declare class \w+ extends cdktf\.Terraform(Resource|DataSource) /),
    );
    const attributes = [...resource.matchAll(/^ {4}get (\w+)\(\)/gm)].map(([, attribute = ""]) => snake(attribute));
    const taken = record(
      interfaces,
      config,
      same.map(({ body }) => body),
    );
    const more = [...new Set(attributes)].filter(
      (each) => !/_input$|^(fqn|friendly_unique_id)$/.test(each) && !taken.arguments.includes(each),
    );
    schemas[key] = { ...taken, attributes: more.filter((each) => !(each in taken.blocks)) };
  }
  writeFileSync(path.join(root, "tests/terraform/arguments.json"), `${JSON.stringify(schemas, undefined, 1)}\n`);
}
