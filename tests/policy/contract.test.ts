import assert from "node:assert/strict";
import { type DescField, type DescMessage, type DescMethod, getOption, hasOption } from "@bufbuild/protobuf";
import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { field as fieldRules } from "#gen/buf/validate/validate_pb.ts";
import { policyProblems } from "#runtime/policy.ts";
import { contractFiles, contractMethods, methodPath } from "../support/contract.ts";

/** Lists that are short by nature: their bound stands at their field. */
const UNPAGED = new Set(["ListCategories", "ListSimilarListings", "ListTransfers", "ListOrderTransfers"]);

describe("the contract", () => {
  it("declares a valid policy on every method, with more than one attempt only where the idempotency level allows it", async () => {
    const problems = (await contractMethods()).flatMap((method) =>
      policyProblems(method).map((problem) => `${methodPath(method)}: ${problem}`),
    );
    assert.deepEqual(problems, []);
  });

  it("says of every method whether it has side effects", async () => {
    const silent = (await contractMethods()).filter(
      (method) => method.idempotency === MethodOptions_IdempotencyLevel.IDEMPOTENCY_UNKNOWN,
    );
    assert.deepEqual(silent.map(methodPath), []);
  });

  it("gives every command a request_id and no read one", async () => {
    const wrong = (await contractMethods()).filter((method) => hasField(method.input, "request_id") === isRead(method));
    assert.deepEqual(wrong.map(methodPath), []);
  });

  it("pages every list from the start", async () => {
    const lists = (await contractMethods()).filter((method) => /^(List|Scan)/.test(method.name) && !UNPAGED.has(method.name));
    const wrong = lists.filter(
      (method) =>
        !hasField(method.input, "page_size") ||
        !hasField(method.input, "page_token") ||
        !hasField(method.output, "next_page_token"),
    );
    assert.deepEqual(wrong.map(methodPath), []);
    assert.ok(lists.length > 10);
  });

  it("gives every field a shape", async () => {
    const messages = (await contractFiles()).flatMap((file) => file.messages);
    const shapeless = messages
      .flatMap((message) => message.fields)
      .filter((field) => needsShape(field) && !hasOption(field, fieldRules));
    assert.deepEqual(shapeless.map(String), []);
  });

  it("bounds every string, list and number that a caller sends", async () => {
    const inputs = reachable((await contractMethods()).map((method) => method.input));
    const boundless = inputs.flatMap((message) => message.fields).filter((field) => needsShape(field) && !isBounded(field));
    assert.deepEqual(boundless.map(String), []);
  });

  it("carries money only as Money or as an integer named …Minor", async () => {
    const messages = (await contractFiles()).flatMap((file) => file.messages);
    const suspects = messages
      .flatMap((message) => message.fields)
      .filter(
        (field) =>
          /price|amount|fee$|total$/.test(field.name) &&
          field.scalar !== undefined &&
          !/_minor$|_time$|basis_points|_count$/.test(field.name),
      );
    assert.deepEqual(suspects.map(String), []);
  });
});

function isRead(method: DescMethod): boolean {
  return method.idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS;
}

function hasField(message: DescMessage, name: string): boolean {
  return message.fields.some((field) => field.name === name);
}

/** A boolean and an optional message have no shape to declare. */
function needsShape(field: DescField): boolean {
  if (field.fieldKind === "message") return false;
  return !(field.fieldKind === "scalar" && field.scalar === 8);
}

function isBounded(field: DescField): boolean {
  const rules = getOption(field, fieldRules).type;
  switch (rules.case) {
    case "string": {
      const { maxLen, pattern, wellKnown } = rules.value;
      return maxLen > 0n || /\{\d*,?\d+\}/.test(pattern) || wellKnown.case === "uuid" || rules.value.in.length > 0;
    }
    case "repeated":
      return rules.value.maxItems > 0n;
    case "uint32":
    case "int64":
      return rules.value.lessThan.case !== undefined;
    case "enum":
      return rules.value.definedOnly;
    default:
      return false;
  }
}

function reachable(roots: DescMessage[]): DescMessage[] {
  const seen = new Set<DescMessage>();
  const visit = (message: DescMessage): void => {
    if (seen.has(message) || !message.typeName.startsWith("marketplace.")) return;
    seen.add(message);
    for (const field of message.fields) if (field.message) visit(field.message);
  };
  roots.forEach(visit);
  return [...seen];
}
