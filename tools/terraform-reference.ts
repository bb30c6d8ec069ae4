// The tables of inputs and outputs in terraform/README.md, made from the module's own descriptions. `npm run generate` writes them.

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { root } from "./checks/run.ts";

/** The page with the tables. */
export const TERRAFORM_REFERENCE = "terraform/README.md";

interface Entry {
  readonly name: string;
  readonly type: string;
  readonly initial: string | undefined;
  readonly meaning: string;
  readonly isSensitive: boolean;
}

/** The blocks of one kind, as `terraform fmt` writes them: an argument begins a line with two spaces, a block ends with a brace that does. */
function entriesOf(text: string, kind: string): Entry[] {
  return [...text.matchAll(new RegExp(`^${kind} "(\\w+)" \\{\\n(.*?)\\n\\}$`, "gms"))].map(([, name = "", body = ""]) => {
    const of = (argument: string) => new RegExp(`^ {2}${argument} += (.*(?:\\n(?! {2}\\w).*)*)`, "m").exec(body)?.[1]?.trim();
    return {
      name,
      type: inOneLine(of("type") ?? ""),
      initial: of("default"),
      meaning: JSON.parse(of("description") ?? '""') as string,
      isSensitive: of("sensitive") === "true",
    };
  });
}

const inOneLine = (type: string) =>
  type
    .replaceAll(/\{\n/g, "{ ")
    .replaceAll(/\n *\}/g, " }")
    .replaceAll(/\n/g, ", ")
    .replaceAll(/ +/g, " ");

const cell = (text: string) => text.replaceAll("|", "\\|").replaceAll("<", "&lt;");

/** The inputs, needed ones first, each with its type as it is written. */
export function inputsTable(variables: string): string {
  const entries = entriesOf(variables, "variable");
  const sorted = [
    ...entries.filter(({ initial }) => initial === undefined),
    ...entries.filter(({ initial }) => initial !== undefined),
  ];
  const rows = sorted.map(
    ({ name, type, initial, meaning }) =>
      `| \`${name}\` | \`${cell(type)}\` | ${initial === undefined ? "needed" : `\`${cell(initial)}\``} | ${cell(meaning)} |`,
  );
  return ["| input | type | default | what it is |", "|---|---|---|---|", ...rows].join("\n");
}

/** The outputs. */
export function outputsTable(outputs: string): string {
  const rows = entriesOf(outputs, "output").map(
    ({ name, meaning, isSensitive }) => `| \`${name}\` | ${cell(meaning)}${isSensitive ? " Sensitive." : ""} |`,
  );
  return ["| output | what it is |", "|---|---|", ...rows].join("\n");
}

/** Writes the page under the folder. */
export function writeTerraformReference(folder: string): void {
  const read = (file: string) => readFileSync(path.join(root, "terraform", file), "utf8");
  let page = read("README.md");
  for (const [name, table] of [
    ["inputs", inputsTable(read("variables.tf"))],
    ["outputs", outputsTable(read("outputs.tf"))],
  ] as const) {
    const marks = new RegExp(`(<!-- ${name} -->\n).*?(<!-- end -->)`, "s");
    if (!marks.test(page)) throw new Error(`${TERRAFORM_REFERENCE} has no place for the ${name}`);
    page = page.replace(marks, (_all, begin: string, end: string) => `${begin}\n${table}\n\n${end}`);
  }
  const file = path.join(folder, TERRAFORM_REFERENCE);
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, page);
}
