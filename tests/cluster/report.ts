import { appendFileSync } from "node:fs";

/** Where figures are gathered; `npm run test:cluster` prints them when all tests have run. */
const FILE = process.env.SOUK_CLUSTER_REPORT;

/** Tells what was measured: lines for whoever reads the run. */
export function report(...lines: readonly string[]): void {
  const text = `${lines.join("\n")}\n`;
  if (FILE === undefined) process.stdout.write(text);
  else appendFileSync(FILE, text);
}

/** Rows as a table of Markdown, the first of them its head. */
export function table(rows: readonly (readonly (string | number)[])[]): string[] {
  const line = (cells: readonly (string | number)[]) => `| ${cells.join(" | ")} |`;
  const [head = [], ...rest] = rows;
  return [line(head), line(head.map(() => "---")), ...rest.map(line)];
}

/** A duration in seconds, to a tenth. */
export function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`;
}
