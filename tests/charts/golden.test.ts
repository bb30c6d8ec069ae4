import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { heading, valueSets } from "../../tools/charts.ts";
import { root } from "../../tools/checks/run.ts";

describe("a golden rendering", () => {
  for (const set of valueSets()) {
    it(`of ${set.name} is made of the chart and the values as they are now`, () => {
      const [first] = readFileSync(join(root, set.golden), "utf8").split("\n", 1);
      assert.equal(first, heading(set));
    });
  }
});
