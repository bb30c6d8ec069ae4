import { type Stores, startStores } from "../../tools/stores/stores.ts";

let stores: Promise<Stores> | undefined;

/**
 * The MariaDB and the Redis of this run of the tests: those that `npm test` started or the environment names, else private ones of this process, which
 * end with it. They are shared: a test takes a database, a prefix of keys, of its own. One that kills or empties a server starts its own, by
 * `startMariadb()` or `startRedis()` of `tools/stores/`.
 */
export function testStores(): Promise<Stores> {
  stores ??= startStores();
  return stores;
}
