import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { notPortable } from "../support/portable-sql.ts";
import { ROOT } from "../support/process.ts";

/** The code that may not know which database it talks to. */
const SOURCES = ["runtime/**/*.ts", "services/**/*.ts"];
/** The files that know, each for one reason: drivers, migrations' notes, and one statement that SQLite and MySQL write differently. */
const KNOWING = /^runtime\/database\/|^services\/payment\/simulator\.ts$|^services\/search\/sqlite\//;

/** Kysely's and MikroORM's ways to say what not all of them understand. */
const CALLS =
  /\.(returning|returningAll|onConflict|onDuplicateKeyUpdate|orIgnore|orReplace|orAbort|forShare|forNoKeyUpdate|forKeyShare|skipLocked|noWait|innerJoinLateral|leftJoinLateral|crossJoinLateral|fullJoin|distinctOn|mergeInto|fetch|nullsFirst|nullsLast|raw|upsert|upsertMany|ifNotExists|ifExists)\s*\(/;
/** `raw` and `fetch` of something that is no query. */
const OTHER_CALLS = /\b(globalThis|sql)\.(fetch|raw)\(|String\.raw/;

/** The column types that all of them understand. */
const TYPES = /^(varchar\(\d+\)|text|integer|bigint|double precision|blob)$/;

/** What is wrong with a source file, as `line: why`. */
function problemsOf(text: string): string[] {
  const problems: string[] = [];
  const note = (index: number, why: string) => problems.push(`${text.slice(0, index).split("\n").length}: ${why}`);
  for (const match of text.matchAll(/\bsql(?:<[^`]*?>)?`((?:[^`\\]|\\.)*)`/g)) {
    const why = notPortable((match[1] as string).replaceAll(/\$\{[^}]*\}/g, "?"));
    if (why !== undefined) note(match.index, why);
  }
  if (/from "kysely"|@mikro-orm/.test(text)) {
    for (const match of text.matchAll(new RegExp(CALLS, "g"))) {
      const line = text.slice(text.lastIndexOf("\n", match.index) + 1, text.indexOf("\n", match.index));
      if (!OTHER_CALLS.test(line)) note(match.index, `.${match[1]}() is not understood by all of them`);
    }
  }
  for (const match of text.matchAll(/\.addColumn\("\w+", (?:"([^"]+)"|(\w+)\()/g)) {
    if (match[1] !== undefined && !TYPES.test(match[1]))
      note(match.index, `the column type ${match[1]} is not the same everywhere`);
  }
  for (const match of text.matchAll(/"(ilike|is distinct from|is not distinct from|->|->>|regexp|rlike|~|@>|&&|\|\|)"/g)) {
    if (/^\s*(eb|\.where|\.having|sql)|\(/.test(text.slice(Math.max(0, match.index - 60), match.index))) {
      note(match.index, `the operator ${match[1]} is not understood by all of them`);
    }
  }
  return problems;
}

describe("SQL", () => {
  it("is understood by MariaDB, MySQL and SQLite alike wherever the code does not know which it talks to", () => {
    const files = globSync(SOURCES, { cwd: ROOT }).filter((file) => !KNOWING.test(file));
    assert.ok(files.length > 100);
    const problems = files.flatMap((file) =>
      problemsOf(readFileSync(join(ROOT, file), "utf8")).map((problem) => `${file}:${problem}`),
    );
    assert.deepEqual(problems, []);
  });

  for (const statement of [
    "insert into t (a) values (?) returning a",
    "insert into t (a) values (?) on conflict (a) do nothing",
    "insert into t (a) values (?) as new on duplicate key update a = new.a",
    "select next value for s",
    "select * from t for system_time as of ?",
    "select doc->>'$.a' from t",
    "select * from t, lateral (select 1) as u",
    "select a from t for share",
    "select a || b from t",
    "select a from t where a ilike ?",
    "select a collate utf8mb4_0900_bin from t",
    "select a from t order by a nulls last",
    "alter table t add column if not exists a text",
    "select a from t where b < now()",
    "insert or ignore into t (a) values (?)",
  ]) {
    it(`is refused: ${statement}`, () => assert.notEqual(notPortable(statement), undefined));
  }

  for (const statement of [
    "select `returning` from `t` where `a` = 'on conflict || now()'",
    "insert into t (a) values (?) on duplicate key update a = t.a + ?",
    "select a from t where (a, b) < (?, ?) order by a desc limit ? for update",
    "select count(*) as n, coalesce(sum(a), 0) from t where a in (?, ?) group by b",
    "select a from t for update skip locked",
  ]) {
    it(`is taken: ${statement}`, () => assert.equal(notPortable(statement), undefined));
  }

  for (const source of [
    'import { sql } from "kysely";\nawait sql`select a || b from t`.execute(db);',
    'import type { Kysely } from "kysely";\nawait db.insertInto("t").values(row).returning("a").execute();',
    'import type { Kysely } from "kysely";\ndb.insertInto("t").values(row).onConflict((c) => c.doNothing());',
    'import type { Kysely } from "kysely";\ndb.selectFrom("t").where("a", "ilike", "x%");',
    'await db.schema.createTable("t").addColumn("a", "jsonb").execute();',
  ]) {
    it(`is found in source: ${source.split("\n").at(-1)}`, () => assert.equal(problemsOf(source).length, 1));
  }
});
