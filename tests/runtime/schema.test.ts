import assert from "node:assert/strict";
import type { EntityMetadata, SqlEntityManager } from "@mikro-orm/sql";
import { type Kysely, sql } from "kysely";
import { systemClock } from "#runtime/clock.ts";
import { openDatabase } from "#runtime/database/database.ts";
import { type RuntimeTables, runtimeTableNames } from "#runtime/database/tables.ts";
import { type ServiceWithTables, TABLES } from "../../services/tables.ts";
import { quietLog } from "../support/database.ts";
import { emptyDatabase } from "../support/mariadb.ts";

/** A table: its columns, each as "varchar(36)" or "bigint null", its primary key, its unique keys. */
interface Table {
  readonly columns: Readonly<Record<string, string>>;
  readonly primaryKey: readonly string[];
  readonly uniqueKeys: readonly string[];
}

type Tables = Readonly<Record<string, Table>>;
type AnyDatabase = Awaited<ReturnType<typeof open>>;

function open(service: ServiceWithTables, url: string) {
  const { entities, migrations } = TABLES[service];
  return openDatabase({ service, url, entities: [...entities], migrations, clock: systemClock, log: quietLog });
}

interface Store {
  readonly name: string;
  place(service: string): Promise<{ url: string; remove(): Promise<void> }>;
  /** The tables as the database has them. */
  read(db: Kysely<unknown>): Promise<Tables>;
  /** What a column type of an entity is called there. */
  typeOf(columnType: string): string;
}

const mariadb: Store = {
  name: "MariaDB",
  place: emptyDatabase,
  typeOf: (type) => (type === "blob" ? "longblob" : type === "tinyint(1)" ? type : type.replace(/^(int|bigint)\(\d+\)$/, "$1")),
  async read(db) {
    const columns = await sql<{ table_name: string; column_name: string; column_type: string; is_nullable: string }>`
      select table_name as table_name, column_name as column_name, column_type as column_type, is_nullable as is_nullable
      from information_schema.columns where table_schema = database() order by table_name, ordinal_position`.execute(db);
    const keys = await sql<{ table_name: string; index_name: string; column_name: string }>`
      select table_name as table_name, index_name as index_name, column_name as column_name
      from information_schema.statistics where table_schema = database() and non_unique = 0
      order by table_name, index_name, seq_in_index`.execute(db);
    return tablesOf(
      columns.rows.map((row) => ({
        table: row.table_name,
        column: row.column_name,
        type: mariadb.typeOf(row.column_type),
        isNullable: row.is_nullable === "YES",
      })),
      keys.rows.map((row) => ({
        table: row.table_name,
        key: row.index_name,
        column: row.column_name,
        isPrimary: row.index_name === "PRIMARY",
      })),
    );
  },
};

/** SQLite keeps the length of a text nowhere, and an integer is an integer: a column is what its affinity makes it. */
const sqlite: Store = {
  name: "SQLite",
  place: async () => ({ url: "sqlite::memory:", remove: async () => {} }),
  typeOf: (type) => (/int/i.test(type) ? "integer" : /char|text|clob/i.test(type) ? "text" : /blob/i.test(type) ? "blob" : type),
  async read(db) {
    const columns = await sql<{ tbl: string; name: string; type: string; not_null: number; pk: number }>`
      select m.name as tbl, c.name as name, c.type as type, c."notnull" as not_null, c.pk as pk
      from sqlite_master m, pragma_table_info(m.name) c where m.type = 'table' and m.name not like 'sqlite_%'
      order by m.name, c.cid`.execute(db);
    const keys = await sql<{ tbl: string; key_name: string; name: string }>`
      select m.name as tbl, i.name as key_name, c.name as name
      from sqlite_master m, pragma_index_list(m.name) i, pragma_index_info(i.name) c
      where m.type = 'table' and i."unique" = 1 and i.origin <> 'pk' order by m.name, i.name, c.seqno`.execute(db);
    return tablesOf(
      columns.rows.map((row) => ({
        table: row.tbl,
        column: row.name,
        type: sqlite.typeOf(row.type),
        isNullable: row.not_null === 0 && row.pk === 0,
      })),
      [
        ...columns.rows
          .filter((row) => row.pk > 0)
          .sort((a, b) => a.pk - b.pk)
          .map((row) => ({ table: row.tbl, key: "PRIMARY", column: row.name, isPrimary: true })),
        ...keys.rows.map((row) => ({ table: row.tbl, key: row.key_name, column: row.name, isPrimary: false })),
      ],
    );
  },
};

function tablesOf(
  columns: readonly { table: string; column: string; type: string; isNullable: boolean }[],
  keys: readonly { table: string; key: string; column: string; isPrimary: boolean }[],
): Tables {
  const names = [...new Set(columns.map(({ table }) => table))].sort();
  return Object.fromEntries(
    names.map((name) => {
      const own = keys.filter(({ table }) => table === name);
      const unique = Map.groupBy(
        own.filter(({ isPrimary }) => !isPrimary),
        ({ key }) => key,
      );
      return [
        name,
        {
          columns: columnsOf(columns.filter(({ table }) => table === name)),
          primaryKey: own.filter(({ isPrimary }) => isPrimary).map(({ column }) => column),
          uniqueKeys: [...unique.values()].map((parts) => parts.map(({ column }) => column).join(", ")).sort(),
        },
      ];
    }),
  );
}

function columnsOf(columns: readonly { column: string; type: string; isNullable: boolean }[]): Table["columns"] {
  return Object.fromEntries(
    columns
      .map(({ column, type, isNullable }) => [column, isNullable ? `${type} null` : type] as const)
      .sort(([a], [b]) => (a < b ? -1 : 1)),
  );
}

/** The tables as the entities describe them. */
function entityTables(em: SqlEntityManager, { typeOf }: Store): Tables {
  const metas = [...em.getMetadata().getAll().values()].sort((a, b) => (a.tableName < b.tableName ? -1 : 1));
  return Object.fromEntries(metas.map((meta) => [meta.tableName, entityTable(meta, typeOf)]));
}

function entityTable(meta: EntityMetadata, typeOf: Store["typeOf"]): Table {
  const props = meta.props.filter((prop) => prop.persist !== false);
  const fieldOf = (name: string) => (meta.properties as Record<string, { fieldNames: string[] }>)[name]?.fieldNames[0] as string;
  return {
    columns: columnsOf(
      props.map((prop) => ({
        column: prop.fieldNames[0] as string,
        type: typeOf(prop.columnTypes[0] as string),
        isNullable: prop.nullable === true,
      })),
    ),
    primaryKey: meta.primaryKeys.map(fieldOf),
    uniqueKeys: [
      ...props.filter((prop) => prop.unique).map((prop) => prop.fieldNames[0] as string),
      ...meta.uniques.map(({ properties }) =>
        [properties]
          .flat()
          .map((name) => fieldOf(String(name)))
          .join(", "),
      ),
    ].sort(),
  };
}

type Kind = "text" | "integer" | "bytes" | "text null" | "integer null" | "bytes null";
type KindOf<T> = [T] extends [string]
  ? "text"
  : [T] extends [number]
    ? "integer"
    : [T] extends [Uint8Array]
      ? "bytes"
      : NullKindOf<T>;
type NullKindOf<T> = [T] extends [string | null] ? "text null" : [T] extends [number | null] ? "integer null" : "bytes null";
type Read<C> = C extends { readonly __select__: infer S } ? S : C;

/** The runtime's tables as TypeScript knows them: the compiler refuses this where it is not what `RuntimeTables` says. */
const runtimeColumns: { [T in keyof RuntimeTables]: { [C in keyof RuntimeTables[T]]: KindOf<Read<RuntimeTables[T][C]>> } } = {
  outbox: {
    position: "integer",
    event_id: "text",
    partition_no: "integer",
    aggregate_type: "text",
    aggregate_id: "text",
    sequence: "integer",
    type: "text",
    event: "bytes",
    event_time: "integer",
    publish_time: "integer null",
  },
  sequence: { aggregate_type: "text", aggregate_id: "text", value: "integer" },
  inbox: { consumer: "text", event_id: "text", take_time: "integer" },
  replay: {
    request_key: "text",
    request_hash: "text",
    state: "text",
    answer: "bytes null",
    create_time: "integer",
    expire_time: "integer",
  },
  job: {
    kind: "text",
    job_key: "text",
    due_time: "integer null",
    generation: "text",
    attempt: "integer",
    owner: "text null",
    lease_expire_time: "integer null",
    first_failure_time: "integer null",
    last_reason: "text null",
    last_message: "text null",
  },
  dead_letter: {
    dead_letter_id: "text",
    kind: "text",
    state: "text",
    handler: "text",
    subject: "text",
    sequence: "integer",
    event: "bytes null",
    event_type: "text",
    event_id: "text",
    attempts: "integer",
    create_time: "integer",
    first_attempt_time: "integer null",
    last_attempt_time: "integer null",
    reason: "text",
    message: "text",
    traceparent: "text",
    resolve_time: "integer null",
    resolved_by: "text null",
    note: "text null",
  },
  lease: { name: "text", owner: "text", expire_time: "integer" },
};

function kindOf(column: string): Kind {
  const type = /int/.test(column) ? "integer" : /blob/.test(column) ? "bytes" : "text";
  return column.endsWith(" null") ? `${type} null` : type;
}

for (const store of [sqlite, mariadb]) {
  describe(`The tables that migrations make on ${store.name}`, () => {
    for (const service of Object.keys(TABLES) as ServiceWithTables[]) {
      it(`are those that ${service}'s entities, and the runtime's types, describe`, async () => {
        const place = await store.place(service);
        const database: AnyDatabase = await open(service, place.url);
        try {
          const { migration, ...made } = await store.read(database.sql as unknown as Kysely<unknown>);
          const own = Object.fromEntries(Object.entries(made).filter(([name]) => !(name in runtimeColumns)));
          assert.deepEqual(own, await database.read(async (em) => entityTables(em, store)));
          const runtime = runtimeTableNames.map((name) => [
            name,
            Object.fromEntries(Object.entries(made[name]?.columns ?? {}).map(([column, type]) => [column, kindOf(type)])),
          ]);
          assert.deepEqual(Object.fromEntries(runtime), runtimeColumns);
        } finally {
          await database.close();
          await place.remove();
        }
      });
    }
  });
}
