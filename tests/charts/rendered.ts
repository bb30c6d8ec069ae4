import { readFileSync } from "node:fs";
import { join } from "node:path";
import { parseAllDocuments } from "yaml";
import { root } from "../../tools/checks/run.ts";

/** What the tests look at of a rendered resource. */
export interface Resource {
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
  // biome-ignore lint/suspicious/noExplicitAny: every kind has another shape; the cluster's schemas check them.
  readonly spec: any;
}

const parsed = new Map<string, Resource[]>();

/** The resources of a golden rendering, by the name of its value set. */
export function golden(name: string): Resource[] {
  const resources = parsed.get(name) ?? parse(name);
  parsed.set(name, resources);
  return resources;
}

function parse(name: string): Resource[] {
  const text = readFileSync(join(root, `tests/charts/golden/${name}.yaml`), "utf8");
  const documents = parseAllDocuments(text);
  if (!Array.isArray(documents)) throw new Error(`${name} is empty`);
  return documents.map((document) => document.toJS() as Resource | null).filter((resource) => resource !== null);
}

/** Those of one kind, by their names. */
export function byName(resources: readonly Resource[], kind: string): Map<string, Resource> {
  return new Map(resources.filter((each) => each.kind === kind).map((each) => [each.metadata.name, each]));
}

/** A request as an AuthorizationPolicy sees it. */
export interface Seen {
  readonly principal: string;
  readonly path: string;
  readonly method: string;
  /** Of a token that was verified, such as `https://id.example/019…`. */
  readonly requestPrincipal?: string;
  readonly roles?: readonly string[];
}

interface Rule {
  readonly from?: { source: { principals?: string[]; requestPrincipals?: string[] } }[];
  readonly to?: { operation: { paths?: string[]; methods?: string[] } }[];
  readonly when?: { key: string; values: string[] }[];
}

/** Whether one of an ALLOW policy's rules lets a request through, as Istio's documentation says: all of from, to and when must match. */
export function allows(policy: Resource | undefined, seen: Seen): boolean {
  const rules: Rule[] = policy?.spec.rules ?? [];
  return rules.some(
    ({ from, to, when = [] }) =>
      (from ?? []).some(
        ({ source }) => matches(source.principals, seen.principal) && matches(source.requestPrincipals, seen.requestPrincipal),
      ) &&
      (to ?? []).some(({ operation }) => matches(operation.paths, seen.path) && matches(operation.methods, seen.method)) &&
      when.every(({ key, values }) => key === "request.auth.claims[roles]" && values.some((role) => seen.roles?.includes(role))),
  );
}

function matches(patterns: readonly string[] | undefined, value: string | undefined): boolean {
  if (patterns === undefined) return true;
  return (
    value !== undefined && patterns.some((each) => each === value || (each.endsWith("*") && value.startsWith(each.slice(0, -1))))
  );
}
