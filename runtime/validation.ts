import { create, type DescMessage, type Message } from "@bufbuild/protobuf";
import { pathToString } from "@bufbuild/protobuf/reflect";
import { createValidator, type Validator } from "@bufbuild/protovalidate";
import { fail, INVALID_REQUEST, type Violation } from "#runtime/errors.ts";

/** The most violations that are named; more would only be noise. */
const MAX_VIOLATIONS = 32;

/** Checks messages against the rules at their fields (`buf.validate`). */
export interface Validation {
  /** The rules a message breaks; empty when it keeps them all. For messages inside a batch that fail one by one. */
  violations(schema: DescMessage, message: Message): readonly Violation[];
  /** Fails with INVALID_REQUEST and the fields at fault. */
  check(schema: DescMessage, message: Message): void;
}

/** Compiles the rules of the given messages at once: the first use costs about 80 ms, which no caller should pay. */
export function createValidation(warm: Iterable<DescMessage> = []): Validation {
  const validator: Validator = createValidator({ failFast: false });
  const violations = (schema: DescMessage, message: Message): readonly Violation[] => {
    const result = validator.validate(schema, message);
    switch (result.kind) {
      case "valid":
        return [];
      case "error":
        throw new Error(`The rules of ${schema.typeName} cannot be evaluated.`, { cause: result.error });
      case "invalid":
        return result.violations.slice(0, MAX_VIOLATIONS).map((v) => ({
          field: pathToString(v.field),
          description: v.message,
          rule: v.ruleId,
        }));
    }
  };
  for (const schema of warm) {
    violations(schema, create(schema));
  }
  return {
    violations,
    check(schema, message) {
      const found = violations(schema, message);
      if (found.length > 0) {
        fail(INVALID_REQUEST, {
          message: found
            .map((v) => `${v.field || "request"}: ${v.description}`)
            .slice(0, 3)
            .join("; "),
          violations: found,
        });
      }
    },
  };
}
