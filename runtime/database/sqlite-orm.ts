import type { AnyEntity, Configuration, EntityData, LoggingOptions, QueryResult, Transaction } from "@mikro-orm/core";
import { AbstractSqlDriver, BaseSqliteConnection, type NativeQueryBuilder, SqlitePlatform } from "@mikro-orm/sql";
import { CompiledQuery } from "kysely";

/**
 * MikroORM's SQLite driver, with values bound instead of written into the SQL text: statements are prepared once, bytes and NUL
 * characters arrive whole, and no value can be read as SQL.
 */
export class SoukSqliteOrmDriver extends AbstractSqlDriver<BindingConnection> {
  constructor(config: Configuration) {
    super(config, new SqlitePlatform(), BindingConnection, ["kysely"]);
  }
}

class BindingConnection extends BaseSqliteConnection {
  override async execute<T extends QueryResult | EntityData<AnyEntity> | EntityData<AnyEntity>[] = EntityData<AnyEntity>[]>(
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

/** The query with values SQLite binds as they are; undefined where MikroORM must write them out (identifiers, fragments, lists, JSON). */
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
