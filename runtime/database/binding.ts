import type { NativeQueryBuilder } from "@mikro-orm/sql";

/** A query of MikroORM's with values that are bound as they are; undefined where MikroORM must write them out (identifiers, fragments, lists, JSON). */
export function bind(query: unknown, given: unknown): { sql: string; params: unknown[] } | undefined {
  let sql: unknown = query;
  let params: unknown = given;
  if (typeof query === "object" && query !== null && "toRaw" in query) {
    ({ sql, params } = (query as NativeQueryBuilder).toRaw() as { sql: string; params: unknown[] });
  }
  if (typeof sql !== "string" || !Array.isArray(params) || params.length === 0 || !params.every(isPlain)) {
    return undefined;
  }
  // Quotes may hold question marks, "??" is an identifier and "\\?" an operator: none of them appears in what entities produce.
  if (/'|\?\?|\\\?/.test(sql) || sql.split("?").length - 1 !== params.length) {
    return undefined;
  }
  return { sql, params };
}

function isPlain(value: unknown): boolean {
  switch (typeof value) {
    case "string":
    case "number":
    case "bigint":
    case "boolean":
    case "undefined":
      return true;
    default:
      return value === null || value instanceof Date || value instanceof Uint8Array;
  }
}
