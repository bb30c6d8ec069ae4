// `npm run migrate`: looks at the services' tables, brings them up to date, and takes migrations back.

import path from "node:path";
import { systemClock } from "#runtime/clock.ts";
import { type Config, ConfigError, readConfig } from "#runtime/config.ts";
import { runningOn } from "#runtime/data-dir.ts";
import { type Migrations, openMigrations } from "#runtime/database/migrating.ts";
import type { Back, MigrationStatus } from "#runtime/database/migrations.ts";
import { createLog } from "#runtime/log.ts";
import { type ServiceWithTables, TABLES } from "../services/tables.ts";
import { KEPT_FOLDER, startKept } from "./stores/kept.ts";

const HELP = `npm run migrate -- up|expand|down|status [services] [settings]

  up        brings the tables of all services, or of those named, up to date. Any number may do so at once:
            one works, the others wait; one that was interrupted is resumed
  expand    as up, without what removes something: before an upgrade, whose old processes may still use it.
            up runs the rest, when they have ended
  down      takes back the last migration of the services named. What would lose rows is refused
  status    shows where every migration stands, and changes nothing

Options of down
  --steps N    so many migrations
  --to NAME    all that ran after this one, such as 0001-orders; one service
  --runtime    those of the runtime's tables in the services' databases

The settings are those of npm start: SOUK_DATABASE_URL names the databases, --data-dir the folder of embedded ones;
npm start -- --help lists them. Back up first; docs/operations.md says how, and in which order to upgrade.
`;

const ALL = Object.keys(TABLES) as ServiceWithTables[];
const COMMANDS = ["up", "expand", "down", "status"] as const;

interface Wanted {
  readonly command: (typeof COMMANDS)[number];
  readonly services: readonly ServiceWithTables[];
  readonly whose: "service" | "runtime";
  readonly back: Back;
  /** The rest of the arguments. */
  readonly settings: readonly string[];
}

/**
 * What the arguments ask for.
 *
 * @throws ConfigError a sentence that says which is wrong.
 */
export function readWanted(argv: readonly string[]): Wanted | "help" {
  if (argv.includes("--help") || argv.includes("-h")) return "help";
  const [command, ...rest] = argv;
  if (command === undefined || !(COMMANDS as readonly string[]).includes(command)) {
    throw new ConfigError(
      `${command ?? "Nothing"} is not what npm run migrate can do: up, expand, down or status. --help says more.`,
    );
  }
  const services: ServiceWithTables[] = [];
  const settings: string[] = [];
  const options = new Map<string, string>();
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
    const [flag = "", attached] = word.split(/=(.*)/s);
    if (flag === "--runtime") options.set(flag, "");
    else if (flag === "--steps" || flag === "--to") options.set(flag, attached ?? rest.shift() ?? "");
    else if (isService(word)) services.push(word);
    else if (word.startsWith("-")) {
      const value =
        attached === undefined && rest[0] !== undefined && !rest[0].startsWith("-") && !isService(rest[0])
          ? [rest.shift() as string]
          : [];
      settings.push(word, ...value);
    } else throw new ConfigError(`No service "${word}" has tables. There are: ${ALL.join(", ")}.`);
  }
  if (command !== "down" && options.size > 0) throw new ConfigError(`${[...options.keys()].join(" and ")} belongs to down.`);
  if (command === "down" && services.length === 0)
    throw new ConfigError("Name the services whose last migration is to be taken back: npm run migrate -- down order");
  return {
    command: command as Wanted["command"],
    services: services.length === 0 ? ALL : ALL.filter((name) => services.includes(name)),
    whose: options.has("--runtime") ? "runtime" : "service",
    back: backOf(options, services.length),
    settings,
  };
}

function isService(word: string): word is ServiceWithTables {
  return Object.hasOwn(TABLES, word);
}

function backOf(options: ReadonlyMap<string, string>, services: number): Back {
  const to = options.get("--to");
  const steps = options.get("--steps");
  if (to !== undefined) {
    if (to === "" || steps !== undefined || services !== 1)
      throw new ConfigError("--to NAME goes back to one migration of one service, without --steps.");
    return { to };
  }
  if (steps !== undefined && !/^[1-9]\d{0,3}$/.test(steps))
    throw new ConfigError("--steps needs a number of migrations: --steps 1.");
  return { steps: Number(steps ?? 1) };
}

/** Where the databases are, and how to leave them. */
async function databasesOf(config: Config): Promise<{ urlOf: (service: string) => string; stop: () => Promise<void> }> {
  const { databaseUrl, dataDir, stores } = config;
  if (databaseUrl !== undefined) return { urlOf: (service) => databaseUrl.replaceAll("{service}", service), stop: async () => {} };
  const pid = runningOn(dataDir);
  if (pid !== undefined)
    throw new ConfigError(`A marketplace runs on ${dataDir} (process ${pid}), and its tables are that one's: end it first.`);
  if (stores === "embedded") return { urlOf: (service) => `sqlite:${path.join(dataDir, `${service}.db`)}`, stop: async () => {} };
  const kept = await startKept(path.join(dataDir, KEPT_FOLDER), ALL);
  return { urlOf: kept.databaseUrl, stop: kept.stop };
}

/** The table that `status` prints. */
export function tableOf(rows: readonly (MigrationStatus & { service: string })[]): string {
  const cells = [
    ["service", "migration", "state", "ran"],
    ...rows.map(({ service, owner, name, state, contracts, runTime }) => [
      service,
      owner === "runtime" ? `runtime/${name}` : name,
      contracts && state === "pending" ? "pending, contracts" : state,
      runTime === undefined ? "" : new Date(runTime).toISOString().replace(/\.\d+Z$/, "Z"),
    ]),
  ];
  const widths = [0, 1, 2, 3].map((column) => Math.max(...cells.map((row) => (row[column] as string).length)));
  return cells
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] as number))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

async function work(migrations: Migrations, service: string, { command, whose, back }: Wanted): Promise<string[]> {
  switch (command) {
    case "up":
    case "expand": {
      const ran = await migrations.up(command === "up" ? "all" : "expanding");
      return [`${service}: ${ran.length === 0 ? "up to date" : `ran ${ran.join(", ")}`}`];
    }
    case "down": {
      const undone = await migrations.down(whose, back);
      return [`${service}: ${undone.length === 0 ? "nothing to take back" : `took back ${undone.join(", ")}`}`];
    }
    case "status":
      return [];
  }
}

async function migrate(argv: readonly string[]): Promise<void> {
  const wanted = readWanted(argv);
  const services = [...ALL, "ops"];
  const read = wanted === "help" ? undefined : readConfig({ argv: wanted.settings, env: process.env, services, tablesOnly: true });
  if (wanted === "help" || read === undefined || "help" in read) {
    process.stdout.write(HELP);
    return;
  }
  const { config } = read;
  const log = createLog({ level: "warn", format: config.logFormat });
  const databases = await databasesOf(config);
  const status: (MigrationStatus & { service: string })[] = [];
  try {
    for (const service of wanted.services) {
      const migrations = await openMigrations({
        service,
        url: databases.urlOf(service),
        migrations: TABLES[service].migrations,
        clock: systemClock,
        log,
      });
      try {
        for (const line of await work(migrations, service, wanted)) console.log(line);
        if (wanted.command === "status") status.push(...(await migrations.status()).map((each) => ({ service, ...each })));
      } finally {
        await migrations.close();
      }
    }
  } finally {
    await databases.stop();
  }
  if (wanted.command === "status") console.log(tableOf(status));
}

if (import.meta.main) {
  try {
    await migrate(process.argv.slice(2));
  } catch (error) {
    process.exitCode = error instanceof ConfigError ? 2 : 1;
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
  }
}
