import { createPublicKey, hash, randomBytes } from "node:crypto";
import { chmod, link, mkdir, open, readFile, unlink } from "node:fs/promises";
import { join } from "node:path";
import {
  type CryptoKey,
  errors,
  exportPKCS8,
  generateKeyPair,
  importPKCS8,
  importSPKI,
  type JWTVerifyGetKey,
  jwtVerify,
  SignJWT,
} from "jose";
import { failure, TOKEN_EXPIRED, TOKEN_INVALID } from "#runtime/errors.ts";

/** The only signature algorithm accepted: ECDSA on P-256 with SHA-256. */
const ALGORITHM = "ES256";
/** The issuer of the built-in tokens. */
export const ISSUER = "souk";
/** The audience of account tokens. */
export const ACCOUNT_AUDIENCE = "souk";
/** The audience of service tokens: an account token is never taken for one, nor the other way round. */
export const SERVICE_AUDIENCE = "souk-services";
/** The `typ` of account tokens (RFC 9068). */
const ACCOUNT_TYPE = "at+jwt";
/** The `typ` of service tokens. */
const SERVICE_TYPE = "souk-service+jwt";
/** How long a service token lives. A new one is made at half of it. */
const SERVICE_TOKEN_MS = 10 * 60_000;
/** The longest token that is looked at, in characters. */
const MAX_TOKEN_LENGTH = 4096;
/** How many verified tokens are remembered. */
const MAX_REMEMBERED = 20_000;
/** How much two clocks may differ. */
const CLOCK_TOLERANCE_S = 5;

/** The shape of an account's id: a UUID in lower case. */
export const ACCOUNT_ID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const SERVICE_NAME = /^[a-z]{2,16}$/;

/** A key pair for signing. */
export interface KeyPair {
  readonly privateKey: CryptoKey;
  readonly publicKey: CryptoKey;
}

/** The secrets of an embedded installation. */
export interface Keys {
  /** Signs account tokens, in place of an OpenID provider. */
  readonly accounts: KeyPair;
  /** Signs service tokens. */
  readonly services: KeyPair;
  /** Authenticates page tokens; 32 bytes. */
  readonly pageTokens: Uint8Array;
}

/**
 * Reads the keys in a folder and makes those that are missing. The files are readable by their owner only, unless the folder may not be written: then
 * whoever mounted it has seen to that.
 *
 * @throws Error a sentence, when a key is missing and cannot be made.
 */
export async function loadOrCreateKeys(dir: string): Promise<Keys> {
  try {
    await mkdir(dir, { recursive: true, mode: 0o700 });
    return await keysIn(dir);
  } catch (cause) {
    if (!isForbidden(cause)) throw cause;
    throw new Error(`There are no keys in ${dir}, and none can be made there: ${(cause as Error).message}.`, { cause });
  }
}

function isForbidden(error: unknown): boolean {
  return ["EACCES", "EPERM", "EROFS"].includes((error as NodeJS.ErrnoException).code ?? "");
}

async function keysIn(dir: string): Promise<Keys> {
  return {
    accounts: await loadOrCreatePair(join(dir, "accounts.pem")),
    services: await loadOrCreatePair(join(dir, "services.pem")),
    pageTokens: Buffer.from(
      await loadOrCreate(join(dir, "page-tokens.key"), async () => randomBytes(32).toString("base64url")),
      "base64url",
    ),
  };
}

/** New keys that live in memory only. */
export async function temporaryKeys(): Promise<Keys> {
  const pair = () => generateKeyPair(ALGORITHM, { extractable: true });
  return { accounts: await pair(), services: await pair(), pageTokens: randomBytes(32) };
}

async function loadOrCreatePair(path: string): Promise<KeyPair> {
  const pem = await loadOrCreate(path, async () =>
    exportPKCS8((await generateKeyPair(ALGORITHM, { extractable: true })).privateKey),
  );
  try {
    const publicPem = createPublicKey(pem).export({ type: "spki", format: "pem" }).toString();
    return { privateKey: await importPKCS8(pem, ALGORITHM), publicKey: await importSPKI(publicPem, ALGORITHM) };
  } catch (cause) {
    throw new Error(`The key in ${path} cannot be read. Restore it, or delete it and have a new one made.`, { cause });
  }
}

/** Of several processes that start at once one makes the secret and all use it: the file appears whole, by `link`, or not at all. */
async function loadOrCreate(path: string, make: () => Promise<string>): Promise<string> {
  for (;;) {
    try {
      await chmod(path, 0o600).catch((error: unknown) => {
        if (!isForbidden(error)) throw error;
      });
      return (await readFile(path, "utf8")).trim();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") {
        throw error;
      }
    }
    const draft = `${path}.${process.pid}.${randomBytes(4).toString("hex")}`;
    const file = await open(draft, "wx", 0o600);
    await file.writeFile(await make());
    await file.sync();
    await file.close();
    await link(draft, path).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "EEXIST") {
        throw error;
      }
    });
    await unlink(draft);
  }
}

/** What an account's token says. */
export interface AccountClaims {
  readonly accountId: string;
  readonly operator: boolean;
}

/** Signs a token for an account. It lives an hour unless told otherwise; `ttlMs` may be negative in tests. */
export async function signAccountToken(
  keys: Pick<Keys, "accounts">,
  claims: { accountId: string; operator?: boolean; ttlMs?: number },
): Promise<string> {
  const expiry = Math.floor((Date.now() + (claims.ttlMs ?? 3_600_000)) / 1000);
  return new SignJWT(claims.operator ? { roles: ["operator"] } : {})
    .setProtectedHeader({ alg: ALGORITHM, typ: ACCOUNT_TYPE })
    .setIssuer(ISSUER)
    .setAudience(ACCOUNT_AUDIENCE)
    .setSubject(claims.accountId)
    .setIssuedAt()
    .setExpirationTime(expiry)
    .sign(keys.accounts.privateKey);
}

/** Gives a service's current token; asked before each call. */
export type ServiceTokenSource = () => Promise<string>;

/** Signs a service's tokens, each used until half of its life is over. */
export function serviceTokens(keys: Pick<Keys, "services">, service: string): ServiceTokenSource {
  let token: Promise<string> | undefined;
  let renewTime = 0;
  return () => {
    const now = Date.now();
    if (token === undefined || now >= renewTime) {
      renewTime = now + SERVICE_TOKEN_MS / 2;
      token = new SignJWT({})
        .setProtectedHeader({ alg: ALGORITHM, typ: SERVICE_TYPE })
        .setIssuer(ISSUER)
        .setAudience(SERVICE_AUDIENCE)
        .setSubject(service)
        .setIssuedAt()
        .setExpirationTime(Math.floor((now + SERVICE_TOKEN_MS) / 1000))
        .sign(keys.services.privateKey);
    }
    return token;
  };
}

/** Checks a token: fails with TOKEN_EXPIRED or TOKEN_INVALID. Synchronous when the token is remembered. */
export type Verifier<Claims> = (token: string) => Claims | Promise<Claims>;

/** Where a verifier's trust comes from. A key set of an OpenID provider fits as `key` as well as one public key. */
export interface Trust {
  readonly issuer: string;
  readonly audience: string;
  readonly key: CryptoKey | JWTVerifyGetKey;
}

/** A verifier of account tokens. */
export function accountVerifier(trust: Trust): Verifier<AccountClaims> {
  return verifier(trust, ACCOUNT_TYPE, (subject, payload) => {
    if (!ACCOUNT_ID.test(subject)) {
      throw failure(TOKEN_INVALID, { message: "The token's subject is not an account." });
    }
    const roles = payload.roles;
    return { accountId: subject, operator: Array.isArray(roles) && roles.includes("operator") };
  });
}

/** A verifier of service tokens; answers the service's name. */
export function serviceVerifier(trust: Trust): Verifier<string> {
  return verifier(trust, SERVICE_TYPE, (subject) => {
    if (!SERVICE_NAME.test(subject)) {
      throw failure(TOKEN_INVALID, { message: "The token's subject is not a service." });
    }
    return subject;
  });
}

/** Both verifiers for the embedded keys. */
export function embeddedVerifiers(keys: Keys): { accounts: Verifier<AccountClaims>; services: Verifier<string> } {
  return {
    accounts: accountVerifier({ issuer: ISSUER, audience: ACCOUNT_AUDIENCE, key: keys.accounts.publicKey }),
    services: serviceVerifier({ issuer: ISSUER, audience: SERVICE_AUDIENCE, key: keys.services.publicKey }),
  };
}

function verifier<Claims>(trust: Trust, typ: string, read: (subject: string, payload: Payload) => Claims): Verifier<Claims> {
  // A signature costs 110 µs to verify, this memory 2. The least recently used goes first; a Map keeps the order of insertion.
  const remembered = new Map<string, { claims: Claims; expireTime: number }>();
  return (token) => {
    if (token.length > MAX_TOKEN_LENGTH) {
      throw failure(TOKEN_INVALID);
    }
    const digest = hash("sha256", token, "base64");
    const known = remembered.get(digest);
    if (known !== undefined) {
      remembered.delete(digest);
      if (known.expireTime <= Date.now()) {
        throw failure(TOKEN_EXPIRED);
      }
      remembered.set(digest, known);
      return known.claims;
    }
    return verify(trust, typ, token).then((payload) => {
      const claims = read(payload.sub, payload);
      remembered.set(digest, { claims, expireTime: payload.exp * 1000 });
      if (remembered.size > MAX_REMEMBERED) {
        remembered.delete(remembered.keys().next().value as string);
      }
      return claims;
    });
  };
}

async function verify(trust: Trust, typ: string, token: string): Promise<Payload> {
  const options = {
    algorithms: [ALGORITHM],
    issuer: trust.issuer,
    audience: trust.audience,
    typ,
    requiredClaims: ["sub", "exp", "iat"],
    clockTolerance: CLOCK_TOLERANCE_S,
  };
  try {
    const { key } = trust;
    const { payload } = typeof key === "function" ? await jwtVerify(token, key, options) : await jwtVerify(token, key, options);
    return payload as Payload;
  } catch (cause) {
    throw failure(cause instanceof errors.JWTExpired ? TOKEN_EXPIRED : TOKEN_INVALID, { cause });
  }
}

/** What `verify` has made sure of, and the roles, which it has not. */
interface Payload {
  readonly sub: string;
  readonly exp: number;
  readonly roles?: unknown;
}
