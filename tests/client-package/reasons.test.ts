import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { Code } from "@connectrpc/connect";
import { REASONS } from "#gen/reasons.ts";
import { failure, reasonOf } from "#runtime/errors.ts";
import { reasonOf as reasonForCallers } from "../../client/errors.ts";
import { ROOT } from "../support/process.ts";

/** Named by methods that are not implemented yet. */
const LATER = [
  "BALANCE_NOT_EMPTY",
  "FEE_SCHEDULE_CONFLICT",
  "ORDERS_UNDER_WAY",
  "PHOTO_NOT_FOUND",
  "QUESTION_ALREADY_ANSWERED",
  "QUESTION_NOT_FOUND",
  "SAVED_SEARCH_NOT_FOUND",
  "TOO_MANY_SAVED_SEARCHES",
];
/** What any method may answer, so that no comment repeats it. */
const OF_ANY_METHOD = [
  "CANCELLED",
  "COMPRESSION_UNNAMED",
  "DEADLINE_EXCEEDED",
  "DEPENDENCY_UNAVAILABLE",
  "INTERNAL",
  "INVALID_REQUEST",
  "MALFORMED_REQUEST",
  "PERMISSION_DENIED",
  "PROTOCOL_UNSUPPORTED",
  "REQUEST_TOO_LARGE",
  "TOKEN_EXPIRED",
  "TOKEN_INVALID",
  "TOKEN_MISSING",
  "UNAVAILABLE",
  "UNIMPLEMENTED",
  "UNKNOWN_FIELD",
];

const sorted = (names: Iterable<string>): string[] => [...new Set(names)].sort();

describe("the reasons that callers are told of", () => {
  it("are those that the code has, each with one code whoever answers it", async () => {
    const files = globSync(["runtime/errors.ts", "runtime/health.ts", "runtime/database/dead-letters.ts", "services/*/errors.ts"], {
      cwd: ROOT,
    });
    const modules = await Promise.all(files.map((file) => import(pathToFileURL(join(ROOT, file)).href)));
    const declared = modules.flatMap((module) => Object.values(module)).filter(isReason);
    for (const { name, code } of declared) assert.equal(REASONS[name as keyof typeof REASONS], code, name);
    assert.deepEqual(Object.keys(REASONS), sorted([...declared.map(({ name }) => name), "SERVICE_UNKNOWN"]));
  });

  it("are those that the comments of the contract name, and those that any method may answer", () => {
    const named = globSync("proto/marketplace/**/*.proto", { cwd: ROOT }).flatMap((file) =>
      reasonsIn(readFileSync(join(ROOT, file), "utf8")),
    );
    assert.deepEqual(sorted([...Object.keys(REASONS), ...LATER]), sorted([...named, ...OF_ANY_METHOD]));
    assert.deepEqual(
      LATER.filter((name) => name in REASONS),
      [],
    );
  });

  it("are read alike by services and by callers", () => {
    const error = failure({ name: "OUT_OF_STOCK", code: Code.FailedPrecondition, message: "Gone." });
    assert.equal(reasonForCallers(error), "OUT_OF_STOCK");
    assert.equal(reasonForCallers(error), reasonOf(error));
    assert.equal(reasonForCallers(new TypeError("no call failed")), undefined);
  });
});

function isReason(value: unknown): value is { name: string; code: Code } {
  return typeof value === "object" && value !== null && "name" in value && "code" in value && "message" in value;
}

/** The names behind "Reasons:" in the comments of methods. */
function reasonsIn(proto: string): string[] {
  const comments = proto.replaceAll(/\n\s*\/\/ ?/g, " ").split("\n");
  return comments.flatMap((comment) => {
    const list = comment.split("Reasons: ")[1]?.replaceAll(/\([^)]*\)/g, "") ?? "";
    return [...list.matchAll(/\b[A-Z]+(?:_[A-Z]+)+\b|\bOVERLOADED\b/g)].map(([name]) => name);
  });
}
