import type { Configuration } from "@mikro-orm/core";
import { AbstractSqlDriver, BaseSqliteConnection, SqlitePlatform } from "@mikro-orm/sql";
import { binding } from "./binding.ts";

class BindingConnection extends binding(BaseSqliteConnection) {}

/** MikroORM's SQLite driver, with values bound. */
export class SoukSqliteOrmDriver extends AbstractSqlDriver<BindingConnection> {
  constructor(config: Configuration) {
    super(config, new SqlitePlatform(), BindingConnection, ["kysely"]);
  }
}
