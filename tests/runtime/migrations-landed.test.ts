import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { sql } from "kysely";
import { systemClock } from "#runtime/clock.ts";
import { openDatabase } from "#runtime/database/database.ts";
import { openMigrations } from "#runtime/database/migrating.ts";
import { type ServiceWithTables, TABLES } from "../../services/tables.ts";
import { findLanded, unpackCommit } from "../../tools/checks/landed.ts";
import { quietLog, temporaryFolder } from "../support/database.ts";
import { emptyDatabases } from "../support/mariadb.ts";
import { ROOT, shell } from "../support/process.ts";

const SERVICES = Object.keys(TABLES) as ServiceWithTables[];

/** The code of a commit, with this tree's packages. */
async function unpack(commit: string, folder: string): Promise<void> {
  await unpackCommit(commit, folder);
  symlinkSync(join(ROOT, "node_modules"), join(folder, "node_modules"));
}

/** Brings all tables to where this tree's code wants them. */
async function migrateAll(urlOf: (service: string) => string): Promise<void> {
  await Promise.all(
    SERVICES.map(async (service) => {
      const { migrations } = TABLES[service];
      const opened = await openMigrations({ service, url: urlOf(service), migrations, clock: systemClock, log: quietLog });
      await opened.up();
      await opened.close();
    }),
  );
}

/** The first program that landed still refused tables on which migrations ran that it does not know. */
async function hideFrom(landed: string, urlOf: (service: string) => string): Promise<void> {
  const file = join(landed, "runtime/database/migrations.ts");
  if (!/which this program does not know/.test(readFileSync(file, "utf8"))) return;
  for (const service of SERVICES) {
    const own = [
      ...(await import(join(landed, `services/${service}/migrations/index.ts`))).migrations,
      ...(await import(join(landed, "runtime/database/tables.ts"))).runtimeMigrations,
    ].map(({ name }: { name: string }) => name);
    const { migrations } = TABLES[service];
    const database = await openDatabase({
      service,
      url: urlOf(service),
      entities: [],
      migrations,
      clock: systemClock,
      log: quietLog,
    });
    await sql`delete from migration where name not in (${sql.join(own)})`.execute(database.sql);
    await database.close();
  }
}

/** Starts the code of the folder, and resolves with where it listens. */
async function start(folder: string, env: NodeJS.ProcessEnv): Promise<{ url: string; child: ChildProcess }> {
  const others = Object.entries(process.env).filter(([name]) => !name.startsWith("SOUK_"));
  const child = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", "tools/start.ts", "--port", "0"], {
    cwd: folder,
    env: { ...Object.fromEntries(others), SOUK_LOG_LEVEL: "error", ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  const url = await new Promise<string>((resolve, reject) => {
    const take = (chunk: Buffer) => {
      output += chunk;
      const found = /Souk listens on (\S+),/.exec(output)?.[1];
      if (found !== undefined) resolve(found);
    };
    child.stdout.on("data", take);
    child.stderr.on("data", take);
    child.once("exit", (code) => reject(new Error(`The landed program ended with ${code}:\n${output}`)));
  });
  return { url, child };
}

describe("The code that landed last, on the tables of this code,", function () {
  this.timeout(60_000);
  const landed = temporaryFolder();
  let commit: string | undefined;

  before(async () => {
    const found = await findLanded();
    if ("commit" in found) {
      commit = found.commit;
      await unpack(commit, landed.path);
    }
  });
  after(() => landed.remove());

  /** What the landed README shows, from finding a listing to the payout, on tables that are newer than the code. */
  async function purchase(dataDir: string, urlOf: (service: string) => string, env: NodeJS.ProcessEnv): Promise<void> {
    await migrateAll(urlOf);
    await hideFrom(landed.path, urlOf);
    const { url, child } = await start(landed.path, { SOUK_DATA_DIR: dataDir, ...env });
    try {
      const readme = readFileSync(join(landed.path, "README.md"), "utf8");
      const lines = [...readme.matchAll(/^```sh\n(.*?)^```$/gms)].map((match) => match[1]).join("\n");
      const output = await shell(lines, { SOUK_URL: url, SOUK_DATA_DIR: dataDir });
      const answers = output
        .split("\n")
        .filter((line) => line !== "")
        .map((line) => JSON.parse(line));
      assert.ok(answers.length >= 5, output);
      for (const answer of answers) assert.equal(answer.code, undefined, output);
      assert.equal(answers.at(-1).balanced, true, output);
    } finally {
      child.kill("SIGTERM");
      await once(child, "exit");
    }
  }

  it("sells, pays out and keeps the books on SQLite", async () => {
    if (commit === undefined) return;
    const folder = temporaryFolder();
    await purchase(folder.path, (service) => `sqlite:${join(folder.path, `${service}.db`)}`, {});
    folder.remove();
  });

  it("sells, pays out and keeps the books on MariaDB, where it knows it", async () => {
    if (commit === undefined || !existsSync(join(landed.path, "runtime/database/mysql.ts"))) return;
    const folder = temporaryFolder();
    const place = await emptyDatabases(SERVICES);
    try {
      await purchase(folder.path, (service) => place.url.replaceAll("{service}", service), { SOUK_DATABASE_URL: place.url });
    } finally {
      await place.remove();
      folder.remove();
    }
  });
});
