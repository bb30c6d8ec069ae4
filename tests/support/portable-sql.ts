import assert from "node:assert/strict";
import { subscribe } from "node:diagnostics_channel";
import type { Statement } from "#runtime/database/statements.ts";

/** What only some of MariaDB 10.6, MySQL 8.0 and SQLite know, or what they take differently: a pattern over SQL without its literals, and who knows it. */
const NOT_PORTABLE: readonly (readonly [pattern: RegExp, who: string])[] = [
  [/\breturning\b/, "MySQL knows no RETURNING"],
  [/\bcreate\s+or\s+replace\s+table\b/, "only MariaDB replaces tables"],
  [/\b(add|drop)\s+(column\s+|index\s+|constraint\s+)?if\s+(not\s+)?exists\b/, "only MariaDB asks for columns and keys"],
  [/\b(create\s+(unique\s+)?|drop\s+)index\s+if\b/, "MySQL asks for no index"],
  [/\bnext\s+value\s+for\b|\bnextval\s*\(|\blastval\s*\(|\bcreate\s+sequence\b/, "only MariaDB has sequences"],
  [/\bsystem\s+versioning\b|\bfor\s+system_time\b|\bperiod\s+for\b/, "only MariaDB keeps versions of rows"],
  [/\brows\s+examined\b/, "only MariaDB limits the rows it examines"],
  [/\bexecute\s+immediate\b|\bnatural_sort_key\s*\(|\bmedian\s*\(|\bpercentile_(cont|disc)\s*\(/, "only MariaDB"],
  [/\bjson_(exists|query|detailed|compact|loose|equals|normalize|key_value)\s*\(/, "only MariaDB"],
  [/\bset\s+statement\b/, "only MariaDB"],
  [/\bfetch\s+(first|next)\b|\boffset\s+\S+\s+rows?\b/, "MySQL says LIMIT"],
  [/\b(intersect|except|minus)\b/, "MySQL before 8.0.31 has neither"],
  [/\bvalues\s*\([^)]*\)\s*as\s+\w+.*\bon\s+duplicate\b/, "only MySQL names the new row"],
  [/\blateral\b/, "only MySQL has LATERAL"],
  [/->>?/, "MariaDB knows no JSON operators"],
  [/\bmember\s+of\b|\bjson_(overlaps|storage_size|storage_free|pretty|value|table|arrayagg|objectagg)\s*\(/, "not all of them"],
  [/\bregexp_like\s*\(|\bany_value\s*\(|\bgrouping\s*\(/, "only MySQL"],
  [/\b(uuid_to_bin|bin_to_uuid|is_uuid)\s*\(/, "only MySQL"],
  [/0900/, "only MySQL has these collations"],
  [/nopad/, "only MariaDB has these collations"],
  [/\bfor\s+share\b/, "MariaDB says LOCK IN SHARE MODE"],
  [/\bfor\s+update\s+of\b/, "MariaDB locks no single table"],
  [/\bvalues\s+row\s*\(/, "only MySQL"],
  [/\bexplain\s+analyze\b|^\s*analyze\s+(select|update|delete)\b/, "each says it its own way"],
  [/\/\*[!+M]/, "hints for one of them"],
  [/\bon\s+conflict\b|\bilike\b|::/, "neither MariaDB nor MySQL"],
  [/\binsert\s+or\s+(ignore|replace|abort|fail)\b|\bpragma\b|\browid\b|\bglob\b/, "only SQLite"],
  [/\|\|/, "concatenates in SQLite, and means OR in MySQL"],
  [/\bnulls\s+(first|last)\b/, "only SQLite"],
  [/\bis\s+(not\s+)?distinct\s+from\b|<=>/, "not all of them"],
  [/\bfull\s+(outer\s+)?join\b|\bdistinct\s+on\b|\bfilter\s*\(\s*where\b/, "neither MariaDB nor MySQL"],
  [/\b(now|sysdate|curdate|unix_timestamp|from_unixtime|current_timestamp|strftime|datetime)\b/, "the time comes from the clock"],
];

/** Why a statement is not understood alike by MariaDB, MySQL and SQLite; undefined when it is. */
export function notPortable(sql: string): string | undefined {
  const bare = sql
    .replaceAll(/'(?:[^'\\]|''|\\.)*'/gs, "?")
    .replaceAll(/`[^`]*`/g, "name")
    .replaceAll(/"[^"]*"/g, "name")
    .toLowerCase();
  return NOT_PORTABLE.find(([pattern]) => pattern.test(bare))?.[1];
}

/** Statements of the runtime's own, each of which one file writes for each server by itself. */
const OWN = /^(select version\(\)|create table if not exists migration)/i;

/** Fails the run, at its end, when a statement went to MariaDB that MySQL would not take. Does nothing in a process that runs no tests. */
export function refuseUnportable(): void {
  const { after } = globalThis as { after?: (work: () => void) => void };
  const refused = new Set<string>();
  if (after === undefined) return;
  subscribe("souk.statement", (message) => {
    const { service, dialect, sql } = message as Statement;
    const why = dialect === "mysql" && !OWN.test(sql) ? notPortable(sql) : undefined;
    if (why !== undefined) refused.add(`${service}: ${why}: ${sql}`);
  });
  after(function everyStatementIsPortable() {
    assert.deepEqual([...refused], []);
  });
}
