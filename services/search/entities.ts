import { defineEntity, p } from "@mikro-orm/core";
import type { Selectable } from "kysely";
import type { Database, TablesOf } from "#runtime/database/database.ts";

/** The states of a rebuild; see `transitions` in reindex.ts. */
export type ReindexStateName = "RUNNING" | "DONE" | "FAILED";

/**
 * A rebuild of the index. The index itself is a file of its own beside this database, because it is derived: lost, it is rebuilt. Times in
 * milliseconds since the epoch.
 */
const ReindexSchema = defineEntity({
  name: "Reindex",
  tableName: "reindex",
  properties: {
    reindexId: p.string().length(36).primary(),
    state: p.string().length(16).$type<ReindexStateName>(),
    /** 1 while it runs, null after: the unique key lets one run at a time. */
    running: p.integer().nullable().unique(),
    listingsRead: p.integer(),
    startTime: p.bigint("number"),
    endTime: p.bigint("number").nullable(),
    failure: p.string().length(500),
  },
});
export class Reindex extends ReindexSchema.class {}
ReindexSchema.setClass(Reindex);

/** Search's entities. */
export const entities = [Reindex] as const;

/** Search's tables as Kysely sees them. */
export type SearchTables = TablesOf<typeof entities>;
/** Search's database. */
export type SearchDatabase = Database<SearchTables>;
/** A row of `reindex`. */
export type ReindexRow = Selectable<SearchTables["reindex"]>;
