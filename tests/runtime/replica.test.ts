import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { sql } from "kysely";
import { type Connection, createConnection } from "mysql2/promise";
import { systemClock } from "#runtime/clock.ts";
import { type Database, openDatabase, type TablesOf } from "#runtime/database/database.ts";
import { startMariadb } from "../../tools/stores/mariadb.ts";
import type { PrivateServer } from "../../tools/stores/private.ts";
import { quietLog, temporaryFolder } from "../support/database.ts";
import { Pot, pot, potMigrations } from "./pots.ts";

const PRIMARY = 1;
const REPLICA = 2;

describe("Reads that may be old", function () {
  this.timeout(30_000);
  const folder = temporaryFolder();
  let primary: PrivateServer;
  let replica: PrivateServer;
  let follower: Connection;
  let database: Database<TablesOf<readonly [typeof Pot]>>;

  const startReplica = (port?: number) =>
    startMariadb({
      folder: folder.path,
      password: "secret",
      ...(port === undefined ? {} : { port }),
      settings: [`--server-id=${REPLICA}`, "--read-only=1", "--slave-net-timeout=2"],
    });
  const adminOf = ({ url }: PrivateServer) => createConnection(url.replace(/^mariadb:/, "mysql:"));

  before(async () => {
    [primary, replica] = await Promise.all([
      startMariadb({ password: "secret", settings: ["--log-bin=souk", `--server-id=${PRIMARY}`, "--binlog-format=ROW"] }),
      startReplica(),
    ]);
    follower = await adminOf(replica);
    await follower.query(
      `change master to master_host = '127.0.0.1', master_port = ${primary.port}, master_user = 'root', master_password = 'secret', master_connect_retry = 1, master_use_gtid = slave_pos`,
    );
    await follower.query("start slave");
    const admin = await adminOf(primary);
    await admin.query("create database pots character set utf8mb4");
    await admin.query("create user pots@'%' identified by 'secret'");
    await admin.query("grant all on pots.* to pots@'%'");
    await admin.end();
    database = await openDatabase({
      service: "pots",
      url: `mariadb://pots:secret@127.0.0.1:${primary.port}/pots?replica=127.0.0.1:${replica.port}&stale=1`,
      entities: [Pot],
      migrations: potMigrations,
      clock: systemClock,
      log: quietLog,
    });
  });
  after(async () => {
    await database?.close();
    await follower?.end().catch(() => {});
    await Promise.all([primary?.stop(), replica?.stop()]);
    folder.remove();
  });

  const serverOf = async (stale = true) => {
    const { rows } = await sql<{ id: number }>`select @@server_id as id`.execute(stale ? database.stale : database.sql);
    return rows[0]?.id;
  };
  /** Reads until the server answers; every read on the way succeeds. */
  const until = async (server: number) => {
    while ((await serverOf()) !== server) await sleep(50);
  };

  it("are answered by the replica while it follows, and others never are", async () => {
    await until(REPLICA);
    assert.equal(await serverOf(false), PRIMARY);
    await database.transaction(async (tx) => {
      await tx.sql.insertInto("pot").values(pot("a", 7n)).execute();
    });
    for (;;) {
      const rows = await database.stale.selectFrom("pot").select(["pot_id", "balance_minor"]).execute();
      if (rows.length > 0) {
        assert.deepEqual(rows, [{ pot_id: "a", balance_minor: 7n }]);
        break;
      }
    }
  });

  it("change nothing, and stand alone", async () => {
    await assert.rejects(database.stale.deleteFrom("pot").execute(), /a select/);
    await assert.rejects(database.stale.startTransaction().execute(), /stand alone/);
    await assert.rejects(
      database.transaction(() => database.stale.selectFrom("pot").selectAll().execute()),
      /beside the open transaction/,
    );
  });

  it("are answered by the primary while the replica falls behind", async () => {
    await until(REPLICA);
    await follower.query("stop slave sql_thread");
    await until(PRIMARY);
    await follower.query("start slave sql_thread");
    await until(REPLICA);
  });

  it("fail no more than others when the replica hangs, dies, and comes back", async () => {
    await until(REPLICA);
    process.kill(replica.pid, "SIGSTOP");
    try {
      // Its threads stop one after another: a read that is under way may still be answered.
      await until(PRIMARY);
    } finally {
      process.kill(replica.pid, "SIGCONT");
    }
    await until(REPLICA);
    process.kill(replica.pid, "SIGKILL");
    await replica.exited;
    assert.equal(await serverOf(), PRIMARY);
    replica = await startReplica(replica.port);
    await until(REPLICA);
  });

  it("are the primary's where no replica is named", async () => {
    const {
      stale,
      sql: plain,
      close,
    } = await openDatabase({
      service: "pots",
      url: "sqlite::memory:",
      entities: [Pot],
      migrations: potMigrations,
      clock: systemClock,
      log: quietLog,
    }).then((opened) => ({ stale: opened.stale, sql: opened.sql, close: () => opened.close() }));
    assert.equal(stale, plain);
    await close();
  });
});
