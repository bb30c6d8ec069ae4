import { findProgram } from "../stores/programs.ts";
import { type Stores, startStores, TEST_MYSQL_VARIABLE, TEST_REDIS_VARIABLE } from "../stores/stores.ts";
import type { Outcome } from "./list.ts";

/** Chooses the tables the tests work on: `mariadb`, or the embedded ones when it is not set. */
export const TEST_STORE_VARIABLE = "SOUK_TEST_STORE";

let stores: Stores | undefined;

/**
 * Starts a MariaDB and a Redis for the tests and hands them on to every process that is started from here, by environment. Servers that the
 * environment names already are only used.
 */
export async function startForTests(): Promise<Outcome> {
  if (stores !== undefined) {
    return { ok: true, output: "" };
  }
  const named = [TEST_MYSQL_VARIABLE, TEST_REDIS_VARIABLE].filter((variable) => process.env[variable]);
  const env = { ...process.env };
  try {
    stores = await startStores({}, env);
    // The drill of docs/operations.md needs it; fetching it takes longer than a test may.
    findProgram("MariaDB client");
  } catch (error) {
    return { ok: false, output: error instanceof Error ? error.message : String(error) };
  }
  process.env[TEST_MYSQL_VARIABLE] = stores.mysqlAdminUrl;
  process.env[TEST_REDIS_VARIABLE] = stores.redisUrl;
  return { ok: true, output: "", note: named.length > 0 ? `named by ${named.join(" and ")}` : "private MariaDB and Redis" };
}

/** Finds the browser or fetches it, which takes longer than a test may. */
export async function findBrowser(): Promise<Outcome> {
  try {
    return { ok: true, output: "", note: `Chromium ${findProgram("Chromium").version}` };
  } catch (error) {
    return { ok: false, output: error instanceof Error ? error.message : String(error) };
  }
}

/** Ends what was started; without it they would end with this process. */
export async function stopStores(): Promise<void> {
  await stores?.stop();
}
