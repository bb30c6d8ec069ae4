import { defineEntity, p } from "@mikro-orm/core";
import { dropEmpty, type Migration } from "#runtime/database/migrations.ts";

const PotSchema = defineEntity({
  name: "Pot",
  tableName: "pot",
  properties: {
    potId: p.string().primary(),
    title: p.string(),
    balanceMinor: p.bigint(),
    createTime: p.bigint("number"),
    note: p.string().nullable(),
  },
});

/** A table with one column of each kind that services use, for the tests of the runtime. */
export class Pot extends PotSchema.class {}
PotSchema.setClass(Pot);

/** The migration that makes it. */
export const potMigrations: readonly Migration[] = [
  {
    name: "0001-pot",
    async up(sql) {
      await sql.schema
        .createTable("pot")
        .addColumn("pot_id", "varchar(64)", (c) => c.primaryKey())
        .addColumn("title", "text", (c) => c.notNull())
        .addColumn("balance_minor", "bigint", (c) => c.notNull())
        .addColumn("create_time", "bigint", (c) => c.notNull())
        .addColumn("note", "text")
        .execute();
    },
    down: (sql) => dropEmpty(sql, ["pot"]),
  },
];

/** A row of it. */
export function pot(potId: string, balanceMinor = 0n) {
  return { pot_id: potId, title: `Pot ${potId}`, balance_minor: balanceMinor, create_time: 1_700_000_000_000, note: null };
}
