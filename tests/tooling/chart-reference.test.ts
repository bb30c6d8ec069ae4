import assert from "node:assert/strict";
import { tableOf, valuesOf, withTables } from "../../tools/chart-reference.ts";

const VALUES = `# The values.

# Which a | b.
image:
  # How old.
  tag: "1"
  # More
  # of it.
  labels: {a: b}
# None.
list: []
`;

describe("the reference of a chart's values", () => {
  it("has each value with its default and its comment", () => {
    assert.deepEqual(valuesOf(VALUES, "x."), [
      { name: "x.image.*", initial: "", meaning: "Which a | b." },
      { name: "x.image.tag", initial: '"1"', meaning: "How old." },
      { name: "x.image.labels", initial: '{"a":"b"}', meaning: "More of it." },
      { name: "x.list", initial: "[]", meaning: "None." },
    ]);
  });

  it("refuses a value without a comment by its name", () => {
    assert.throws(() => valuesOf(VALUES.replace("  # How old.\n", "")), /the value image\.tag has no comment/);
  });

  it("stands between its marks in the page, and nowhere else", () => {
    const table = tableOf(valuesOf(VALUES));
    assert.match(table, /^\| `image\.\*` \| {2}\| Which a \\\| b\. \|$/m);
    const page = withTables("# A\n\n<!-- values of x -->\nold\n<!-- end -->\nB\n", { x: table });
    assert.equal(page, `# A\n\n<!-- values of x -->\n\n${table}\n\n<!-- end -->\nB\n`);
    assert.throws(() => withTables("# A", { x: table }), /no place for the values of x/);
  });
});
