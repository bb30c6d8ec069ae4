import assert from "node:assert/strict";
import { CHECKLIST } from "./checklist.ts";
import { problemsOf, readinessPage, titlesIn } from "./page.ts";

describe("the page of production readiness", () => {
  it("has every section of the checklist with every line of it, and ours behind", () => {
    const counts = CHECKLIST.map(({ title, lines }) => [title, lines.length]);
    assert.deepEqual(counts.slice(0, -1), [
      ["General", 3],
      ["Security", 3],
      ["Sustainability", 6],
      ["Maintainability", 14],
      ["Observability", 14],
      ["Reliability", 14],
      ["Security", 4],
      ["Accessibility", 7],
      ["Data Storage", 6],
      ["GCP Cloud SQL (MySQL)", 11],
      ["GCP Cloud Spanner", 7],
    ]);
    const page = readinessPage();
    for (const { check } of CHECKLIST.flatMap(({ lines }) => lines)) assert.ok(page.includes(`\n| ${check}`), check);
  });

  it("is not made when a test that it names is not there, or a line says nothing", () => {
    const source = 'it("counts", () => {});\nit(`counts to $' + '{most}`, async () => {});\nit("says \\"one\\"",\n';
    assert.deepEqual(titlesIn(source), new Set(["counts", "counts to …", 'says "one"']));
    const read = (file: string) => (file === "a.test.ts" ? source : undefined);
    const line = { check: "Counting", asks: "It counts." };
    const problems = (more: object) => problemsOf([{ title: "All", lines: [{ ...line, ...more }] }], read);
    assert.deepEqual(problems({ tests: [["a.test.ts", "counts to …"]] }), []);
    assert.deepEqual(problems({ note: "Nobody counts." }), []);
    assert.match(problems({ tests: [["a.test.ts", "count"]] })[0] as string, /names the test "count", which is not in a\.test\.ts/);
    assert.match(problems({ tests: [["b.test.ts", "counts"]] })[0] as string, /names b\.test\.ts, which is not there/);
    assert.match(problems({})[0] as string, /neither a test nor a sentence/);
    assert.match(problems({ note: "no" })[0] as string, /no sentence/);
  });
});
