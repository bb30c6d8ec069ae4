import { randomBytes } from "node:crypto";
import { createConnection } from "mysql2/promise";
import { testStores } from "./stores.ts";

/** Makes an empty database with a user of its own on the test run's server. */
export async function emptyDatabase(service: string): Promise<{ url: string; remove(): Promise<void> }> {
  const admin = new URL((await testStores()).mysqlAdminUrl);
  const name = `souk_${service}_${randomBytes(6).toString("hex")}`;
  const user = name.slice(-32);
  const password = randomBytes(12).toString("hex");
  await asAdmin(admin, [
    `create database ${name} character set utf8mb4`,
    `create user '${user}'@'%' identified by '${password}'`,
    `grant all on ${name}.* to '${user}'@'%'`,
  ]);
  return {
    url: `${admin.protocol}//${user}:${password}@${admin.host}/${name}`,
    remove: () => asAdmin(admin, [`drop database if exists ${name}`, `drop user if exists '${user}'@'%'`]),
  };
}

/** Makes an empty database for each of the services, with one user for all of them; the URL has `{service}` in the databases' names. */
export async function emptyDatabases(services: readonly string[]): Promise<{ url: string; remove(): Promise<void> }> {
  const admin = new URL((await testStores()).mysqlAdminUrl);
  const user = `souk_${randomBytes(6).toString("hex")}`;
  const password = randomBytes(12).toString("hex");
  const names = services.map((service) => `${user}_${service}`);
  await asAdmin(admin, [
    `create user '${user}'@'%' identified by '${password}'`,
    ...names.flatMap((name) => [`create database ${name} character set utf8mb4`, `grant all on ${name}.* to '${user}'@'%'`]),
  ]);
  return {
    url: `${admin.protocol}//${user}:${password}@${admin.host}/${user}_{service}`,
    remove: () => asAdmin(admin, [...names.map((name) => `drop database if exists ${name}`), `drop user if exists '${user}'@'%'`]),
  };
}

async function asAdmin(admin: URL, statements: readonly string[]): Promise<void> {
  const connection = await createConnection({
    host: admin.hostname,
    port: Number(admin.port || 3306),
    user: decodeURIComponent(admin.username),
    password: decodeURIComponent(admin.password),
  });
  try {
    for (const statement of statements) {
      await connection.query(statement);
    }
  } finally {
    await connection.end();
  }
}
