import type { Kysely } from "kysely";
import type { Clock } from "#runtime/clock.ts";
import type { Log } from "#runtime/log.ts";
import {
  type Back,
  bringUp,
  type Migration,
  type MigrationList,
  type MigrationStatus,
  statusOf,
  undo,
  type Which,
} from "./migrations.ts";
import { openStore } from "./open-store.ts";
import { runtimeMigrations } from "./tables.ts";

/** Whose migrations: the service's own, or those of the runtime's tables beside them. */
export type Whose = "service" | "runtime";

/** The tables of one service, to be looked at and changed. Made by `openMigrations`. */
export interface Migrations {
  /** Where every migration stands, in the order in which they run. Changes nothing. */
  status(): Promise<MigrationStatus[]>;
  /** Runs what has not run, and gives the names; all unless told otherwise. Of several that do so at once one works and the others wait for it. */
  up(which?: Which): Promise<string[]>;
  /**
   * Undoes the last ones and gives the names.
   *
   * @throws Error the sentence of one that cannot be undone.
   */
  down(whose: Whose, back: Back): Promise<string[]>;
  close(): Promise<void>;
}

/** The lists of a service's database, in the order in which they run. */
export function listsOf(service: string, migrations: readonly Migration[]): readonly [MigrationList, MigrationList] {
  return [
    { owner: "runtime", migrations: runtimeMigrations },
    { owner: service, migrations },
  ];
}

/** Connects to a service's database as `openDatabase` does, and leaves its tables as they are. */
export async function openMigrations(options: {
  service: string;
  url: string;
  migrations: readonly Migration[];
  clock: Clock;
  log: Log;
}): Promise<Migrations> {
  const lists = listsOf(options.service, options.migrations);
  const [runtime, service] = lists;
  const store = await openStore({ ...options, entities: [] });
  const sql = store.orm.em.getKysely() as unknown as Kysely<unknown>;
  const explaining = async <T>(work: Promise<T>): Promise<T> =>
    work.catch((error: unknown) => {
      throw store.explained(error);
    });
  return {
    status: () => explaining(statusOf(sql, lists)),
    up: (which = "all") => explaining(store.migrating((place) => bringUp(place, lists, options.clock.now(), which))),
    down: (whose, back) => explaining(store.migrating((place) => undo(place, whose === "runtime" ? runtime : service, back))),
    close: () => store.close(),
  };
}
