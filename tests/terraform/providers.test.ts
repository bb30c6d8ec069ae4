import assert from "node:assert/strict";
import recorded from "./arguments.json" with { type: "json" };
import { type Body, type Module, readModule } from "./module.ts";
import type { Arguments, Schema } from "./record-arguments.ts";

const schemas = recorded as unknown as Readonly<Record<string, Schema>>;
/** What every resource may have, whatever its type. */
const OF_ALL = new Set(["for_each", "count", "depends_on", "lifecycle", "provider"]);

/** One sentence for each argument or block that is unknown or missing. */
function problemsOf(body: Body, schema: Arguments, at: string, isOuter = true): string[] {
  const dynamic = Object.entries((body.dynamic ?? {}) as Record<string, Body[]>);
  const blocks = new Map<string, Body[]>(dynamic.map(([name, each]) => [name, each.flatMap(({ content }) => content as Body[])]));
  const problems: string[] = [];
  for (const [name, value] of Object.entries(body)) {
    if (name === "dynamic" || (isOuter && OF_ALL.has(name)) || schema.arguments.includes(name)) continue;
    if (!(name in schema.blocks)) problems.push(`${at} knows no ${name}`);
    else if (!Array.isArray(value)) problems.push(`${at}: ${name} is a block`);
    else blocks.set(name, value);
  }
  for (const name of schema.required) if (!(name in body) && !blocks.has(name)) problems.push(`${at} needs ${name}`);
  for (const [name, each] of blocks) {
    const inner = schema.blocks[name];
    if (!inner) problems.push(`${at}: ${name} is not recorded; see record-arguments.ts`);
    else for (const one of each) problems.push(...problemsOf(one, inner, `${at}.${name}`, false));
  }
  return problems;
}

describe("the Terraform module, beside the providers' own schemas", () => {
  let souk: Module;
  before(async () => {
    souk = await readModule("terraform");
  });

  it("gives every resource what it needs and nothing that it does not know", () => {
    const problems = souk.blocks
      .filter(({ kind }) => kind === "resource" || kind === "data")
      .flatMap(({ kind, type, name, body }) => {
        const schema = schemas[`${kind}.${type}`];
        return schema ? problemsOf(body, schema, `${type}.${name}`) : [`${type} is not recorded; see record-arguments.ts`];
      });
    assert.deepEqual(problems, []);
  });

  it("has nothing recorded that it does not use", () => {
    const used = new Set(souk.blocks.map(({ kind, type }) => `${kind}.${type}`));
    assert.deepEqual(
      Object.keys(schemas).filter((key) => !used.has(key)),
      [],
    );
  });
});
