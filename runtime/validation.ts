import { create, type DescMessage, type Message } from "@bufbuild/protobuf";
import { pathToString } from "@bufbuild/protobuf/reflect";
import { createValidator, type Validator } from "@bufbuild/protovalidate";
import { RE2JS } from "@bufbuild/re2";
import { fail, INVALID_REQUEST, type Violation } from "#runtime/errors.ts";

/** The most violations that are named; more would only be noise. */
const MAX_VIOLATIONS = 32;

/**
 * Matches patterns in linear time: those with no more than one unbounded repetition and no groups by the engine of the language, which then has nothing to
 * come back to for long and is ten times as fast; the others by RE2, the validator's own.
 */
export function linearMatch(): (pattern: string, against: string) => boolean {
  const known = new Map<string, { test(text: string): boolean }>();
  return (pattern, against) => {
    let matcher = known.get(pattern);
    if (matcher === undefined) {
      matcher = isLinear(pattern) ? new RegExp(pattern, "u") : RE2JS.compile(pattern);
      if (known.size < MAX_PATTERNS) {
        known.set(pattern, matcher);
      }
    }
    return matcher.test(against);
  };
}

/** Patterns come from the contract; rules could make more. */
const MAX_PATTERNS = 1_000;

/** Whether a pattern is linear whoever matches it: from end to end, without groups, and with one unbounded repetition at most. */
export function isLinear(pattern: string): boolean {
  // The languages differ in what some escapes mean.
  if (/\\(?!x[0-9a-f]{2}|[./^$-])/i.test(pattern)) {
    return false;
  }
  // Without what stands in brackets, and what is escaped.
  const shape = pattern.replaceAll(/\\./g, "e").replaceAll(/\[[^\]]*\]/g, "c");
  const unbounded = shape.match(/[*+]|\{\d+,\}/g)?.length ?? 0;
  return /^\^(?:[a-z0-9_/ -]|[*+]|\{\d+(?:,\d*)?\})*\$$/i.test(shape) && unbounded <= 1;
}

/** Checks messages against the rules at their fields (`buf.validate`). */
export interface Validation {
  /** The rules a message breaks; empty when it keeps them all. For messages inside a batch that fail one by one. */
  violations(schema: DescMessage, message: Message): readonly Violation[];
  /** Fails with INVALID_REQUEST and the fields at fault. */
  check(schema: DescMessage, message: Message): void;
}

/** Compiles the rules of the given messages at once: the first use costs about 80 ms, which no caller should pay. */
export function createValidation(warm: Iterable<DescMessage> = []): Validation {
  const validator: Validator = createValidator({ failFast: false, regexMatch: linearMatch() });
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
