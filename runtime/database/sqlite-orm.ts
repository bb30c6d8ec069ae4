import type { AnyEntity, Configuration, EntityData, LoggingOptions, QueryResult, Transaction } from "@mikro-orm/core";
import { AbstractSqlDriver, BaseSqliteConnection, type NativeQueryBuilder, SqlitePlatform } from "@mikro-orm/sql";
import { CompiledQuery } from "kysely";
import { bind } from "./binding.ts";

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
