// The tables of values in helm/souk/README.md, made from the comments in the charts' values.yaml. `npm run generate` writes them.

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { isMap, isScalar, type Node, type Pair, parseDocument } from "yaml";
import { root } from "./checks/run.ts";

/** The page with the tables. */
export const REFERENCE = "helm/souk/README.md";

/** One value of a chart. */
export interface Value {
  /** Such as `image.tag`. */
  readonly name: string;
  /** As one would write it. */
  readonly initial: string;
  readonly meaning: string;
}

/**
 * All values of a values.yaml, in its order, their names with `above` before. A comment stands before its value; of a map that lists some, each value in it has one of its own.
 *
 * @throws Error which value has no comment.
 */
export function valuesOf(yaml: string, above = ""): Value[] {
  const { contents } = parseDocument(yaml);
  if (!isMap(contents)) throw new Error("there are no values");
  return contents.items.flatMap((pair, index) => rowsOf(pair, above, index === 0 ? contents.commentBefore : undefined));
}

function rowsOf({ key, value }: Pair, above: string, first: string | null | undefined): Value[] {
  const own = isScalar(key) ? key.commentBefore : undefined;
  const name = `${above}${String(isScalar(key) ? key.value : key)}`;
  // What an empty line is between is about the file.
  const meaning = ((own ?? first ?? "").split(/\n\s*\n/).at(-1) ?? "")
    .split("\n")
    .map((line) => line.trim())
    .join(" ")
    .trim();
  if (isMap(value) && value.items.length > 0 && !value.flow) {
    const heading = { name: `${name}.*`, initial: "", meaning };
    const rows = value.items.flatMap((pair, index) => rowsOf(pair, `${name}.`, index === 0 ? value.commentBefore : undefined));
    return meaning === "" ? rows : [heading, ...rows];
  }
  if (meaning === "") throw new Error(`the value ${name} has no comment: say above it what it is`);
  return [{ name, initial: JSON.stringify((value as Node | null)?.toJSON() ?? null), meaning }];
}

/** A table in Markdown. */
export function tableOf(values: readonly Value[]): string {
  const cell = (text: string) => text.replaceAll("|", "\\|").replaceAll("<", "&lt;");
  const rows = values.map(
    ({ name, initial, meaning }) => `| \`${name}\` | ${initial === "" ? "" : `\`${cell(initial)}\``} | ${cell(meaning)} |`,
  );
  return ["| value | default | what it is |", "|---|---|---|", ...rows].join("\n");
}

/** The page with its tables made anew, each between its marks. */
export function withTables(page: string, tables: Readonly<Record<string, string>>): string {
  return Object.entries(tables).reduce((text, [name, table]) => {
    const marks = new RegExp(`(<!-- values of ${name} -->\n).*?(<!-- end -->)`, "s");
    if (!marks.test(text)) throw new Error(`${REFERENCE} has no place for the values of ${name}`);
    return text.replace(marks, (_all, begin: string, end: string) => `${begin}\n${table}\n\n${end}`);
  }, page);
}

/** Writes the page under the folder. */
export function writeChartReference(folder: string): void {
  const read = (file: string) => readFileSync(path.join(root, file), "utf8");
  const page = withTables(read(REFERENCE), {
    souk: tableOf(valuesOf(read("helm/souk/values.yaml"))),
    mesh: tableOf(valuesOf(read("mesh/values.yaml"), "mesh.")),
  });
  const file = path.join(folder, REFERENCE);
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, page);
}
