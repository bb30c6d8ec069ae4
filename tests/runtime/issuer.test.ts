import assert from "node:assert/strict";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { exportJWK, generateKeyPair, type JWTHeaderParameters, SignJWT } from "jose";
import { reasonOf } from "#runtime/errors.ts";
import { type IssuerOptions, openIssuer } from "#runtime/issuer.ts";
import { accountIdOf } from "#runtime/tokens.ts";
import { quietLog } from "../support/database.ts";

const ALICE = "01900000-0000-7000-8000-0000000000a1";

/** An OpenID provider on a real port, whose keys and manners a test changes. */
class Provider {
  readonly keys = new Map<string, { alg: string; key: CryptoKey; jwk: object }>();
  /** How many times its keys were asked for. */
  fetches = 0;
  behaviour: "answers" | "fails" | "hangs" | "floods" = "answers";
  /** What it calls itself; its address unless given. */
  name: string | undefined;
  #server: Server | undefined;
  #port = 0;

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  async start(): Promise<void> {
    const server = createServer((request, response) => {
      if (this.behaviour === "hangs") return;
      const answer = this.#documents()[request.url ?? ""];
      if (request.url === "/keys") this.fetches++;
      const text = JSON.stringify(answer ?? {}) + " ".repeat(this.behaviour === "floods" ? 300_000 : 0);
      response.writeHead(this.behaviour === "fails" || answer === undefined ? 500 : 200, { "content-type": "application/json" });
      response.end(text);
    });
    await new Promise<void>((resolve) => server.listen(this.#port, "127.0.0.1", resolve));
    this.#port = (server.address() as AddressInfo).port;
    this.#server = server;
  }

  #documents(): Readonly<Record<string, unknown>> {
    return {
      "/.well-known/openid-configuration": { issuer: this.name ?? this.url, jwks_uri: `${this.url}/keys` },
      "/keys": { keys: [...this.keys.values()].map(({ jwk }) => jwk) },
    };
  }

  async stop(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    if (server === undefined) return;
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }

  async addKey(kid: string, alg = "ES256"): Promise<void> {
    const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true });
    this.keys.set(kid, { alg, key: privateKey, jwk: { ...(await exportJWK(publicKey)), kid, alg, use: "sig" } });
  }

  token(claims: Record<string, unknown> = {}, header: Partial<JWTHeaderParameters> & { kid?: string } = {}): Promise<string> {
    const { kid = [...this.keys.keys()].at(-1) ?? "" } = header;
    const { key, alg } = this.keys.get(kid) ?? assert.fail(`no key ${kid}`);
    const now = Math.floor(Date.now() / 1000);
    return new SignJWT({ iss: this.url, aud: "souk", sub: ALICE, iat: now, exp: now + 600, ...claims })
      .setProtectedHeader({ alg, typ: "at+jwt", ...header, kid })
      .sign(key);
  }
}

describe("the tokens of an OpenID provider", () => {
  const provider = new Provider();
  const realNow = performance.now;
  const realDate = Date.now;
  const open = (options: Partial<IssuerOptions> = {}) =>
    openIssuer({ issuer: provider.url, audience: "souk", rolesClaim: "roles", log: quietLog, ...options });
  const refused = (claims: unknown, reason: string) =>
    assert.rejects(
      async () => claims,
      (error) => reasonOf(error) === reason,
    );
  /** Lets the pauses between fetches pass, and nothing else. */
  const pass = (ms: number) => {
    const [before, date] = [performance.now, Date.now];
    performance.now = () => before.call(performance) + ms;
    Date.now = () => date() + ms;
  };

  beforeEach(async () => {
    provider.keys.clear();
    provider.behaviour = "answers";
    provider.name = undefined;
    await provider.start();
    await provider.addKey("first");
    provider.fetches = 0;
  });
  afterEach(async () => {
    performance.now = realNow;
    Date.now = realDate;
    await provider.stop();
  });

  it("are taken by the keys that its discovery document leads to, which are fetched once", async () => {
    const { accounts } = open();
    assert.deepEqual(await accounts(await provider.token()), { accountId: ALICE, operator: false });
    await Promise.all([provider.token({ jti: "1" }), provider.token({ jti: "2" })].map(async (token) => accounts(await token)));
    assert.equal(provider.fetches, 1);
  });

  it("are taken by keys at an address, or by keys that were given", async () => {
    const token = await provider.token();
    provider.name = "https://elsewhere.example";
    assert.equal((await open({ jwks: { url: `${provider.url}/keys` } }).accounts(token)).accountId, ALICE);
    const keys = [...provider.keys.values()].map(({ jwk }) => jwk as { kty: string });
    await provider.stop();
    assert.equal((await open({ jwks: { keys: { keys } } }).accounts(token)).accountId, ALICE);
  });

  it("may be signed with RS256, as most providers sign", async () => {
    await provider.addKey("rsa", "RS256");
    assert.equal((await open().accounts(await provider.token())).accountId, ALICE);
  });

  it("are refused when they are expired, from or for somebody else, of another type, or signed otherwise", async () => {
    const { accounts } = open();
    const now = Math.floor(Date.now() / 1000);
    await refused(accounts(await provider.token({ exp: now - 60 })), "TOKEN_EXPIRED");
    for (const claims of [{ iss: "https://evil.example" }, { aud: "another" }, { iat: undefined }, { sub: "" }]) {
      await refused(accounts(await provider.token(claims)), "TOKEN_INVALID");
    }
    await refused(accounts(await provider.token({}, { typ: "logout+jwt" })), "TOKEN_INVALID");
    await refused(accounts(await provider.token({}, { typ: "souk-service+jwt" })), "TOKEN_INVALID");
    assert.equal((await accounts(await provider.token({}, { typ: "JWT" }))).accountId, ALICE);
    await provider.addKey("384", "ES384");
    pass(11_000);
    await refused(accounts(await provider.token()), "TOKEN_INVALID");
    const secret = new TextEncoder().encode(JSON.stringify(provider.keys.get("first")?.jwk));
    const forged = new SignJWT({ iss: provider.url, aud: "souk", sub: ALICE, iat: now, exp: now + 600 });
    await refused(accounts(await forged.setProtectedHeader({ alg: "HS256", kid: "first" }).sign(secret)), "TOKEN_INVALID");
  });

  it("are an operator's by the claim that the settings name, within objects or with dots in its name", async () => {
    const operator = async (rolesClaim: string, claims: Record<string, unknown>) =>
      (await open({ rolesClaim }).accounts(await provider.token(claims))).operator;
    assert.equal(await operator("roles", { roles: ["seller", "operator"] }), true);
    assert.equal(await operator("roles", { roles: ["operators"] }), false);
    assert.equal(await operator("realm_access.roles", { realm_access: { roles: ["operator"] } }), true);
    assert.equal(await operator("realm_access.roles", { roles: ["operator"], realm_access: null }), false);
    assert.equal(await operator("https://souk.example/roles", { "https://souk.example/roles": ["operator"] }), true);
    assert.equal(await operator("scope", { scope: "openid operator" }), true);
  });

  it("make of any subject an account's id, the same each time and another with each issuer", async () => {
    const { accounts } = open();
    const first = await accounts(await provider.token({ sub: "auth0|5f7c8ec7c33c6c004bbafe82" }));
    const again = await accounts(await provider.token({ sub: "auth0|5f7c8ec7c33c6c004bbafe82", jti: "2" }));
    assert.match(first.accountId, /^[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    assert.equal(first.accountId, again.accountId);
    assert.equal(accountIdOf("https://id.example", "ada"), "dd08b1cc-f10d-54b4-9456-628f7af7f953");
    assert.notEqual(accountIdOf("https://id.example", "ada"), accountIdOf("https://id.example/", "ada"));
  });

  it("are taken by a new key as soon as one comes, and by a withdrawn one no more after a while", async () => {
    const { accounts } = open();
    const old = () => provider.token({ jti: String(Math.random()) }, { kid: "first" });
    await accounts(await old());
    await provider.addKey("second");
    await refused(accounts(await provider.token()), "TOKEN_INVALID");
    assert.equal(provider.fetches, 1, "right after a fetch an unknown key is nobody's");
    pass(11_000);
    await accounts(await provider.token());
    const leaving = await provider.token({}, { kid: "first" });
    provider.keys.delete("first");
    pass(6 * 60_000);
    await accounts(await provider.token({ exp: Math.floor(Date.now() / 1000) + 600, iat: Math.floor(Date.now() / 1000) }));
    for (let round = 0; provider.fetches < 3 && round < 200; round++) await new Promise((resolve) => setTimeout(resolve, 10));
    await new Promise((resolve) => setTimeout(resolve, 50));
    await refused(accounts(leaving), "TOKEN_INVALID");
  });

  it("go on by known keys while the provider is away, and fail as unavailable by others", async () => {
    const { accounts } = open();
    const exp = Math.floor(Date.now() / 1000) + 3600;
    const known = await provider.token({ exp });
    await accounts(known);
    await provider.addKey("second");
    await provider.stop();
    pass(20 * 60_000);
    assert.equal((await accounts(known)).accountId, ALICE);
    assert.equal((await accounts(await provider.token({ exp, jti: "2" }, { kid: "first" }))).accountId, ALICE);
    await refused(accounts(await provider.token({ exp })), "UNAVAILABLE");
    await provider.start();
    pass(11_000);
    assert.equal((await accounts(await provider.token({ exp }))).accountId, ALICE);
  });

  for (const behaviour of ["fails", "hangs", "floods"] as const) {
    it(`fail as unavailable while a provider that was never heard ${behaviour}, and are taken afterwards`, async () => {
      const { accounts, ready } = open();
      provider.behaviour = behaviour;
      await ready();
      await refused(accounts(await provider.token()), "UNAVAILABLE");
      provider.behaviour = "answers";
      pass(2_000);
      assert.equal((await accounts(await provider.token())).accountId, ALICE);
    }).timeout(15_000);
  }

  it("stop the start when the provider calls itself otherwise than the settings", async () => {
    provider.name = "https://id.example/";
    await assert.rejects(open().ready(), /SOUK_ISSUER is http.*calls itself "https:\/\/id\.example\/".*exactly so/);
  });
});
