import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Connection, createConnection } from "mysql2/promise";
import { runNode } from "../../tools/checks/run.ts";
import { makeDatabases } from "../../tools/databases.ts";
import { type MariadbOptions, startMariadb } from "../../tools/stores/mariadb.ts";
import { testAuthority } from "../support/certificates.ts";
import { temporaryFolder } from "../support/database.ts";

const SERVICES = ["account", "catalog", "inventory", "order", "payment", "search"];
const passwordOf = (service: string) => `${service}-pass-${"x".repeat(12)}`;

describe("databases over TLS", function () {
  this.timeout(120_000);
  const folder = temporaryFolder();
  const authority = testAuthority("Test CA");
  let server: Awaited<ReturnType<typeof startMariadb>>;
  let admin: Connection;

  before(async () => {
    const { certificate, key } = authority.issue(["localhost"]);
    const settings = Object.entries({ "ssl-ca": authority.certificate, "ssl-cert": certificate, "ssl-key": key }).map(
      ([name, pem]) => {
        const file = join(folder.path, `${name}.pem`);
        writeFileSync(file, pem);
        return `--${name}=${file}`;
      },
    );
    server = await startMariadb({ settings } satisfies MariadbOptions);
    admin = await createConnection(server.url.replace("mariadb:", "mysql:"));
    mkdirSync(join(folder.path, "passwords"));
    for (const service of SERVICES) writeFileSync(join(folder.path, "passwords", service), `${passwordOf(service)}\n`);
  });
  after(async () => {
    await admin?.end();
    await server?.stop();
    folder.remove();
  });

  const port = () => new URL(server.url).port;
  const trusted = () => ({ ...process.env, NODE_EXTRA_CA_CERTS: join(folder.path, "ssl-ca.pem") });
  const urlOf = (service: string, tail: string) =>
    `mariadb://souk_{service}:${passwordOf(service)}@localhost:${port()}/souk_{service}${tail}`;
  const make = (tail: string, env: NodeJS.ProcessEnv) =>
    runNode("tools/databases.ts", ["--passwords", join(folder.path, "passwords")], {
      env: { ...env, SOUK_ADMIN_URL: `${server.url.replace("127.0.0.1", "localhost")}${tail}` },
    });
  const migrate = (service: string, tail: string, env: NodeJS.ProcessEnv = trusted()) =>
    runNode("tools/migrate.ts", ["up", service], {
      env: { ...env, SOUK_DATABASE_URL: urlOf(service, tail) },
    });

  it("are made each with a user of its own, who comes over TLS only and has no rights elsewhere, as often as one likes", async () => {
    for (let time = 0; time < 2; time++) {
      const { code, output } = await make("?tls=verify", trusted());
      assert.equal(code, 0, output);
    }
    const { code, output } = await migrate("account", "?tls=verify");
    assert.equal(code, 0, output);
    assert.match((await migrate("account", "")).output, /refuses the user|TLS only/);
    const [grants] = await admin.query<never>("show grants for 'souk_order'@'%'");
    const lines = (grants as object[]).map((row) => String(Object.values(row)[0]));
    assert.equal(lines.length, 2);
    assert.match(lines[0] ?? "", /^GRANT USAGE ON \*\.\*.*REQUIRE SSL/);
    assert.match(lines[1] ?? "", /^GRANT ALL PRIVILEGES ON `souk\\_order`\.\*/);
  });

  it("are not used where the certificate is not trusted, or not for this host", async () => {
    assert.match((await migrate("account", "?tls=verify", process.env)).output, /certificate/);
    assert.match((await migrate("account", "?tls=amazon-rds")).output, /certificate/);
    const byAddress = urlOf("account", "?tls=verify").replace("localhost", "127.0.0.2");
    const elsewhere = await runNode("tools/migrate.ts", ["status", "account"], {
      env: { ...trusted(), SOUK_DATABASE_URL: byAddress },
    });
    assert.notEqual(elsewhere.code, 0);
  });

  it("are refused where the URL demands TLS and the server speaks none", async () => {
    const plain = await startMariadb({ settings: ["--skip-ssl"] });
    try {
      const url = `${plain.url}/mysql?tls=verify`;
      const { output } = await runNode("tools/migrate.ts", ["up", "account"], {
        env: { ...trusted(), SOUK_DATABASE_URL: url.replace("/mysql", "/souk_{service}") },
      });
      assert.match(output, /speaks no TLS, which \?tls= in its URL demands/);
    } finally {
      await plain.stop();
    }
  });

  it("follow a changed password", async () => {
    const passwords = new Map([["order", "another-password"]]);
    await makeDatabases({ adminUrl: server.url, passwords, names: "souk_{service}" });
    const url = new URL(server.url.replace("mariadb:", "mysql:"));
    Object.assign(url, { username: "souk_order", password: "another-password", pathname: "/souk_order" });
    await (await createConnection(url.href)).end();
  });

  it("have names that are no statements", async () => {
    const making = { adminUrl: server.url, passwords: new Map([["order", "x"]]) };
    for (const names of ["souk", "souk_{service}`", "souk {service}", `${"x".repeat(30)}{service}`])
      await assert.rejects(makeDatabases({ ...making, names }), /--names has \{service\}/);
    await assert.rejects(
      makeDatabases({ ...making, adminUrl: `${server.url}?tls=none`, names: "a_{service}" }),
      /SOUK_ADMIN_URL is/,
    );
  });
});
