import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type Kysely, type QueryExecutorProvider, sql } from "kysely";
import { systemClock } from "#runtime/clock.ts";
import { openDatabase } from "#runtime/database/database.ts";
import { openMigrations } from "#runtime/database/migrating.ts";
import type { Migration } from "#runtime/database/migrations.ts";
import { readWanted, tableOf } from "../../tools/migrate.ts";
import { quietLog, temporaryFolder } from "../support/database.ts";
import { emptyDatabase, emptyDatabases } from "../support/mariadb.ts";
import { ROOT } from "../support/process.ts";
import { potMigrations } from "./pots.ts";

const SERVICES = ["account", "catalog", "inventory", "order", "payment", "search"];

async function fileDatabase(service: string): Promise<{ url: string; remove(): Promise<void> }> {
  const folder = temporaryFolder();
  return { url: `sqlite:${join(folder.path, `${service}.db`)}`, remove: async () => folder.remove() };
}

for (const { store, emptyPlace } of [
  { store: "SQLite", emptyPlace: fileDatabase },
  { store: "MariaDB", emptyPlace: emptyDatabase },
]) {
  describe(`Migrations on ${store}`, () => {
    let place: Awaited<ReturnType<typeof emptyPlace>>;

    beforeEach(async () => {
      place = await emptyPlace("pots");
    });
    afterEach(() => place.remove());

    const open = (migrations: readonly Migration[], migrate = true) =>
      openDatabase({ service: "pots", url: place.url, entities: [], migrations, migrate, clock: systemClock, log: quietLog });
    const look = (migrations: readonly Migration[]) =>
      openMigrations({ service: "pots", url: place.url, migrations, clock: systemClock, log: quietLog });
    const statesOf = async (migrations: readonly Migration[]) => {
      const opened = await look(migrations);
      const status = await opened.status();
      await opened.close();
      return status.map(({ owner, name, state }) => `${owner}/${name} ${state}`);
    };
    const count = async (db: QueryExecutorProvider, table: string) =>
      (await sql<{ n: number }>`select count(*) as n from ${sql.table(table)}`.execute(db)).rows[0]?.n;

    const spout: Migration = {
      name: "0002-spout",
      up: async (db) => {
        await db.schema
          .createTable("spout")
          .addColumn("spout_id", "varchar(36)", (c) => c.primaryKey())
          .execute();
        await db.schema
          .createTable("lid")
          .addColumn("lid_id", "varchar(36)", (c) => c.primaryKey())
          .execute();
      },
      down: async (db) => {
        await db.schema.dropTable("spout").execute();
        await db.schema.dropTable("lid").execute();
      },
    };
    const both = [...potMigrations, spout];

    it("are run by up, shown by status and taken back by down, the last one first", async () => {
      assert.deepEqual(await statesOf(both), ["runtime/0001-runtime pending", "pots/0001-pot pending", "pots/0002-spout pending"]);
      const migrations = await look(both);
      assert.deepEqual(await migrations.up(), ["0001-runtime", "0001-pot", "0002-spout"]);
      assert.deepEqual(await migrations.up(), []);
      assert.deepEqual(await migrations.down("service", { steps: 1 }), ["0002-spout"]);
      assert.deepEqual(await migrations.up(), ["0002-spout"]);
      assert.deepEqual(await migrations.down("service", { to: "0001-pot" }), ["0002-spout"]);
      assert.deepEqual(await migrations.down("service", { steps: 9 }), ["0001-pot"]);
      assert.deepEqual(await migrations.up(), ["0001-pot", "0002-spout"]);
      await migrations.close();
    });

    it("are refused by down where rows would be lost, or where one says that it cannot be undone", async () => {
      const database = await open(potMigrations);
      await sql`insert into pot (pot_id, title, balance_minor, create_time) values ('a', 'A pot', 1, 1)`.execute(database.sql);
      const migrations = await look(potMigrations);
      await assert.rejects(migrations.down("service", { steps: 1 }), /"pot" holds 1 rows/);
      await assert.rejects(migrations.down("runtime", { steps: 1 }), /cannot be undone/);
      await assert.rejects(migrations.down("service", { to: "0000-none" }), /has not run here/);
      assert.deepEqual(await statesOf(potMigrations), ["runtime/0001-runtime done", "pots/0001-pot done"]);
      assert.equal(await count(database.sql, "pot"), 1);
      await migrations.close();
      await database.close();
    });

    it("that only a newer program knows are left alone: it runs beside the older one, which takes none of them back", async () => {
      const newer = await open(both);
      const older = await open(potMigrations, false);
      assert.equal(await count(older.sql, "pot"), 0);
      assert.deepEqual((await statesOf(potMigrations)).at(-1), "pots/0002-spout unknown");
      const migrations = await look(potMigrations);
      await assert.rejects(migrations.down("service", { steps: 1 }), /0002-spout.* newer program/);
      await Promise.all([migrations.close(), older.close(), newer.close()]);
    });

    it("that contract are left by expand for later, and a program runs on the tables before and after them", async () => {
      const contract: Migration = {
        name: "0002-no-title",
        contracts: true,
        up: async (db) => void (await db.schema.alterTable("pot").dropColumn("title").execute()),
        down: "the titles are gone.",
      };
      const next: Migration = { ...spout, name: "0003-spout" };
      await (await open(potMigrations)).close();
      const old = await open(potMigrations, false);
      const list = [...potMigrations, contract, next];
      await assert.rejects(open(list, false), /: 0003-spout must run/);
      const migrations = await look(list);
      assert.deepEqual(await migrations.up("expanding"), ["0003-spout"]);
      assert.deepEqual(await migrations.up("expanding"), []);
      await sql`insert into pot (pot_id, title, balance_minor, create_time) values ('a', 'A pot', 1, 1)`.execute(old.sql);
      await old.close();
      const program = await open(list, false);
      assert.deepEqual((await statesOf(list)).slice(-2), ["pots/0002-no-title pending", "pots/0003-spout done"]);
      assert.deepEqual(await migrations.up(), ["0002-no-title"]);
      assert.equal(await count(program.sql, "pot"), 1);
      await assert.rejects(sql`select title from pot`.execute(program.sql));
      await Promise.all([program.close(), migrations.close()]);
      await (await open(list, false)).close();
    });

    it("that contract are run by a start that may change tables", async () => {
      const contract: Migration = { name: "0002-none", contracts: true, up: async () => {}, down: async () => {} };
      await (await open(potMigrations)).close();
      await (await open([...potMigrations, contract])).close();
      assert.equal((await statesOf([...potMigrations, contract])).at(-1), "pots/0002-none done");
    });

    it("that have not run are named by a start that may not run them, with what to do", async () => {
      await assert.rejects(
        open(both, false),
        /older than this program: 0001-runtime, 0001-pot, 0002-spout .*npm run migrate -- up pots/,
      );
      await (await open(potMigrations)).close();
      await assert.rejects(open(both, false), /: 0002-spout must run/);
      await (await open(both)).close();
      await (await open(both, false)).close();
    });

    it("are finished by the next up after an interruption, whichever way they were going", async () => {
      const broken = (after: number): Migration => {
        const breaking = (work: (db: Kysely<unknown>) => Promise<void>) => async (db: Kysely<unknown>) => {
          let left = after;
          const stop = () => {
            if (left-- === 0) throw Object.assign(new Error("interrupted"), { errno: 2013 });
          };
          const schema = new Proxy(db.schema, {
            get: (target, name: "createTable" | "dropTable") => {
              stop();
              return target[name].bind(target);
            },
          });
          await work(Object.create(db, { schema: { value: schema } }));
        };
        return { name: spout.name, up: breaking(spout.up), down: breaking(spout.down as typeof spout.up) };
      };
      for (const after of [0, 1]) {
        await assert.rejects(open([...potMigrations, broken(after)]), /interrupted/);
        await (await open(both)).close();
        const migrations = await look([...potMigrations, broken(after)]);
        await assert.rejects(migrations.down("service", { steps: 1 }), /interrupted/);
        await migrations.close();
        const database = await open(both);
        assert.deepEqual([await count(database.sql, "spout"), await count(database.sql, "lid")], [0, 0]);
        await database.close();
        const mended = await look(both);
        await mended.down("service", { steps: 1 });
        await mended.close();
      }
    });
  });
}

describe("npm run migrate", function () {
  this.timeout(60_000);
  let place: Awaited<ReturnType<typeof emptyDatabases>>;

  beforeEach(async () => {
    place = await emptyDatabases(SERVICES);
  });
  afterEach(() => place.remove());

  const start = (...args: string[]) =>
    spawn(process.execPath, ["--disable-warning=ExperimentalWarning", "tools/migrate.ts", ...args], {
      cwd: ROOT,
      env: { ...process.env, SOUK_DATABASE_URL: place.url },
      stdio: ["ignore", "pipe", "pipe"],
    });
  /** All that it says, until it ends by itself, or by a signal once it has said `until`. */
  const ended = async (child: ChildProcess, until?: string) => {
    let out = "";
    const take = (chunk: Buffer) => {
      const before = out;
      out += chunk;
      if (until !== undefined && out.includes(until) && !before.includes(until)) child.kill("SIGTERM");
    };
    child.stdout?.on("data", take);
    child.stderr?.on("data", take);
    const [code] = await once(child, "close");
    return { code, out };
  };

  it("runs each migration once when four do it at once, also after two of them were killed on the way", async () => {
    const killed = [start("up"), start("up")];
    await sleep(500 + Math.random() * 300);
    for (const child of killed) child.kill("SIGKILL");
    const all = await Promise.all([1, 2, 3, 4].map(() => ended(start("up"))));
    assert.deepEqual(
      all.map(({ code, out }) => [code, code === 0 ? "" : out]),
      all.map(() => [0, ""]),
    );
    const ran = all.flatMap(({ out }) => out.split("\n").filter((line) => line.startsWith("order: ran")));
    assert.ok(ran.length <= 1, ran.join("\n"));
    const status = await ended(start("status"));
    assert.equal(status.code, 0);
    const rows = status.out.trim().split("\n").slice(1);
    assert.ok(rows.length >= 2 * SERVICES.length);
    for (const row of rows) assert.match(row, / done +\d{4}-\d\d-\d\dT/);
  });

  it("is what a start asks for that may not change tables, and after it the start goes on", async () => {
    const folder = temporaryFolder();
    const serve = () =>
      spawn(
        process.execPath,
        ["--disable-warning=ExperimentalWarning", "services/main.ts", "--port", "0", "--log-format", "json"],
        {
          cwd: ROOT,
          env: { ...process.env, SOUK_DATABASE_URL: place.url, SOUK_DATA_DIR: folder.path, SOUK_MIGRATE: "false" },
          stdio: ["ignore", "pipe", "pipe"],
        },
      );
    const refused = await ended(serve());
    assert.equal(refused.code, 1);
    assert.match(refused.out, /^the tables of "\w+" are older than this program: .*npm run migrate -- up \w+\n$/);
    assert.equal((await ended(start("up"))).code, 0);
    const { code, out } = await ended(serve(), '"msg":"ready"');
    assert.equal(code, 0, out);
    assert.match(out, /"msg":"ready"/);
    folder.remove();
  });

  it("says in one sentence what is wrong with its arguments", () => {
    for (const [args, problem] of [
      [[], /up, expand, down or status/],
      [["sideways"], /sideways is not what/],
      [["up", "shop"], /No service "shop" has tables/],
      [["down"], /Name the services/],
      [["up", "--steps", "2"], /belongs to down/],
      [["expand", "--runtime"], /belongs to down/],
      [["down", "order", "--steps", "0"], /--steps needs a number/],
      [["down", "order", "payment", "--to", "0001-orders"], /one service/],
    ] as const) {
      assert.throws(() => readWanted(args), problem);
    }
    assert.deepEqual(readWanted(["down", "order", "--steps=2", "--data-dir", "x"]), {
      command: "down",
      services: ["order"],
      whose: "service",
      back: { steps: 2 },
      settings: ["--data-dir", "x"],
    });
  });

  it("shows where each stands as a table", () => {
    const row = { service: "order", owner: "order", name: "0001-orders", contracts: false } as const;
    assert.equal(
      tableOf([
        { ...row, state: "done", runTime: 0 },
        { ...row, owner: "runtime", state: "pending", runTime: undefined },
        { ...row, name: "0002-less", contracts: true, state: "pending", runTime: undefined },
      ]),
      [
        "service  migration            state               ran",
        "order    0001-orders          done                1970-01-01T00:00:00Z",
        "order    runtime/0001-orders  pending",
        "order    0002-less            pending, contracts",
      ].join("\n"),
    );
  });
});
