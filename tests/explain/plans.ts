import type { Connection, RowDataPacket } from "mysql2/promise";

/** A table of at most so many rows may be read whole. */
const SMALL_ROWS = 1_000;
/** Rows that a statement may sort, or put into a temporary table. */
const SORTED_ROWS = 1_000;
/** Rows that a statement without a limit may be expected to read. */
const READ_ROWS = 2_000;
/** Rows that any statement may have read: the largest page is of 1,000, over two or three tables. */
const EXAMINED_ROWS = 5_000;
/** How many examples of one shape are explained: those that read the most. */
const EXAMPLES = 4;

/** A statement as the server ran it. */
export interface Seen {
  /** What the test was doing. */
  readonly step: string;
  readonly database: string;
  readonly text: string;
  /** Rows that it read, by the server's own count. */
  readonly examined: number;
}

/** Statements that differ in their values only, and what is wrong with how the server runs them. */
export interface Finding {
  readonly database: string;
  /** The text with question marks for values. */
  readonly shape: string;
  readonly steps: readonly string[];
  readonly problems: readonly string[];
}

/** Switches the server's log of statements on: with every statement it says how many rows were read for it. Sessions opened before are not in it. */
export async function openLog(admin: Connection) {
  await admin.query("set global log_output = 'NONE', global long_query_time = 0, global slow_query_log = 1");
  return {
    /** Runs something; gives what the server ran meanwhile that reads rows, in the databases of these names. */
    async during(step: string, databases: readonly string[], work: () => Promise<void>): Promise<Seen[]> {
      await admin.query("truncate table mysql.slow_log");
      await admin.query("set global log_output = 'TABLE'");
      try {
        await work();
      } finally {
        // A statement is in the log a moment after its answer is sent.
        await admin.query("do sleep(0.02)");
        await admin.query("set global log_output = 'NONE'");
      }
      const [rows] = await admin.query<RowDataPacket[]>(
        "select db, rows_examined, convert(sql_text using utf8mb4) as text from mysql.slow_log where db in (?)",
        [databases],
      );
      return rows
        .map((row) => ({ step, database: row.db as string, text: row.text as string, examined: Number(row.rows_examined) }))
        .filter(
          ({ text }) => /^\s*(select|update|delete|with)\b/i.test(text) && !/\b(get|release)_lock\(|^select version\(\)/.test(text),
        );
    },
  };
}

/** Explains what was seen, each shape by its examples that read the most, and gives the shapes that read or sort more than they may. */
export async function check(admin: Connection, seen: readonly Seen[]): Promise<{ shapes: number; findings: Finding[] }> {
  const sizes = await tableSizes(admin, [...new Set(seen.map(({ database }) => database))]);
  const groups = Map.groupBy(seen, ({ database, text }) => `${database}\n${shapeOf(text)}`);
  const findings: Finding[] = [];
  for (const [key, group] of groups) {
    const [database, shape] = key.split("\n") as [string, string];
    const problems = new Set<string>();
    const examples = group.toSorted((a, b) => b.examined - a.examined).slice(0, EXAMPLES);
    for (const { text, examined } of examples) {
      for (const problem of planProblems(await explain(admin, database, text), text, (table) => sizes.get(`${database}.${table}`)))
        problems.add(problem);
      if (examined > EXAMINED_ROWS) problems.add(`read ${examined} rows`);
    }
    const steps = [...new Set(group.map(({ step }) => step))];
    if (problems.size > 0) findings.push({ database, shape, steps, problems: [...problems] });
  }
  return { shapes: groups.size, findings };
}

async function tableSizes(admin: Connection, databases: readonly string[]): Promise<Map<string, number>> {
  if (databases.length === 0) return new Map();
  const [rows] = await admin.query<RowDataPacket[]>(
    "select table_schema as db, table_name as name, table_rows as size from information_schema.tables where table_schema in (?)",
    [databases],
  );
  return new Map(rows.map((row) => [`${row.db}.${row.name}`, Number(row.size)]));
}

async function explain(admin: Connection, database: string, text: string): Promise<unknown> {
  await admin.query(`use \`${database}\``);
  const [rows] = await admin.query<RowDataPacket[]>(`explain format=json ${text}`);
  // It escapes quotes as SQL does, which is no JSON.
  return JSON.parse(
    String(rows[0]?.EXPLAIN).replaceAll(/\\(["\\/bfnrtu]|.)/g, (pair, letter) => (/["\\/bfnrtu]/.test(letter) ? pair : letter)),
  );
}

/** A statement with question marks for its values, and one for each list of them. */
export function shapeOf(text: string): string {
  return text
    .replaceAll(/\s+/g, " ")
    .replaceAll(/\bx'[0-9a-f]*'|'(?:[^'\\]|\\.|'')*'/gi, "?")
    .replaceAll(/\b-?\d+(?:\.\d+)?\b/g, "?")
    .replaceAll(/\(\?(?:, ?\?)*\)/g, "(?)")
    .trim();
}

interface Table {
  readonly table_name?: string;
  readonly access_type?: string;
  readonly rows?: number;
  readonly attached_condition?: string;
}

type Plan = Readonly<Record<string, unknown>>;

/** What is planned apart from what stands around it: it runs once, and its rows come as those of a table. */
const OWN_BLOCKS: ReadonlySet<string> = new Set([
  "query_block",
  "materialized",
  "union_result",
  "query_specifications",
  "subqueries",
]);

/** What a plan in MariaDB's JSON does that it may not; `sizeOf` knows the rows of a table. */
export function planProblems(plan: unknown, text: string, sizeOf: (table: string) => number | undefined): string[] {
  const limited = /\blimit \d+/i.test(text);
  const problems: string[] = [];
  const checkBlock = (block: unknown): void => {
    if (Array.isArray(block)) {
      block.forEach(checkBlock);
      return;
    }
    let sorts = false;
    /** Walks one block; gives how many rows the server expects to read in it. */
    const walk = (node: unknown, ordered: boolean): number => {
      if (typeof node !== "object" || node === null) return 1;
      let expected = 1;
      for (const [name, inner] of Object.entries(node as Plan)) {
        if (OWN_BLOCKS.has(name)) {
          checkBlock(inner);
        } else if (Array.isArray(inner)) {
          // A join: each table is read for every row of those before it.
          expected = Math.max(
            expected,
            inner.reduce<number>((rows, each) => rows * walk(each, ordered), 1),
          );
        } else if (name === "filesort" || name === "temporary_table") {
          sorts = true;
          const rows = walk(inner, false);
          if (rows > SORTED_ROWS) problems.push(`sorts about ${rows} rows (${name})`);
          expected = Math.max(expected, rows);
        } else if (name === "table") {
          problems.push(...tableProblems(inner as Table, text, sizeOf, ordered && limited));
          expected = Math.max(expected, ((inner as Table).rows ?? 1) * walk(inner, ordered));
        } else {
          expected = Math.max(expected, walk(inner, ordered));
        }
      }
      return expected;
    };
    const expected = walk(block, true);
    if (expected > READ_ROWS && (!limited || sorts)) problems.push(`is expected to read about ${expected} rows`);
  };
  checkBlock(plan);
  return problems;
}

function tableProblems(table: Table, text: string, sizeOf: (table: string) => number | undefined, walksInOrder: boolean): string[] {
  const { table_name: alias = "", access_type: access, rows = 0, attached_condition: condition } = table;
  if (access !== "ALL" && access !== "index") return [];
  const name = tableOf(alias, text);
  const size = sizeOf(name) ?? rows;
  // In the order of an index as far as the limit, leaving nothing out.
  if (size <= SMALL_ROWS || (access === "index" && walksInOrder && condition === undefined)) return [];
  return [`reads the whole ${access === "ALL" ? "table" : "index of"} ${name} of about ${size} rows`];
}

/** Plans name tables as the statement does. */
function tableOf(alias: string, text: string): string {
  const named = new RegExp(
    `(?:from|join|update)\\s+\`?(\\w+)\`?\\s+(?:as\\s+)?\`?${alias.replaceAll(/\W/g, "\\$&")}\`?(?:\\s|$)`,
    "i",
  );
  return named.exec(text)?.[1] ?? alias;
}
