// A private MariaDB: own data folder, loopback only, a free port, ended with the process that started it.

import { spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import {
  constants,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { createConnection } from "mysql2/promise";
import { exclusively } from "../bootstrap.mjs";
import { keep } from "./keeper.ts";
import { type PrivateServer, type ServerOptions, startOn } from "./private.ts";
import { findProgram, type Program, removeLeft, type Search, sayOnError, storesCache } from "./programs.ts";

/** Small, but as safe as in production: every commit is on disk before it is acknowledged. */
const SETTINGS = [
  "--innodb-flush-log-at-trx-commit=1",
  "--innodb-log-file-size=32M",
  "--innodb-buffer-pool-size=64M",
  "--key-buffer-size=1M",
  "--aria-pagecache-buffer-size=8M",
  "--max-connections=1000",
  "--max-allowed-packet=16M",
  "--character-set-server=utf8mb4",
  // Not the one our tables have: a table that forgot to name its own is found.
  "--collation-server=utf8mb4_unicode_ci",
  "--sql-mode=STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION,NO_ZERO_DATE,NO_ZERO_IN_DATE",
  "--skip-log-bin",
];

/** The system tables, as mariadb-install-db makes them: one statement a line, in this order. Newer releases rename the files. */
const SYSTEM_TABLES = [
  ["mysql_system_tables.sql", "mariadb_system_tables.sql"],
  ["mysql_performance_tables.sql", "mariadb_performance_tables.sql"],
  ["mysql_system_tables_data.sql", "mariadb_system_tables_data.sql"],
  ["maria_add_gis_sp_bootstrap.sql"],
  ["mysql_sys_schema.sql", "mariadb_sys_schema.sql"],
] as const;

/** How to start a MariaDB. */
export interface MariadbOptions extends ServerOptions {
  /** The administrator's password; made up unless given. */
  readonly password?: string;
  /** More of its settings, which win over ours, such as `--log-bin`. */
  readonly settings?: readonly string[];
}

/**
 * Starts a private MariaDB. Its `url` is the administrator's: `mariadb://root:password@127.0.0.1:port`. On the folder and port of an earlier one
 * it recovers what that one had acknowledged.
 */
export async function startMariadb(options: MariadbOptions = {}, search: Search = {}): Promise<PrivateServer> {
  const program = findProgram("MariaDB", search);
  const template = templateOf(program, search);
  const home = options.folder ?? mkdtempSync(path.join(tmpdir(), "souk-mariadb-"));
  const data = path.join(home, "data");
  if (!existsSync(data)) {
    mkdirSync(home, { recursive: true, mode: 0o700 });
    const copy = `${data}.copying`;
    rmSync(copy, { recursive: true, force: true });
    cpSync(template, copy, { recursive: true, mode: constants.COPYFILE_FICLONE });
    renameSync(copy, data);
  }
  const password = options.password ?? randomBytes(12).toString("hex");
  const init = path.join(home, "init.sql");
  writeFileSync(init, initialSql(password), { mode: 0o600 });
  const log = path.join(home, "mariadb.log");
  return startOn({ name: "MariaDB", port: options.port }, async (port) => {
    const kept = await keep({
      file: program.file,
      args: [
        ...argumentsOf(program, data),
        `--port=${port}`,
        "--bind-address=127.0.0.1",
        `--init-file=${init}`,
        ...SETTINGS,
        ...(options.settings ?? []),
      ],
      env: program.env,
      log,
      cwd: home,
      remove: options.folder === undefined ? home : undefined,
      graceSeconds: options.folder === undefined ? 0 : 60,
    });
    return { kept, url: `mariadb://root:${password}@127.0.0.1:${port}`, isReady: () => isReady(port, password) };
  });
}

function argumentsOf(program: Program, data: string): string[] {
  const share = shareOf(program);
  return [
    "--no-defaults",
    ...(process.getuid?.() === 0 ? ["--user=root"] : []),
    `--datadir=${data}`,
    `--lc-messages-dir=${share}`,
    `--character-sets-dir=${path.join(share, "charsets")}`,
    // Its own: a server that starts removes what it takes for temporary tables left over, and would remove those of one that runs.
    `--tmpdir=${data}`,
    // Relative to the data folder: a path of its own may be too long for a socket.
    "--socket=mariadb.sock",
    "--pid-file=mariadb.pid",
    "--skip-name-resolve",
  ];
}

function shareOf({ file }: Program): string {
  const prefix = path.dirname(path.dirname(realpathSync(file)));
  const share = ["share/mysql", "share/mariadb", "share"]
    .map((each) => path.join(prefix, each))
    .find((each) => existsSync(path.join(each, "charsets")));
  if (share === undefined) throw new Error(`${file} has no share/mysql beside it`);
  return share;
}

/** One administrator, by password over loopback; each line is one statement and may run at every start. */
function initialSql(password: string): string {
  return [
    `CREATE OR REPLACE USER 'root'@'127.0.0.1' IDENTIFIED BY '${password}';`,
    "GRANT ALL ON *.* TO 'root'@'127.0.0.1' WITH GRANT OPTION;",
    "DROP USER IF EXISTS 'root'@'localhost', 'root'@'::1';",
    "",
  ].join("\n");
}

/** A data folder with nothing but the system tables, made once: making it takes seconds, copying it milliseconds. */
function templateOf(program: Program, { cache = storesCache(), say = sayOnError }: Search): string {
  const key = createHash("sha256")
    .update(JSON.stringify([program.file, program.version, SETTINGS, SYSTEM_TABLES]))
    .digest("hex");
  const template = path.join(cache, `mariadb-template-${program.version}-${key.slice(0, 12)}`);
  if (existsSync(template)) return template;
  return exclusively(`${template}.lock`, () => {
    if (existsSync(template)) return template;
    say(`making the system tables of MariaDB ${program.version} in ${cache} (once)`);
    removeLeft(cache, "mariadb-template-", ".making-");
    const work = mkdtempSync(`${template}.making-`);
    try {
      makeSystemTables(program, work);
      renameSync(work, template);
    } finally {
      rmSync(work, { recursive: true, force: true });
    }
    return template;
  });
}

function makeSystemTables(program: Program, folder: string): void {
  const share = shareOf(program);
  const sql = SYSTEM_TABLES.map((names) => {
    const name = names.find((each) => existsSync(path.join(share, each)));
    if (name === undefined) throw new Error(`${share} has no ${names[0]}`);
    return readFileSync(path.join(share, name), "utf8");
  });
  const input = ["CREATE DATABASE IF NOT EXISTS mysql;", "USE mysql;", "SET @auth_root_socket=NULL;", ...sql, ""].join("\n");
  const unsafe = ["--innodb-flush-log-at-trx-commit=0", "--innodb-doublewrite=0", "--skip-sync-frm"];
  const args = [
    ...argumentsOf(program, folder),
    ...SETTINGS,
    ...unsafe,
    "--bootstrap",
    "--silent-startup",
    "--enforce-storage-engine=",
  ];
  const { status, stderr } = spawnSync(program.file, args, {
    input,
    encoding: "utf8",
    env: { ...process.env, ...program.env },
  });
  if (status !== 0) throw new Error(`MariaDB ${program.version} could not make its system tables:\n${stderr}`);
}

async function isReady(port: number, password: string): Promise<boolean> {
  try {
    const connection = await createConnection({ host: "127.0.0.1", port, user: "root", password, connectTimeout: 5_000 });
    await connection.query("SELECT 1");
    await connection.end();
    return true;
  } catch {
    return false;
  }
}
