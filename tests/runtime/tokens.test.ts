import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdtemp, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SignJWT } from "jose";
import { reasonOf } from "#runtime/errors.ts";
import {
  embeddedVerifiers,
  ISSUER,
  type Keys,
  loadOrCreateKeys,
  SERVICE_AUDIENCE,
  serviceTokens,
  signAccountToken,
  temporaryKeys,
} from "#runtime/tokens.ts";
import { ROOT } from "../support/process.ts";

const ALICE = "0198a0de-0000-7000-8000-00000000a11c";

describe("keys", () => {
  let dir: string;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), "souk-keys-"));
  });
  afterEach(() => rm(dir, { recursive: true }));

  it("are made once, for their owner only, and found again", async () => {
    const first = await loadOrCreateKeys(join(dir, "keys"));
    const token = await signAccountToken(first, { accountId: ALICE });
    for (const file of await readdir(join(dir, "keys"))) {
      assert.equal((await stat(join(dir, "keys", file))).mode & 0o777, 0o600, file);
    }
    const second = await loadOrCreateKeys(join(dir, "keys"));
    assert.deepEqual(second.pageTokens, first.pageTokens);
    assert.equal(first.pageTokens.length, 32);
    assert.deepEqual(await embeddedVerifiers(second).accounts(token), { accountId: ALICE, operator: false });
  });

  it("are the same for processes that start at once", async () => {
    const all = await Promise.all(Array.from({ length: 8 }, () => loadOrCreateKeys(dir)));
    for (const keys of all) assert.deepEqual(keys.pageTokens, all[0]?.pageTokens);
    const token = await signAccountToken(all[3] as Keys, { accountId: ALICE });
    await embeddedVerifiers(all[6] as Keys).accounts(token);
    assert.deepEqual((await readdir(dir)).sort(), ["accounts.pem", "page-tokens.key", "services.pem"]);
  });

  it("that are broken are named, not replaced", async () => {
    await writeFile(join(dir, "accounts.pem"), "nonsense");
    await assert.rejects(loadOrCreateKeys(dir), /accounts\.pem cannot be read/);
  });
});

/** Reads the keys in a process that may not write where they are. */
async function readByAnother(dir: string): Promise<{ code: number | null; output: string }> {
  const script = `const { loadOrCreateKeys } = await import("./runtime/tokens.ts");
    if (process.getuid() === 0) process.setuid(65_534);
    const { pageTokens } = await loadOrCreateKeys(process.argv[1]);
    console.log(Buffer.from(pageTokens).toString("hex"));`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", script, dir], { cwd: ROOT });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk: Buffer) => (output += chunk.toString()));
  const [code] = await once(child, "close");
  return { code, output: output.trim() };
}

describe("a folder of keys that may not be written", () => {
  let dir: string;
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), "souk-keys-"));
  });
  afterEach(async () => {
    await chmod(dir, 0o755);
    await rm(dir, { recursive: true });
  });

  it("gives its keys to a process that may read it", async () => {
    const keys = await loadOrCreateKeys(dir);
    for (const file of await readdir(dir)) await chmod(join(dir, file), 0o444);
    await chmod(dir, 0o555);
    assert.deepEqual(await readByAnother(dir), { code: 0, output: Buffer.from(keys.pageTokens).toString("hex") });
  });

  it("is named where keys are missing", async () => {
    await chmod(dir, 0o555);
    const { code, output } = await readByAnother(dir);
    assert.equal(code, 1);
    assert.match(output, /There are no keys in .*souk-keys-.*, and none can be made there/);
  });
});

describe("tokens", () => {
  let keys: Keys;
  before(async () => {
    keys = await temporaryKeys();
  });
  const refused = async (promise: unknown, reason: string) => {
    await assert.rejects(
      async () => promise,
      (error) => reasonOf(error) === reason,
    );
  };

  it("of an account and of a service are never taken for each other", async () => {
    const verifiers = embeddedVerifiers(keys);
    const account = await signAccountToken(keys, { accountId: ALICE });
    const service = await serviceTokens(keys, "order")();
    assert.equal(await verifiers.services(service), "order");
    await refused(verifiers.services(account), "TOKEN_INVALID");
    await refused(verifiers.accounts(service), "TOKEN_INVALID");
    // Even one key for both would not mix them: the audience and the type differ.
    const oneKey = embeddedVerifiers({ ...keys, services: keys.accounts });
    await refused(oneKey.services(account), "TOKEN_INVALID");
  });

  it("are remembered, and expire all the same", async () => {
    const { accounts } = embeddedVerifiers(keys);
    const token = await signAccountToken(keys, { accountId: ALICE, operator: true, ttlMs: 1000 });
    assert.ok(accounts(token) instanceof Promise);
    await accounts(token);
    assert.deepEqual(accounts(token), { accountId: ALICE, operator: true });
    const realNow = Date.now;
    try {
      Date.now = () => realNow() + 10_000;
      assert.throws(
        () => accounts(token),
        (error) => reasonOf(error) === "TOKEN_EXPIRED",
      );
    } finally {
      Date.now = realNow;
    }
  });

  it("need an issuer, an audience, a type, an expiry and a subject of the right kind", async () => {
    const verifiers = embeddedVerifiers(keys);
    const sign = (change: (jwt: SignJWT) => SignJWT, typ = "souk-service+jwt") =>
      change(
        new SignJWT({})
          .setProtectedHeader({ alg: "ES256", typ })
          .setIssuer(ISSUER)
          .setAudience(SERVICE_AUDIENCE)
          .setSubject("order")
          .setIssuedAt()
          .setExpirationTime("1m"),
      ).sign(keys.services.privateKey);
    assert.equal(await verifiers.services(await sign((jwt) => jwt)), "order");
    await refused(verifiers.services(await sign((jwt) => jwt.setIssuer("other"))), "TOKEN_INVALID");
    await refused(verifiers.services(await sign((jwt) => jwt.setAudience("other"))), "TOKEN_INVALID");
    await refused(verifiers.services(await sign((jwt) => jwt.setSubject("Order!"))), "TOKEN_INVALID");
    await refused(verifiers.services(await sign((jwt) => jwt, "JWT")), "TOKEN_INVALID");
    const endless = new SignJWT({}).setProtectedHeader({ alg: "ES256", typ: "souk-service+jwt" }).setIssuer(ISSUER);
    const token = await endless.setAudience(SERVICE_AUDIENCE).setSubject("order").setIssuedAt().sign(keys.services.privateKey);
    await refused(verifiers.services(token), "TOKEN_INVALID");
    await refused(verifiers.accounts(await signAccountToken(keys, { accountId: "alice" })), "TOKEN_INVALID");
  });

  it("of a service are made again before they end", async () => {
    const source = serviceTokens(keys, "order");
    const first = await source();
    assert.equal(await source(), first);
    const realNow = Date.now;
    try {
      Date.now = () => realNow() + 6 * 60_000;
      assert.notEqual(await source(), first);
    } finally {
      Date.now = realNow;
    }
  });
});
