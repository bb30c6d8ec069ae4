import type {
  AbstractSqlConnection,
  AnyEntity,
  EntityData,
  LoggingOptions,
  NativeQueryBuilder,
  QueryResult,
  Transaction,
} from "@mikro-orm/sql";
import { CompiledQuery } from "kysely";

type Rows = QueryResult | EntityData<AnyEntity> | EntityData<AnyEntity>[];

/**
 * One of MikroORM's connections, but with values that go to the driver as they are instead of into the SQL text: statements are prepared once, bytes and
 * NUL characters arrive whole, and no value can be read as SQL.
 */
// biome-ignore lint/suspicious/noExplicitAny: TypeScript asks a mixin's constructor for any[].
export function binding<Base extends abstract new (...args: any[]) => AbstractSqlConnection>(base: Base) {
  abstract class BindingConnection extends base {
    override async execute<T extends Rows = EntityData<AnyEntity>[]>(
      query: string | NativeQueryBuilder,
      params: readonly unknown[] | Record<string, unknown> = [],
      method: "all" | "get" | "run" = "all",
      ctx?: Transaction,
      loggerContext?: LoggingOptions,
    ): Promise<T> {
      const bound = bind(query, params);
      if (bound === undefined) {
        return super.execute<T>(query, params, method, ctx, loggerContext);
      }
      await this.ensureConnection();
      return this.executeQuery(
        bound.sql,
        async () => {
          const result = await (ctx ?? this.getClient()).executeQuery(CompiledQuery.raw(bound.sql, bound.params));
          return this.transformRawResult<T>(result, method);
        },
        { ...loggerContext },
      );
    }
  }
  return BindingConnection;
}

/** A query of MikroORM's with values that are bound as they are; undefined where MikroORM must write them out (identifiers, fragments, lists, JSON). */
function bind(query: unknown, given: unknown): { sql: string; params: unknown[] } | undefined {
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
