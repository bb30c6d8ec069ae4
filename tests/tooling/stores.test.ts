import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Redis } from "ioredis";
import { createConnection } from "mysql2/promise";
import { startMariadb } from "../../tools/stores/mariadb.ts";
import { startRedis } from "../../tools/stores/redis.ts";
import { startStores } from "../../tools/stores/stores.ts";
import { temporaryFolder } from "../support/database.ts";
import { ROOT } from "../support/process.ts";
import { testStores } from "../support/stores.ts";

const connect = (url: string) => createConnection(url.replace(/^mariadb:/, "mysql:"));

async function reply(url: string, ...command: [string, ...string[]]): Promise<unknown> {
  const redis = new Redis(url);
  const answer = await redis.call(...command);
  redis.disconnect();
  return answer;
}

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

describe("the stores of the tests", () => {
  it("give each service a database that no other service's user can read", async () => {
    const stores = await testStores();
    const [mine, other] = [await stores.createDatabase("order"), await stores.createDatabase("payment")];
    const connection = await connect(mine);
    await connection.query("CREATE TABLE t (id INT PRIMARY KEY)");
    const theirs = new URL(other).pathname.slice(1);
    await assert.rejects(connection.query(`USE ${theirs}`), { code: "ER_DBACCESS_DENIED_ERROR" });
    await connection.end();
  });

  it("keep what they acknowledge: a commit is on disk, Redis evicts nothing", async () => {
    const stores = await testStores();
    const connection = await connect(stores.mysqlAdminUrl);
    const [rows] = await connection.query("SELECT @@innodb_flush_log_at_trx_commit AS flush");
    assert.deepEqual(rows, [{ flush: 1 }]);
    await connection.end();
    const policy = await reply(stores.redisUrl, "CONFIG", "GET", "maxmemory-policy");
    assert.match(JSON.stringify(policy), /noeviction/);
    assert.match(String(await reply(stores.redisUrl, "INFO", "persistence")), /aof_enabled:1/);
  });

  it("are only used where the environment names them, and left without our databases", async () => {
    const { mysqlAdminUrl, redisUrl } = await testStores();
    const named = await startStores({}, { SOUK_TEST_MYSQL_URL: mysqlAdminUrl, SOUK_TEST_REDIS_URL: redisUrl });
    assert.equal(named.redisUrl, redisUrl);
    const url = await named.createDatabase("order");
    await named.stop();
    await assert.rejects(connect(url), { code: "ER_ACCESS_DENIED_ERROR" });
    const connection = await connect(mysqlAdminUrl);
    await connection.end();
  });

  it("end with the process that started them, even by SIGKILL, and leave no files", async () => {
    const folder = temporaryFolder();
    const script = `
      const { startMariadb } = await import("./tools/stores/mariadb.ts");
      const { startRedis } = await import("./tools/stores/redis.ts");
      const both = await Promise.all([startMariadb(), startRedis()]);
      console.log(JSON.stringify(both.map(({ pid }) => pid)));
      setInterval(() => {}, 1000);`;
    const child = spawn(process.execPath, ["--input-type=module", "-e", script], {
      cwd: ROOT,
      env: { ...process.env, TMPDIR: folder.path },
      stdio: ["ignore", "pipe", "inherit"],
    });
    try {
      const [line] = await once(child.stdout.setEncoding("utf8"), "data");
      const pids: number[] = JSON.parse(line);
      assert.ok(pids.every(isAlive));
      assert.equal(readdirSync(folder.path).length, 2);
      child.kill("SIGKILL");
      const end = Date.now() + 10_000;
      while (readdirSync(folder.path).length > 0 && Date.now() < end) await sleep(20);
      assert.deepEqual(pids.filter(isAlive), []);
      assert.deepEqual(readdirSync(folder.path), []);
    } finally {
      child.kill("SIGKILL");
      folder.remove();
    }
  });

  it("have on the same folder and port what they had acknowledged before they were killed", async () => {
    const folder = temporaryFolder();
    try {
      const home = { folder: join(folder.path, "mariadb"), password: "secret" };
      const first = await startMariadb(home);
      const writer = await connect(`${first.url}/mysql`);
      writer.on("error", () => undefined);
      await writer.query("CREATE DATABASE d");
      await writer.query("CREATE TABLE d.t (id INT PRIMARY KEY)");
      await writer.query("INSERT INTO d.t VALUES (7)");
      process.kill(first.pid, "SIGKILL");
      await first.exited;
      const second = await startMariadb({ ...home, port: first.port });
      assert.equal(second.url, first.url);
      const reader = await connect(second.url);
      assert.deepEqual((await reader.query("SELECT id FROM d.t"))[0], [{ id: 7 }]);
      await reader.end();
      await second.stop();
      assert.ok(existsSync(join(home.folder, "data")));
    } finally {
      folder.remove();
    }
  });

  it("come back empty when a test wants a Redis that lost everything", async () => {
    const first = await startRedis({ password: "secret" });
    await reply(first.url, "SET", "key", "value");
    await first.stop();
    const second = await startRedis({ password: "secret", port: first.port });
    assert.equal(await reply(second.url, "GET", "key"), null);
    await second.stop();
  });

  it("say in one sentence what to install, or which variable to set, where they cannot be had", () => {
    const script = `
      process.env.PATH = "/nowhere";
      const { findProgram } = await import("./tools/stores/programs.ts");
      for (const store of ["MariaDB", "Redis", "MariaDB client", "Chromium"]) {
        try { findProgram(store, { folders: [], cache: "/nowhere" }); } catch (error) { console.log(error.name, error.message); }
      }`;
    const { stdout } = spawnSync(process.execPath, ["--input-type=module", "-e", script], { cwd: ROOT, encoding: "utf8" });
    const [mariadb, redis, client, browser] = stdout.split("\n");
    assert.match(mariadb ?? "", /^StoresMissing .*apt install mariadb-server-core.*SOUK_TEST_MYSQL_URL/);
    assert.match(redis ?? "", /^StoresMissing .*apt install redis-server.*SOUK_TEST_REDIS_URL/);
    assert.match(client ?? "", /^StoresMissing .*apt install mariadb-client;/);
    assert.match(
      browser ?? "",
      /^StoresMissing .*apt install chromium-headless-shell; on macOS: brew install --cask google-chrome\)\.$/,
    );
  });

  it("say which file could not be fetched, and leave nothing half fetched", () => {
    const folder = temporaryFolder();
    try {
      const lines = ["echo 'Reading package lists...'", "echo 'E: Failed to fetch http://deb/InRelease  No route' >&2", "exit 100"];
      writeFileSync(join(folder.path, "apt-get"), `#!/bin/sh\n${lines.join("\n")}\n`, { mode: 0o755 });
      const script = `
        const { fetchPackages } = await import("./tools/stores/debian.ts");
        console.log(fetchPackages("redis-server", process.argv[1] + "/redis"));`;
      const { stdout } = spawnSync(process.execPath, ["--input-type=module", "-e", script, folder.path], {
        cwd: ROOT,
        env: { ...process.env, PATH: `${folder.path}:${process.env.PATH}` },
        encoding: "utf8",
      });
      assert.equal(stdout, "Failed to fetch http://deb/InRelease No route\n");
      assert.deepEqual(readdirSync(folder.path), ["apt-get"]);
    } finally {
      folder.remove();
    }
  });
});
