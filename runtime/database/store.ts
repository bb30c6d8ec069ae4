import type { EntityName, MikroORM } from "@mikro-orm/sql";
import type { Kysely } from "kysely";
import type { Log } from "#runtime/log.ts";
import type { Observer } from "#runtime/telemetry/observer.ts";

/** What a store is opened with. */
export interface StoreOptions {
  readonly service: string;
  readonly url: string;
  readonly entities: readonly EntityName[];
  readonly log: Log;
  /** How many databases on the server this process opens, this one included; 1 unless given. */
  readonly together?: number | undefined;
  readonly observer?: Observer | undefined;
}

/** A database as a driver opens it: connected, its tables not looked at yet. */
export interface Store {
  readonly orm: MikroORM;
  /** For reads that may be some seconds old, where there is a replica for them. */
  readonly stale?: Kysely<unknown>;
  /** Gives the connection on which migrations run, to one process at a time where several start at once. */
  migrating<T>(work: (place: MigrationPlace) => Promise<T>): Promise<T>;
  /**
   * Looks at the tables once they are up to date.
   *
   * @throws Error a sentence that says what is wrong with them, or which right is missing, and what to do.
   */
  verify(): Promise<void>;
  /** What went wrong with the tables, with what to do where the store knows. */
  explained(error: unknown): unknown;
  /** Closes it, and removes what was temporary. */
  close(): Promise<void>;
}

/** Where migrations run. */
export interface MigrationPlace {
  readonly sql: Kysely<unknown>;
  /** Whether a migration's changes of tables are undone with its transaction. Where not, one may be found half done. */
  readonly transactional: boolean;
  /** Runs a migration that was found half done: what is there already is no error. */
  resuming<T>(work: () => Promise<T>): Promise<T>;
}

/** The columns that entities declare as `bigint` in TypeScript. */
function exactColumns(orm: MikroORM): Set<string> {
  const exact = new Set<string>();
  const plain = new Set<string>();
  for (const meta of orm.getMetadata().getAll().values()) {
    for (const property of meta.props) {
      for (const column of property.fieldNames ?? []) {
        (property.runtimeType === "bigint" ? exact : plain).add(column);
      }
    }
  }
  for (const column of exact) {
    if (plain.has(column)) {
      throw new Error(`the column "${column}" is a bigint in one entity and not in another: name them apart.`);
    }
  }
  return exact;
}

/** Which columns hold money or other integers that must stay exact: read as `bigint`, whatever their size. */
export type IsBigInt = (column: string) => boolean;

/** Knows the exact columns once the entities are discovered; sums of money are named like money. */
export class ExactColumns {
  #columns: ReadonlySet<string> = new Set();

  /** Learns them from the entities. */
  learn(orm: MikroORM): void {
    this.#columns = exactColumns(orm);
  }

  /** Whether a column, or an alias, comes as `bigint`. */
  readonly has: IsBigInt = (column) => this.#columns.has(column) || column.endsWith("_minor");
}
