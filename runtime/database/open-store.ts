import { openMysql } from "./mysql.ts";
import { openSqlite } from "./sqlite.ts";
import type { Store, StoreOptions } from "./store.ts";

/** Opens the store that the URL names: `sqlite:`, `mariadb:` or `mysql:`. */
export async function openStore(options: StoreOptions): Promise<Store> {
  switch (/^([a-z]+):/.exec(options.url)?.[1]) {
    case "sqlite":
      return openSqlite(options);
    case "mariadb":
    case "mysql":
      return openMysql(options);
    default:
      throw new Error(
        `the database URL of "${options.service}" is not understood: sqlite:<path>, mariadb://<user>:<password>@<host>:<port>/<name>, or mysql://….`,
      );
  }
}
