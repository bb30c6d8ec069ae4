import assert from "node:assert/strict";
import { captureStatements, pagePart, pageWith } from "../../bench/purchase-statements.ts";

describe("docs/performance.md", () => {
  it("lists the statements that a purchase sends; npm run bench -- purchase-page makes the list anew", async function () {
    this.timeout(60_000);
    const { now, made } = pageWith(pagePart(await captureStatements()));
    assert.equal(now, made);
  });
});
