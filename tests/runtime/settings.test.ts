import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { Redis } from "ioredis";
import { sql } from "kysely";
import { type Connection, createConnection } from "mysql2/promise";
import pino from "pino";
import { systemClock } from "#runtime/clock.ts";
import { openDatabase } from "#runtime/database/database.ts";
import { reasonOf } from "#runtime/errors.ts";
import { openRedis, redisProblems, redisReady } from "#runtime/redis.ts";
import { startMariadb } from "../../tools/stores/mariadb.ts";
import type { PrivateServer } from "../../tools/stores/private.ts";
import { startRedis } from "../../tools/stores/redis.ts";
import { quietLog, temporaryFolder } from "../support/database.ts";
import { Pot, potMigrations } from "./pots.ts";

/** Opens a database and gives what was warned of. */
async function open(url: string, options: { migrate?: boolean; together?: number } = {}): Promise<string[]> {
  const warnings: string[] = [];
  const log = pino({ level: "warn" }, { write: (line) => void warnings.push(JSON.parse(line).msg) });
  const database = await openDatabase({
    service: "pots",
    url,
    entities: [Pot],
    migrations: potMigrations,
    clock: systemClock,
    log,
    ...options,
  });
  await database.close();
  return warnings;
}

function openPots(url: string) {
  return openDatabase({ service: "pots", url, entities: [Pot], migrations: potMigrations, clock: systemClock, log: quietLog });
}

async function adminOf({ url }: PrivateServer): Promise<Connection> {
  return createConnection(url.replace(/^mariadb:/, "mysql:"));
}

/** An empty database, with a user who has these rights on it. */
async function place(server: PrivateServer, admin: Connection, rights = "all"): Promise<{ url: URL; name: string }> {
  const name = `pots_${randomBytes(4).toString("hex")}`;
  await admin.query(`create database ${name} character set utf8mb4`);
  await admin.query(`create user ${name}@'%' identified by 'secret'`);
  await admin.query(`grant ${rights} on ${name}.* to ${name}@'%'`);
  return { url: new URL(`mariadb://${name}:secret@127.0.0.1:${server.port}/${name}`), name };
}

describe("A start on MariaDB names what is wrong, with what to do:", function () {
  this.timeout(30_000);
  let server: PrivateServer;
  let admin: Connection;
  /** A database that is as it should be. */
  let ready: Awaited<ReturnType<typeof place>>;

  before(async () => {
    server = await startMariadb({ settings: ["--log-bin=souk", "--server-id=1", "--binlog-format=ROW", "--sync-binlog=1"] });
    admin = await adminOf(server);
    ready = await place(server, admin);
    await open(ready.url.href);
  });
  after(async () => {
    await admin?.end();
    await server?.stop();
  });

  /** Sets a variable of the server for the time of the work. */
  async function withSetting<T>(name: string, value: string, work: () => Promise<T>): Promise<T> {
    const [rows] = await admin.query(`select @@global.${name} as before_it`);
    const { before_it: before } = (rows as { before_it: number | string }[])[0] as { before_it: number | string };
    await admin.query(`set global ${name} = ${value}`);
    try {
      return await work();
    } finally {
      await admin.query(`set global ${name} = ${typeof before === "string" ? admin.escape(before) : before}`);
    }
  }

  it("nothing, where nothing is", async () => {
    const { url } = ready;
    assert.deepEqual(await open(url.href), []);
    assert.deepEqual(await open(url.href, { migrate: false }), []);
  });

  it("a wrong password, a user who does not exist", async () => {
    const { url } = await place(server, admin);
    url.password = "wrong";
    await assert.rejects(open(url.href), /refuses the user or the password/);
    url.username = "nobody";
    await assert.rejects(
      open(url.href),
      (error: Error) => /nobody@.* refuses the user/.test(error.message) && !/wrong/.test(error.message),
    );
  });

  it("a database that is missing, or somebody else's", async () => {
    const { url, name } = await place(server, admin);
    url.pathname = "/nothing_here";
    await assert.rejects(open(url.href), /has no rights on this database: grant all/);
    await admin.query(`grant all on nothing_here.* to ${name}@'%'`);
    await assert.rejects(open(url.href), /no such database: create it first/);
  });

  it("a missing right, of changing tables and of changing rows", async () => {
    const reader = await place(server, admin, "select");
    await assert.rejects(open(reader.url.href), /lacks a right: CREATE command denied.* Grant all/);
    const { url, name } = await place(server, admin);
    await open(url.href);
    for (const right of ["delete", "update", "insert"]) {
      await admin.query(`revoke ${right} on ${name}.* from ${name}@'%'`);
      await assert.rejects(open(url.href), new RegExp(`lacks a right: ${right} command denied`, "i"));
    }
  });

  it("rows and no tables are enough rights where migrations run elsewhere", async () => {
    const { url } = await place(server, admin, "usage");
    await admin.query(`grant select, insert, update, delete on ${ready.name}.* to ${url.username}@'%'`);
    url.pathname = ready.url.pathname;
    assert.deepEqual(await open(url.href, { migrate: false }), []);
  });

  it("tables that are older than the program", async () => {
    const { url } = await place(server, admin);
    await assert.rejects(open(url.href, { migrate: false }), /older than this program.* npm run migrate -- up pots/);
  });

  it("a server of another kind", async () => {
    const { url } = ready;
    await assert.rejects(open(url.href.replace("mariadb:", "mysql:")), /begins with mariadb:\/\//);
  });

  it("a server that is too old", async () => {
    const old = await startMariadb({ settings: ["--version=10.5.27-MariaDB"] });
    try {
      const connection = await adminOf(old);
      const { url } = await place(old, connection);
      await connection.end();
      await assert.rejects(open(url.href), /version 10\.5\.27.*10\.6/);
    } finally {
      await old.stop();
    }
  });

  it("no server", async () => {
    await assert.rejects(open("mariadb://a:b@127.0.0.1:1/c"), /no server answers there \(ECONNREFUSED\)/);
  });

  it("a clock that differs by more than 5 s, either way", async () => {
    const { url } = ready;
    const skewed = (ms: number) =>
      withSetting("init_connect", `'set timestamp = ${(Date.now() + ms) / 1000}'`, () => open(url.href));
    await assert.rejects(skewed(8_000), /clock .* ahead of .* time servers/);
    await assert.rejects(skewed(-8_000), /clock .* behind /);
    assert.deepEqual(await skewed(-2_000), []);
  });

  it("a server that is read-only", async () => {
    const { url } = ready;
    await withSetting("read_only", "1", () => assert.rejects(open(url.href), /is read-only: name the primary/));
  });

  it("a binary log that refuses READ COMMITTED", async () => {
    const { url } = ready;
    await withSetting("binlog_format", "'STATEMENT'", () => assert.rejects(open(url.href), /binlog_format = STATEMENT.* ROW/));
  });

  it("fewer connections than this process may want", async () => {
    const { url, name } = ready;
    await withSetting("max_connections", "40", async () => {
      await assert.rejects(open(`${url.href}?pool=50`), /takes 40 connections.* may want 50/);
      await assert.rejects(open(url.href, { together: 6 }), /takes 40 connections.* may want 60/);
      await open(url.href);
    });
    await admin.query(`alter user ${name}@'%' with max_user_connections 3`);
    await assert.rejects(open(url.href), /3 connections of this user/);
    await admin.query(`alter user ${name}@'%' with max_user_connections 0`);
  });

  it("settings under which what was acknowledged may be lost are warned of", async () => {
    const { url } = ready;
    const warnings = await withSetting("innodb_flush_log_at_trx_commit", "2", () =>
      withSetting("sync_binlog", "0", () => withSetting("max_allowed_packet", "1048576", () => open(url.href))),
    );
    assert.equal(warnings.length, 3);
    assert.match(warnings[0] as string, /innodb_flush_log_at_trx_commit = 1/);
    assert.match(warnings[1] as string, /sync_binlog = 1/);
    assert.match(warnings[2] as string, /max_allowed_packet/);
  });

  it("tables are InnoDB's whatever the server's default, and one that is not is refused, as is one that compares keys loosely", async () => {
    const { url, name } = await place(server, admin);
    await withSetting("default_storage_engine", "'Aria'", () => open(url.href));
    await admin.query(`alter table ${name}.pot engine = Aria`);
    await assert.rejects(open(url.href), /"pot" .* Aria.*alter table pot engine = InnoDB/);
    await admin.query(`alter table ${name}.pot engine = InnoDB`);
    await admin.query(`alter table ${name}.pot convert to character set utf8mb4 collate utf8mb4_unicode_ci`);
    await assert.rejects(open(url.href), /"pot" .* utf8mb4_unicode_ci/);
  });
});

describe("A database whose server is lost", function () {
  this.timeout(30_000);

  it("answers plain reads UNAVAILABLE, and reads again once the server is back", async () => {
    const folder = temporaryFolder();
    const first = await startMariadb({ folder: folder.path });
    const admin = await adminOf(first);
    const { url } = await place(first, admin);
    await admin.end();
    const database = await openPots(url.href);
    let second: PrivateServer | undefined;
    try {
      const isUnavailable = (error: unknown) => reasonOf(error) === "UNAVAILABLE";
      const reads = [
        () => database.sql.selectFrom("pot").selectAll().execute(),
        () => database.read((em) => em.find(Pot, {})),
        () => database.transaction((tx) => tx.sql.selectFrom("pot").selectAll().execute()),
      ];
      await first.stop();
      for (const read of reads) await assert.rejects(read(), isUnavailable);
      second = await startMariadb({ folder: folder.path, port: first.port });
      for (const read of reads) assert.deepEqual(await read(), []);
    } finally {
      await database.close();
      await second?.stop();
      folder.remove();
    }
  });

  it("loses no place in its pool to transactions that could not begin", async () => {
    const server = await startMariadb();
    const admin = await adminOf(server);
    const { url, name } = await place(server, admin);
    const database = await openPots(`${url.href}?pool=2`);
    try {
      for (let round = 0; round < 4; round++) {
        // Both connections are there and dead when the next transactions begin on them.
        await Promise.all([1, 2].map(() => database.transaction((tx) => sql`do sleep(0.01)`.execute(tx.sql))));
        const [rows] = await admin.query("select id from information_schema.processlist where user = ?", [name]);
        for (const { id } of rows as { id: number }[]) await admin.query(`kill ${id}`);
        await Promise.allSettled([1, 2, 3].map(() => database.transaction(async () => {}, { deadline: Date.now() + 5_000 })));
      }
      await Promise.all([1, 2].map(() => database.transaction(async () => {}, { deadline: Date.now() + 5_000 })));
    } finally {
      await database.close();
      await admin.end();
      await server.stop();
    }
  });
});

describe("A start on Redis names what is wrong, with what to do:", function () {
  this.timeout(30_000);
  let server: PrivateServer;
  let admin: Redis;

  before(async () => {
    server = await startRedis();
    admin = new Redis(server.url);
  });
  after(async () => {
    admin?.disconnect();
    await server?.stop();
  });

  async function problems(url = server.url, now?: () => number): Promise<string[]> {
    const client = openRedis({ url, log: quietLog, name: "test" });
    try {
      await redisReady(client, 5_000);
      return await redisProblems(client, now);
    } finally {
      client.disconnect();
    }
  }

  it("nothing, where nothing is", async () => {
    assert.deepEqual(await problems(), []);
  });

  it("a wrong password", async () => {
    await assert.rejects(problems(server.url.replace(/:[^:@]+@/, ":wrong@")), /WRONGPASS/);
  });

  it("one that evicts what it holds", async () => {
    await admin.config("SET", "maxmemory-policy", "allkeys-lru");
    const found = await problems();
    await admin.config("SET", "maxmemory-policy", "noeviction");
    assert.equal(found.length, 1);
    assert.match(found[0] as string, /allkeys-lru.* noeviction/);
  });

  it("one that keeps nothing over a restart", async () => {
    await admin.config("SET", "appendonly", "no");
    const found = await problems();
    await admin.config("SET", "appendonly", "yes");
    assert.equal(found.length, 1);
    assert.match(found[0] as string, /appendonly yes/);
  });

  it("a replica, which takes no writes", async () => {
    const replica = await startRedis();
    try {
      const password = new URL(server.url).password;
      const connection = new Redis(replica.url);
      await connection.config("SET", "masterauth", password);
      await connection.replicaof("127.0.0.1", server.port);
      connection.disconnect();
      const found = await problems(replica.url);
      assert.equal(found.length, 1);
      assert.match(found[0] as string, /replica.* primary/);
    } finally {
      await replica.stop();
    }
  });

  it("a clock that differs by more than 5 s", async () => {
    const found = await problems(server.url, () => Date.now() + 8_000);
    assert.equal(found.length, 1);
    assert.match(found[0] as string, /clock.* 8\.\d s behind.* time servers/);
  });
});
