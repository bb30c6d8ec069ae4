import { globSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { root } from "../../tools/checks/run.ts";

// Its own types would bring those of browsers to all of the repository.
const { getReferencesInExpression, parse } = createRequire(import.meta.url)("@cdktn/hcl2json") as {
  parse(file: string, text: string): Promise<Record<string, unknown>>;
  getReferencesInExpression(file: string, text: string): Promise<{ value: string }[]>;
};

// The first call starts the parser, which makes a global: a test that did would be told off for it.
await parse("empty.tf", "");

/** What stands between the braces of a block, as JSON: texts are templates (`${var.name}`), blocks within are lists. */
export type Body = { readonly [name: string]: unknown };

/** A resource, a data source, a variable, …, with the place where it is. */
export interface Block {
  /** `resource`, `data`, `variable`, `output`, `locals`, `module`, `provider` or `terraform`. */
  readonly kind: string;
  /** Of resources and data sources. */
  readonly type: string;
  readonly name: string;
  readonly body: Body;
  readonly file: string;
}

/** A folder of Terraform files, read. */
export interface Module {
  readonly folder: string;
  readonly blocks: readonly Block[];
  /** By their names. */
  readonly variables: ReadonlyMap<string, Block>;
  readonly outputs: ReadonlyMap<string, Block>;
  readonly locals: ReadonlyMap<string, unknown>;
  /** Those of one type. */
  resources(type: string): Block[];
}

/** Reads all files of a folder of the repository, such as `terraform`. Throws with the parser's own words where one is no HCL. */
export async function readModule(folder: string): Promise<Module> {
  const blocks: Block[] = [];
  for (const file of globSync(path.join(root, folder, "*.tf")).sort()) {
    const parsed = await parse(path.basename(file), readFileSync(file, "utf8"));
    for (const [kind, content] of Object.entries(parsed)) blocks.push(...blocksOf(kind, content, path.relative(root, file)));
  }
  const named = (kind: string) => new Map(blocks.filter((each) => each.kind === kind).map((each) => [each.name, each]));
  const locals = new Map(blocks.filter(({ kind }) => kind === "locals").flatMap(({ body }) => Object.entries(body)));
  return {
    folder,
    blocks,
    variables: named("variable"),
    outputs: named("output"),
    locals,
    resources: (type) => blocks.filter((each) => each.kind === "resource" && each.type === type),
  };
}

function blocksOf(kind: string, content: unknown, file: string): Block[] {
  const labels = { resource: 2, data: 2, variable: 1, output: 1, module: 1, provider: 1 }[kind] ?? 0;
  const walk = (at: unknown, names: string[]): Block[] => {
    if (names.length < labels) return Object.entries(at as Body).flatMap(([name, inner]) => walk(inner, [...names, name]));
    const [type = "", name = type] = names;
    return (at as Body[]).map((body) => ({ kind, type: labels === 2 ? type : "", name, body, file }));
  };
  return walk(content, []);
}

/** A text that is one reference, or another expression, as `readModule` gives it. */
export const ref = (expression: string) => `\${${expression}}`;

/** Every text below a value, with the names that lead to it. */
export function textsOf(value: unknown, at = ""): { text: string; at: string }[] {
  if (typeof value === "string") return [{ text: value, at }];
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([name, inner]) => textsOf(inner, at === "" ? name : `${at}.${name}`));
}

/** What the templates below a value refer to, without what is between brackets: `var.name`, `local.tags`, `aws_vpc.souk.id`, `each.key`. */
export async function referencesOf(value: unknown): Promise<string[]> {
  const found = new Set<string>();
  for (const { text, at } of textsOf(value)) {
    // What a lifecycle names are the resource's own arguments.
    if (!text.includes("${") || at.startsWith("lifecycle.")) continue;
    for (const reference of await getReferencesInExpression("reference.tf", text)) {
      const segments = reference.value.split(".").filter((each) => /^[a-z_]\w*$/i.test(each));
      found.add(segments.join("."));
    }
  }
  return [...found];
}
