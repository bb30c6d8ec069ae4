import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { RE2JS } from "@bufbuild/re2";
import { isLinear, linearMatch } from "#runtime/validation.ts";

/** All patterns of the contract. */
const patterns = new Set(
  globSync("proto/**/*.proto").flatMap((file) =>
    [...readFileSync(file, "utf8").matchAll(/\bpattern\s*[:=]\s*("(?:[^"\\]|\\.)*")/g)].map(
      ([, text]) => JSON.parse(text as string) as string,
    ),
  ),
);

describe("Patterns of the contract", () => {
  it("match as RE2 says, whoever matches them", () => {
    const pieces = [
      "",
      "a",
      "z",
      "AB",
      "0",
      "20",
      "-",
      "_",
      " ",
      ".",
      "/",
      "/a/",
      "\n",
      "\u0000",
      "\u007f",
      "é",
      "🎈",
      "tok_a",
      "GET",
      "2026-01-31",
    ];
    let seed = 1;
    const random = () => {
      seed = (seed * 48_271) % 2_147_483_647;
      return seed / 2_147_483_647;
    };
    const texts = Array.from({ length: 500 }, () =>
      Array.from({ length: Math.floor(random() * 6) }, () => pieces[Math.floor(random() * pieces.length)]).join(""),
    );
    const match = linearMatch();
    assert.ok(patterns.size > 10);
    for (const pattern of patterns) {
      const re2 = RE2JS.compile(pattern);
      for (const text of [...pieces, ...texts])
        assert.equal(match(pattern, text), re2.test(text), `${pattern} on ${JSON.stringify(text)}`);
    }
  });

  it("that could keep an engine coming back are left to RE2", () => {
    const left = [...patterns].filter((pattern) => !isLinear(pattern));
    assert.ok(left.length < patterns.size / 2);
    for (const pattern of [
      "^/([A-Za-z0-9._-]+/)*$",
      "^[^a]*[^b][^a]*$",
      "^(a|aa)+$",
      "^a*a*$",
      "a*",
      "^a|b$",
      "^.*$",
      "^a{2,}b{2,}$",
      "^\\s{2}$",
    ]) {
      assert.ok(!isLinear(pattern), pattern);
    }
    for (const pattern of ["^[A-Z]{2}$", "^[a-z]{2,8}_[A-Za-z0-9_]{1,120}$", "^[0-9]{1,18}$", "^[^a]*b$"])
      assert.ok(isLinear(pattern), pattern);
  });
});
