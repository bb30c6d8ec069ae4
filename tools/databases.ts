// `npm run databases`: a database and a user of its own for each service, on a MariaDB or MySQL server.

import { readFileSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { type Connection, createConnection } from "mysql2/promise";
import { TLS } from "#runtime/database/mysql.ts";
import { TABLES } from "../services/tables.ts";
import { runCommand, Usage } from "./checks/usage.ts";

const VARIABLE = "SOUK_ADMIN_URL";
const SERVICE = "{service}";
const CONNECT_TIMEOUT_MS = 10_000;

const HELP = `npm run databases -- --passwords FOLDER [--names souk_${SERVICE}]

Makes a database and a user for each service that has tables, and gives the user all rights on that database and none elsewhere. What is there
already stays; a password that has changed is set. May run at any time, and as often as one likes.

  --passwords FOLDER   a file for each service, named as the service, with its user's password
  --names PATTERN      what a service's database and its user are called: souk_${SERVICE}
  --help               this

${VARIABLE} says where the server is, and who may do this there: mysql://admin:password@db.internal:3306, or mariadb://. With ?tls=verify or
?tls=amazon-rds behind it the connection is over TLS, and the users made may connect in no other way.`;

/** Where the databases are to be made. */
export interface Making {
  readonly adminUrl: string;
  /** By service. */
  readonly passwords: ReadonlyMap<string, string>;
  /** With `{service}` in it. */
  readonly names: string;
}

/**
 * Makes what is missing, and sets every user's password.
 *
 * @throws Usage a sentence about a name, a URL or a server that cannot be used.
 */
export async function makeDatabases({ adminUrl, passwords, names }: Making): Promise<void> {
  const { options, isTls } = addressOf(adminUrl);
  const named = [...passwords].map(([service, password]) => ({ name: nameOf(names, service), password }));
  const connection = await createConnection(options).catch((error: Error) => {
    throw new Usage(`${VARIABLE} names a server that cannot be used: ${error.message}`);
  });
  try {
    for (const { name, password } of named) await makeDatabase(connection, name, password, isTls);
  } finally {
    await connection.end();
  }
}

/** Each statement may run again. `_` stands for any character in a grant, unless it is escaped. */
async function makeDatabase(connection: Connection, name: string, password: string, isTls: boolean): Promise<void> {
  const user = `'${name}'@'%'`;
  await connection.query(`create database if not exists ${name} character set utf8mb4`);
  await connection.query(`create user if not exists ${user} identified by ?`, [password]);
  await connection.query(`alter user ${user} identified by ? require ${isTls ? "ssl" : "none"}`, [password]);
  await connection.query(`grant all privileges on \`${name.replaceAll("_", "\\_")}\`.* to ${user}`);
}

function nameOf(names: string, service: string): string {
  const name = names.replaceAll(SERVICE, service);
  // The longest name of a MySQL user.
  if (!names.includes(SERVICE) || !/^[a-z0-9_]{1,32}$/.test(name))
    throw new Usage(
      `--names has ${SERVICE} in it, small letters, digits and _, and makes names of at most 32 characters, unlike ${names}`,
    );
  return name;
}

function addressOf(text: string) {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const tls = url?.searchParams.get("tls") ?? undefined;
  const ssl = tls === undefined ? undefined : TLS[tls];
  if (url === undefined || !/^(mariadb|mysql):$/.test(url.protocol) || url.username === "" || (tls !== undefined && !ssl))
    throw new Usage(
      `${VARIABLE} is mysql://<administrator>:<password>@<host>:<port>, with ?tls=${Object.keys(TLS).join(" or ")} behind it or nothing`,
    );
  const options = {
    host: url.hostname,
    port: Number(url.port || 3306),
    user: decodeURIComponent(url.username),
    password: decodeURIComponent(url.password),
    connectTimeout: CONNECT_TIMEOUT_MS,
    ...(ssl && { ssl }),
  };
  return { options, isTls: ssl !== undefined };
}

function passwordIn(folder: string, service: string): string {
  try {
    const password = readFileSync(path.join(folder, service), "utf8").trim();
    if (password !== "") return password;
  } catch {}
  throw new Usage(`${path.join(folder, service)} has no password in it`);
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      passwords: { type: "string" },
      names: { type: "string", default: `souk_${SERVICE}` },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(HELP);
    return;
  }
  const adminUrl = process.env[VARIABLE];
  const folder = values.passwords;
  if (!adminUrl || folder === undefined) throw new Usage(`--passwords and ${VARIABLE} are needed`);
  const passwords = new Map(Object.keys(TABLES).map((service) => [service, passwordIn(folder, service)]));
  await makeDatabases({ adminUrl, passwords, names: values.names });
  console.log(`${[...passwords.keys()].join(", ")}: there, each with its user`);
}

if (import.meta.main) await runCommand("npm run databases", main);
