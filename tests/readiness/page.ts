import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { root } from "../../tools/checks/run.ts";
import { CHECKLIST, type Line, type Section } from "./checklist.ts";

/** Where the page stands in the repository. */
export const READINESS_PAGE = "docs/production-readiness.md";
const SOURCE = "https://github.com/mercari/production-readiness-checklist";

/** The titles of the tests in a file, as they are written: what a template fills in is "…". */
export function titlesIn(source: string): Set<string> {
  const titles = source.matchAll(/\bit\(\s*(["'`])(.*?)(?<!\\)\1\s*,/g);
  return new Set([...titles].map(([, , title = ""]) => title.replaceAll('\\"', '"').replace(/\$\{[^}]*\}/g, "…")));
}

/** What is wrong with a checklist, a sentence each: a test that is not there, a line that says nothing. */
export function problemsOf(sections: readonly Section[], read: (file: string) => string | undefined): string[] {
  const problems: string[] = [];
  for (const { lines } of sections) {
    for (const { check, tests = [], note } of lines) {
      if (tests.length === 0 && note === undefined) problems.push(`"${check}" has neither a test nor a sentence why not.`);
      if (note !== undefined && !/^[A-Z`].*[.]$/s.test(note)) problems.push(`The note of "${check}" is no sentence.`);
      for (const [file, title] of tests) {
        const source = read(file);
        if (source === undefined) problems.push(`"${check}" names ${file}, which is not there.`);
        else if (!titlesIn(source).has(title)) problems.push(`"${check}" names the test "${title}", which is not in ${file}.`);
      }
    }
  }
  return problems;
}

/** docs/production-readiness.md. Throws what is wrong with the checklist. */
export function readinessPage(): string {
  const read = (file: string) => (existsSync(join(root, file)) ? readFileSync(join(root, file), "utf8") : undefined);
  const problems = problemsOf(CHECKLIST, read);
  if (problems.length > 0) throw new Error(`tests/readiness/checklist.ts: ${problems.join("\n")}`);
  const lines = CHECKLIST.flatMap((section) => section.lines);
  const proven = lines.filter(({ tests = [] }) => tests.length > 0).length;
  return [
    "<!-- Made by npm run generate from tests/readiness/checklist.ts. -->",
    "",
    "# Production readiness",
    "",
    `Every line of [Mercari's public checklist](${SOURCE}) (its pages design-checklist and pre-production-checklist), in our words, under its own sections and names, with the tests that prove it or a sentence why there`,
    `are none: ${lines.length} lines, ${proven} of them proven, ${lines.length - proven} explained. A, B and C is from which level on it is asked for: C of everything, A of what is critical only.`,
    "A test that is named here and is not there fails `npm run generate`, and `npm test` when this page is older than the list. Tests in `tests/cluster` run by `npm run test:cluster`.",
    ...CHECKLIST.flatMap(printed),
    "",
  ].join("\n");
}

function printed({ title, page, about, lines }: Section): string[] {
  return [
    "",
    `## ${page === "design-checklist" ? `Design: ${title}` : title}`,
    ...(about === undefined ? [] : ["", about]),
    "",
    "| check | asks | proof |",
    "|---|---|---|",
    ...lines.map(row),
  ];
}

function row({ check, level, asks, tests = [], note }: Line): string {
  const byFile = Map.groupBy(tests, ([file]) => file);
  const proofs = [...byFile].map(([file, named]) => `[${file}](../${file}): ${named.map(([, title]) => `“${title}”`).join("; ")}`);
  const proof = [...proofs, ...(note === undefined ? [] : [note])].join("<br>");
  const escaped = proof.replaceAll("|", "\\|").replaceAll("<br>", "\0").replaceAll("<", "&lt;").replaceAll("\0", "<br>");
  return `| ${check}${level === undefined ? "" : ` (${level})`} | ${asks} | ${escaped} |`;
}
