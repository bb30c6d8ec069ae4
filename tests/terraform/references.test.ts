import assert from "node:assert/strict";
import recorded from "./arguments.json" with { type: "json" };
import { type Block, type Body, type Module, readModule, referencesOf, textsOf } from "./module.ts";
import type { Schema } from "./record-arguments.ts";

const schemas = recorded as unknown as Readonly<Record<string, Schema>>;
/** What is there without being declared. */
const BUILT_IN = new Set(["each", "count", "path", "self", "terraform"]);

describe("the Terraform module", () => {
  let souk: Module;
  let example: Module;

  before(async () => {
    [souk, example] = await Promise.all([readModule("terraform"), readModule("terraform/example")]);
  });

  it("refers to nothing that is not there", async () => {
    assert.ok(souk.blocks.length > 60);
    for (const module of [souk, example]) assert.deepEqual(await danglingIn(module, souk), []);
  });

  it("has no variable and no local value that nothing uses", async () => {
    for (const module of [souk, example]) {
      const used = new Set((await Promise.all(module.blocks.map(({ body }) => referencesOf(body)))).flat().map(firstTwo));
      const declared = [
        ...[...module.variables.keys()].map((name) => `var.${name}`),
        ...[...module.locals.keys()].map((name) => `local.${name}`),
      ];
      const onlyChecked = [...module.variables]
        .filter(([name, { body }]) => !usedOutside(module, `var.${name}`, body))
        .map(([name]) => name);
      assert.deepEqual(
        declared.filter((name) => !used.has(name)),
        [],
      );
      assert.deepEqual(onlyChecked, []);
    }
  });

  it("says of every variable what it is, of which type, and of every output what it is", () => {
    for (const module of [souk, example]) {
      for (const { kind, name, body, file } of [...module.variables.values(), ...module.outputs.values()]) {
        assert.match(String(body.description ?? ""), /^[A-Z].*[.]$/, `${file}: ${name} has a description that is no sentence`);
        if (kind === "variable") assert.ok(body.type !== undefined, `${file}: ${name} has no type`);
      }
      for (const { name, body } of module.variables.values())
        for (const rule of (body.validation ?? []) as Body[]) assert.match(String(rule.error_message), /^[A-Z].*\.$/, name);
    }
  });

  it("marks the outputs that hold a secret, and no others", async () => {
    for (const { name, body } of souk.outputs.values())
      assert.equal(body.sensitive === true, await holdsSecret(souk, body.value), `output ${name}`);
  });

  it("is given by the example what it needs, and nothing that it does not know", () => {
    const given = example.blocks.find(({ kind }) => kind === "module")?.body ?? {};
    const needed = [...souk.variables.values()].filter(({ body }) => !("default" in body)).map(({ name }) => name);
    assert.deepEqual(
      needed.filter((name) => !(name in given)),
      [],
    );
    assert.deepEqual(
      Object.keys(given).filter((name) => name !== "source" && !souk.variables.has(name)),
      [],
    );
    assert.equal(given.source, "../");
  });

  it("pins every provider to one version, the example to the same", () => {
    const [own, theirs] = [souk, example].map(providersOf);
    const used = new Set(souk.blocks.filter(({ kind }) => kind === "resource").map(({ type }) => type.split("_")[0]));
    assert.deepEqual(Object.keys(own ?? {}).sort(), [...used].sort());
    for (const [name, { version }] of Object.entries(own ?? {})) assert.match(String(version), /^\d+\.\d+\.\d+$/, name);
    for (const [name, provider] of Object.entries(theirs ?? {})) assert.deepEqual(provider, own?.[name]);
  });
});

const firstTwo = (reference: string) => reference.split(".").slice(0, 2).join(".");

/** A block's body without a variable's type, which is written like a reference. */
const withoutType = ({ kind, body }: Block) => (kind === "variable" ? { ...body, type: undefined } : body);

function providersOf({ blocks }: Module): Record<string, Body> {
  const [providers = {}] = (blocks.find(({ kind }) => kind === "terraform")?.body.required_providers ?? []) as Record<
    string,
    Body
  >[];
  return providers;
}

/** Whether anything but its own validation names a variable. */
function usedOutside(module: Module, reference: string, own: Body): boolean {
  return module.blocks.some(({ body }) => body !== own && textsOf(body).some(({ text }) => text.includes(reference)));
}

/** Every reference to what is not declared, with where it stands. */
async function danglingIn(module: Module, souk: Module): Promise<string[]> {
  const declared = new Map(module.blocks.map((block) => [addressOf(block), block]));
  const dangling: string[] = [];
  for (const block of module.blocks) {
    const iterators = new Set(textsOf(block.body).flatMap(({ at }) => /\bdynamic\.(\w+)\./.exec(at)?.[1] ?? []));
    for (const reference of await referencesOf(withoutType(block))) {
      const [head = "", ...rest] = reference.split(".");
      if (BUILT_IN.has(head) || iterators.has(head)) continue;
      if (!isThere(head, rest, module, souk, declared)) dangling.push(`${block.file}: ${reference}`);
    }
  }
  return dangling;
}

function isThere(
  head: string,
  rest: readonly string[],
  module: Module,
  souk: Module,
  declared: ReadonlyMap<string, Block>,
): boolean {
  const [first = "", second, third] = rest;
  if (head === "var") return module.variables.has(first);
  if (head === "local") return module.locals.has(first);
  if (head === "module")
    return declared.has(`module.${first}`) && (second === undefined || second.startsWith("aws_") || souk.outputs.has(second));
  const [key, attribute] = head === "data" ? [`data.${first}.${second}`, third] : [`resource.${head}.${first}`, second];
  const block = declared.get(key);
  if (block === undefined) return false;
  const schema = schemas[`${block.kind}.${block.type}`];
  return (
    attribute === undefined ||
    (schema !== undefined &&
      (schema.arguments.includes(attribute) || schema.attributes.includes(attribute) || attribute in schema.blocks))
  );
}

const addressOf = ({ kind, type, name }: Block) => [kind, type, name].filter((each) => each !== "").join(".");

/** Whether a value is made of a secret, by whatever way; a hash that is said to be none is none. */
async function holdsSecret(module: Module, value: unknown): Promise<boolean> {
  if (textsOf(value).some(({ text }) => text.includes("nonsensitive(sha256("))) return false;
  for (const reference of await referencesOf(value)) {
    if (/^(random_password|tls_private_key)\.|^var\.certificate\b/.test(reference)) return true;
    const local = /^local\.(\w+)/.exec(reference)?.[1];
    if (local !== undefined && (await holdsSecret(module, module.locals.get(local)))) return true;
  }
  return false;
}
